"""Every metric along one axis of the sweep: curves for numbers, dots for names."""

from __future__ import annotations

from pydantic import JsonValue

from mcit_core.methods import REFERENCES
from mcit_core.metrics import headline_names
from orchestration.keep.tables import Row, text_in
from orchestration.report.charts import (
    LETTER,
    Datum,
    Figure,
    Panel,
    Series,
    Spec,
    colour,
    dash,
    interval_ends,
    layers,
    limits,
    only,
    quantity,
    room_for,
    shape,
    title,
    told,
    with_intervals,
)
from orchestration.report.context import PALETTE, REFERENCE_STYLE, SHAPES, Context
from orchestration.results.comparisons import baseline_of
from orchestration.results.estimates import Estimate, present
from orchestration.results.searching import ranges
from orchestration.results.settings import setting_axes
from orchestration.results.words import format_value, short_axis_names, summary_metrics

Group = tuple[Series, list[Row]]


def axis_figures(context: Context) -> list[Figure]:
    """One figure an axis; none of a range that was searched, whose values hardly ever come twice."""
    searched = ranges(context.results)
    axes = [axis for axis in (*context.numeric_axes(), *context.categorical_axes()) if axis not in searched]
    return [_axis_figure(context, axis) for axis in axes]


def _axis_figure(context: Context, axis: str) -> Figure:
    groups, pooled = _groups(context, axis)
    metrics = [metric.name for metric in summary_metrics(context.summaries) if metric.unit == "percent"]
    panels, cut = [], False
    for metric in metrics:
        panel, here = _panel(context, groups, metric, axis)
        panels.append(panel)
        cut |= here and panel.shown
    notes = [
        f"{axis}. Means in per cent, from three seeds on with 95 % intervals.",
        "Faint dots are single trials.",
        "Values are evenly spaced along the axis, whatever their distance." if axis in context.numeric_axes() else "",
        f"Averaged over {', '.join(pooled)} within each seed and order." if pooled else "",
        "Some intervals reach beyond their panel and are cut at its edge." if cut else "",
    ]
    references = [Series(name, *REFERENCE_STYLE[name][:1], dash=REFERENCE_STYLE[name][1]) for name in REFERENCES]
    return Figure(
        f"Headline metrics along {axis}",
        " ".join(note for note in notes if note),
        panels,
        [*(series for series, _ in groups), *references],
        key="series",
        picker="metric",
    )


def _groups(context: Context, axis: str) -> tuple[list[Group], list[str]]:
    """One line per combination of method and the other axes; more than fit are pooled, and the axes' names returned."""
    others = [name for name in setting_axes(context.results.axes) if name != axis]
    short = short_axis_names(context.results.axes)
    combinations: dict[tuple[str, tuple[JsonValue, ...]], list[Row]] = {}
    for row in context.results.finished:
        if row["method"] not in REFERENCES:
            method = text_in(row, "method") if axis != "method" else ""
            combinations.setdefault((method, tuple(row.get(name) for name in others)), []).append(row)
    if len(combinations) > len(PALETTE):
        rows = [row for group in combinations.values() for row in group]
        return [(Series("all settings", PALETTE[0]), rows)], others
    groups = []
    for i, ((method, rest), rows) in enumerate(combinations.items()):
        words = [f"{short[name]} {format_value(value)}" for name, value in zip(others, rest, strict=True)]
        label = ", ".join([method, *words] if len(context.methods) > 1 and method else words) or method or "mean"
        groups.append((Series(label, PALETTE[i], SHAPES[i]), rows))
    return groups, []


def _panel(context: Context, groups: list[Group], metric: str, axis: str) -> tuple[Panel, bool]:
    """And whether an interval is cut."""
    labels = context.value_names(axis)
    rows: list[Datum] = []
    shown: list[Estimate] = []
    for series, trials in groups:
        for value, label in zip(context.axis_values(axis), labels, strict=True):
            here = [row for row in trials if row.get(axis) == value]
            found = context.estimate(here, metric)
            shown.append(found)
            rows += [
                {"kind": "trial", "series": series.label, "x": label, "y": 100 * one}
                for one in present(row.get(metric) for row in here)
            ]
            if found.mean is not None:
                rows.append(
                    {
                        "kind": "mean",
                        "series": series.label,
                        "x": label,
                        "y": 100 * found.mean,
                        **interval_ends(found),
                        "n": found.n,
                    }
                )
    rows += _references(context, metric, axis)
    ends, cut = limits([y for row in rows if isinstance(y := row["y"], float)], shown)
    unit = "per cent" if metric.endswith("accuracy") else "points"
    spec = _spec(rows, axis, labels, quantity("y", unit, ends), len(groups), joined=axis in context.numeric_axes())
    least = 90 + (24.0 * len(labels) if _crowded(labels) else room_for(labels) * len(labels) + 16 * len(labels))
    return Panel(title(metric), spec, rows, max(260, least), shown=metric in headline_names()), cut


def _crowded(labels: list[str]) -> bool:
    """Whether the labels of an axis stand at an angle."""
    return sum(map(len, labels)) > 60


def _spec(rows: list[Datum], axis: str, labels: list[str], y: Spec, groups: int, joined: bool) -> Spec:
    crowded = _crowded(labels)
    x = {
        "field": "x",
        "type": "ordinal",
        "title": axis,
        "scale": {"domain": labels, "type": "point", "padding": 0.4},
        "axis": {"labelAngle": -50 if crowded else 0, "grid": False},
    }
    apart: Spec = {"xOffset": {"field": "series", "scale": {"range": [-4 * (groups - 1), 4 * (groups - 1)]}}}
    place = {"x": x, **(apart if groups > 1 else {})}
    tooltip = told(series="series", x=axis, y="mean|.2f", low="95 % from|.2f", high="to|.2f", n="seeds")
    trial = told(series="series", x=axis, y="one trial|.2f")
    level = told(series="reference", y="mean|.2f")
    line = {
        "transform": only("mean"),
        "mark": {"type": "line", "strokeWidth": 2, "clip": True},
        "encoding": {**place, "y": y, "color": colour("series"), "strokeDash": dash("series")},
    }
    bars = {
        "mark": {"type": "rule", "strokeWidth": 1.5, "clip": True},
        "encoding": {
            **place,
            "y": {**y, "field": "low"},
            "y2": {"field": "high"},
            "color": colour("series"),
            "tooltip": tooltip,
        },
    }
    crowded_out = 0.64 * LETTER * len(labels[0]) - 60 if crowded and labels else 0
    return layers(
        *([line] if joined else []),
        {
            "transform": only("trial"),
            "mark": {"type": "circle", "size": 18, "opacity": 0.35, "clip": True},
            "encoding": {**place, "y": y, "color": colour("series"), "tooltip": trial},
        },
        *with_intervals(rows, bars),
        {
            "transform": only("mean"),
            "mark": {"type": "point", "filled": True, "size": 55, "clip": True},
            "encoding": {
                **place,
                "y": y,
                "color": colour("series"),
                "shape": shape("series"),
                "tooltip": tooltip,
            },
        },
        {
            "transform": [*only("reference"), {"filter": "!isValid(datum.x)"}],
            "mark": {"type": "rule", "strokeWidth": 1.5, "clip": True},
            "encoding": {"y": y, "color": colour("series"), "strokeDash": dash("series"), "tooltip": level},
        },
        {
            "transform": [*only("reference"), {"filter": "isValid(datum.x)"}],
            "mark": {"type": "tick", "thickness": 2, "size": 26, "clip": True, "orient": "horizontal"},
            "encoding": {"x": x, "y": y, "color": colour("series"), "tooltip": level},
        },
        height=230,
        zoom=["y"],
        left=max(0.0, crowded_out),
    )


def _references(context: Context, metric: str, axis: str) -> list[Datum]:
    """References as level lines, or at every value where the axis applies to them; where methods are compared each has
    the references of its own tuner."""
    values = context.axis_values(axis)
    found: list[Datum] = []
    for method in REFERENCES:
        rows = [row for row in context.results.finished if row["method"] == method]
        if axis == "method":
            means = [_own_reference(context, str(value), method, metric) for value in values]
        elif any(row.get(axis) is not None for row in rows):
            means = [context.estimate((row for row in rows if row.get(axis) == value), metric).mean for value in values]
        else:
            level = context.estimate(rows, metric).mean
            found += [{"kind": "reference", "series": method, "x": None, "y": 100 * level}] if level is not None else []
            continue
        found += [
            {"kind": "reference", "series": method, "x": label, "y": 100 * mean}
            for label, mean in zip(context.value_names(axis), means, strict=True)
            if mean is not None
        ]
    return found


def _own_reference(context: Context, method: str, reference: str, metric: str) -> float | None:
    """The mean of a method's own reference: same tuner, same settings of it."""
    settings = [summary.setting for summary in context.summaries]
    own = next((setting for setting in settings if setting.method == method and not setting.is_reference), None)
    found = baseline_of(own, settings, reference) if own else None
    if found is None:
        return None
    return context.estimate((row for row in context.results.finished if found.matches(row)), metric).mean
