"""Which setting is ahead and which axis matters: ranks, importance, pairs of axes, all axes at once."""

from __future__ import annotations

from itertools import combinations

from mcit_core.metrics import CATALOGUE, Metric, headline_names
from orchestration.keep.tables import Row
from orchestration.report.charts import (
    INK,
    Datum,
    Figure,
    Panel,
    Series,
    colour,
    heat_map,
    layers,
    names,
    quantity,
    room_for,
    told,
    with_intervals,
)
from orchestration.report.context import Context
from orchestration.results.importance import importance
from orchestration.results.ranks import Ranks, ranks
from orchestration.results.settings import VALIDATION
from orchestration.results.words import short_axis_names, summary_metrics

#: settings that are drawn at first
MOST = 30
#: with so many the bootstrap's intervals of ranks hold what they promise (`results.ranks`)
SEEDS = 5
#: pairs of axes that are drawn at first
MOST_PAIRS = 2


def rank_figure(context: Context) -> tuple[Figure | None, str]:
    """Ranks with their intervals, on validation rows, by which settings are chosen, and on the headline metrics; and
    why there is none."""
    results = context.results
    panels: list[Panel] = []
    every: list[str] = []
    reasons, few, drawn = "", False, 0
    for metric in (VALIDATION, *headline_names()):
        if metric != VALIDATION and not CATALOGUE[metric].better:
            continue
        found, why = ranks(results.trials, results.axes, metric, results.design)
        reasons = reasons or why
        if found is not None:
            panels.append(_ranks(context, metric, found, shown=not panels))
            every = every or [context.label(one.setting) for one in found.ranks]
            few, drawn = few or found.seeds < SEEDS, found.drawn
    if not panels:
        return None, reasons
    caption = (
        "Rank of each competing setting, 1 is the best, with the middle 95 % of its ranks when "
        f"{'seeds and orders' if drawn else 'seeds'} are drawn again (bootstrap, 2,000 draws, the same for all "
        "settings); hovering tells how often it is the best. Wide bars say that the seeds do not settle the order."
    )
    caption += f" With fewer than {SEEDS} seeds the bars are too short." if few else ""
    caption += f" The first {MOST} of {len(every)} are drawn at first." if len(every) > MOST else ""
    return Figure("Ranks of settings", caption, panels, picker="metric", picked=frozenset(every[:MOST]), columns=1), ""


def _ranks(context: Context, metric: str, found: Ranks, shown: bool) -> Panel:
    rows: list[Datum] = [
        {
            "setting": context.label(one.setting),
            "rank": one.rank,
            "low": one.low,
            "high": one.high,
            "best": one.best,
            "mean": 100 * one.mean,
            "seeds": found.seeds,
        }
        for one in found.ranks
    ]
    x = {
        **quantity("rank", "rank, left is better", (0.5, len(rows) + 0.5)),
        "axis": {"format": "d", "tickMinStep": 1},
    }
    y = names("setting", axis={"grid": False})
    tooltip = told(
        setting="setting",
        rank="rank|.3~g",
        low="95 % from|.3~g",
        high="to|.3~g",
        best="best in|.1%",
        mean="mean|.2f",
        seeds="seeds",
    )
    spec = layers(
        {
            "mark": {"type": "rule", "strokeWidth": 1.8, "color": "#0072B2", "clip": True},
            "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": y, "tooltip": tooltip},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 55, "color": "#0072B2", "clip": True},
            "encoding": {"x": x, "y": y, "tooltip": tooltip},
        },
        height={"step": 22},
        zoom=["x"],
    )
    least = room_for(str(row["setting"]) for row in rows) + 260
    title = "average accuracy on validation rows" if metric == VALIDATION else CATALOGUE[metric].title
    return Panel(title, spec, rows, least, shown=shown)


def importance_figure(context: Context) -> tuple[Figure | None, str]:
    """And why there is none."""
    results = context.results
    found, why = importance(results.trials, results.axes, results.design)
    if found is None:
        return None, why
    rows: list[Datum] = []
    for one in found.axes:
        shares = {"share of variance": one.variance, "by chance alone": one.chance, "among the best": one.best}
        for measure, share in shares.items():
            if share is None:
                continue
            told_interval = measure == "share of variance" and one.low is not None and one.high is not None
            rows.append(
                {
                    "axis": one.axis,
                    "measure": measure,
                    "share": 100 * share,
                    "low": 100 * (one.low or 0.0) if told_interval else None,
                    "high": 100 * (one.high or 0.0) if told_interval else None,
                    "settings": one.settings,
                }
            )
    x = quantity("share", "per cent", (0, 100))
    place = {"y": names("axis", axis={"grid": False}), "yOffset": {"field": "measure", "type": "nominal", "sort": None}}
    tooltip = told(
        axis="axis", measure="measure", share="per cent|.1f", low="95 % from|.1f", high="to|.1f", settings="settings"
    )
    spec = layers(
        {"mark": {"type": "bar"}, "encoding": {"x": x, **place, "color": colour("measure"), "tooltip": tooltip}},
        *with_intervals(
            rows,
            {
                "mark": {"type": "rule", "color": INK},
                "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, **place, "tooltip": tooltip},
            },
        ),
        height={"step": 14, "for": "offset"},
    )
    where = "validation" if found.metric.startswith("validation/") else "test"
    units = "seeds and drawn orders" if results.design.orders == "random" else "seeds"
    interval = f"no interval: {found.no_interval}" if found.no_interval else f"with its 95 % interval over {units}"
    fewer = [f"{one.axis} over the {one.settings} that have it" for one in found.axes if one.settings < found.settings]
    caption = (
        f"Share of variance: of all the variance of average accuracy ({where} rows) between {found.settings} settings "
        f"and {found.seeds} seeds, the part that lies between the axis' values ({interval}); by chance alone: what it "
        "would be if the values were dealt to the settings at random. Among the best: how far the "
        f"{found.top} best settings' values differ from all settings', as shares that sum to one (PED-ANOVA), coarse "
        "where settings are few."
    )
    caption += f" Between seeds lie {100 * found.seed_variance:.0f} % of the variance."
    caption += f" Shares of variance of {'; '.join(fewer)}." if fewer else ""
    caption += f" No shares among the best: {found.no_best}." if found.no_best else ""
    series = [
        Series("share of variance", "#0072B2"),
        Series("by chance alone", "#999999"),
        Series("among the best", "#E69F00"),
    ]
    labels = [one.axis for one in found.axes]
    panel = Panel("", spec, rows, room_for(labels) + 220)
    return Figure("Importance of the axes", caption, [panel], series, key="measure", columns=1), ""


def _main(context: Context) -> list[Metric]:
    """The metrics that are shares, but for those that refine others."""
    return [m for m in summary_metrics(context.summaries) if m.unit == "percent" and m.place != "further"]


def pair_figure(context: Context) -> Figure | None:
    """Two axes at once: the mean of every pair of values, where there are two axes of at least two values."""
    axes = [
        axis for axis in (*context.numeric_axes(), *context.categorical_axes()) if len(context.axis_values(axis)) > 1
    ]
    metrics = _main(context)
    panels = []
    pairs = [pair for pair in combinations(axes, 2) if max(len(context.axis_values(axis)) for axis in pair) <= MOST]
    for number, (one, other) in enumerate(pairs):
        for metric in metrics:
            values = _pairs(context, one, other, metric.name)
            known = [value for line in values for value in line if value is not None]
            if not known:
                continue
            shown = number < MOST_PAIRS and metric.name in ("average_accuracy", "forgetting")
            panels.append(
                heat_map(
                    context.value_names(one),
                    context.value_names(other),
                    values,
                    max(map(abs, known)) or 1.0,
                    words=(one, other),
                    form=".1f",
                    signed=min(known) < 0,
                    low=min(known),
                    title=f"{metric.title}: {one} × {other}",
                    shown=shown,
                )
            )
    if not panels:
        return None
    caption = "Means in per cent over seeds, orders and whatever else was varied. Blank: never run, or not finished."
    return Figure("Pairs of axes", caption, panels, columns=2, most=520, picker="metric and axes")


def _pairs(context: Context, one: str, other: str, metric: str) -> list[list[float | None]]:
    cells: dict[tuple[object, object], list[Row]] = {}
    for setting in context.studied:
        for row in context.rows(setting):
            cells.setdefault((row.get(one), row.get(other)), []).append(row)
    return [
        [
            None if (mean := context.estimate(cells.get((a, b), []), metric).mean) is None else 100 * mean
            for b in context.axis_values(other)
        ]
        for a in context.axis_values(one)
    ]


def parallel_figure(context: Context) -> Figure | None:
    """Every setting as a line over axes and metrics, each scaled from its lowest to its highest; None where there is
    one axis alone."""
    axes = [axis for axis in context.results.axes if axis != "order" and len(context.axis_values(axis)) > 1]
    metrics = _main(context)
    done = [s for s in context.ranked if not s.setting.is_reference and s.metric("average_accuracy").n]
    if len(axes) < 2 or len(done) < 2:
        return None
    short = short_axis_names(context.results.axes)
    rows: list[Datum] = []
    for axis in axes:
        values = context.axis_values(axis)
        for summary in done:
            value = summary.setting.method if axis == "method" else summary.setting.value(axis)
            if value in values:
                place = values.index(value) / (len(values) - 1)
                told_value = context.value_names(axis)[values.index(value)]
                rows.append(_stop(context.label(summary.setting), short.get(axis, axis), place, told_value))
    for metric in metrics:
        known = [mean for summary in done if (mean := summary.metric(metric.name).mean) is not None]
        low, high = (min(known), max(known)) if known else (0.0, 0.0)
        for summary in done:
            mean = summary.metric(metric.name).mean
            if mean is not None and high > low:
                share = (mean - low) / (high - low)
                rows.append(_stop(context.label(summary.setting), metric.title, share, f"{100 * mean:.1f}"))
    stops = list(dict.fromkeys(str(row["stop"]) for row in rows))
    x = {
        **names("stop"),
        "scale": {"type": "point", "padding": 0.3},
        "axis": {"labelAngle": -25, "grid": True, "domain": False},
    }
    y = {**quantity("place", "", (-0.05, 1.05)), "axis": None}
    tooltip = told(setting="setting", stop="axis or metric", value="value")
    spec = layers(
        {
            "mark": {"type": "line", "strokeWidth": 1.6, "opacity": 0.75},
            "encoding": {"x": x, "y": y, "color": colour("setting"), "tooltip": told(setting="setting")},
        },
        {
            "mark": {"type": "circle", "size": 34, "opacity": 1},
            "encoding": {"x": x, "y": y, "color": colour("setting"), "tooltip": tooltip},
        },
        height=300,
    )
    caption = (
        "A line a setting, over the axes and then the metrics, each from its lowest value (below) to its highest; "
        "values of an axis are evenly spaced. Hovering over a dot tells the value."
    )
    picked = frozenset(context.label(setting) for setting in context.pick(MOST, references=()))
    if len(done) > MOST:
        caption += f" The best {MOST} of {len(done)} are drawn at first."
    return Figure(
        "Parallel coordinates",
        caption,
        [Panel("", spec, rows, max(300, 62.0 * len(stops)))],
        [context.styles[summary.setting] for summary in done],
        picked=picked,
        columns=1,
    )


def _stop(setting: str, stop: str, place: float, value: str) -> Datum:
    return {"setting": setting, "stop": stop, "place": place, "value": value}
