"""Settings beside one another: accuracy against forgetting, orders, and where the time went."""

from __future__ import annotations

from orchestration.keep.tables import text_in
from orchestration.report.charts import (
    SOFT,
    Datum,
    Figure,
    Panel,
    Series,
    Spec,
    colour,
    layers,
    names,
    only,
    quantity,
    room_for,
    shape,
    told,
)
from orchestration.report.context import Context
from orchestration.results.estimates import Estimate, estimate
from orchestration.results.pareto import front_settings, setting_ellipse
from orchestration.results.settings import Setting

MOST_SETTINGS = 24
MOST_REFERENCES = 8
#: with fewer seeds the region of two means fills the panel
LEAST_SEEDS = 5
SPENT = ("seconds/train", "seconds/evaluate")
Place = tuple[Setting, Estimate, Estimate]  # forgetting, average accuracy


def pareto_figure(context: Context) -> Figure | None:
    """Average accuracy against forgetting; the settings that no other beats in both are joined."""
    points = [
        (summary.setting, summary.metric("forgetting"), summary.metric("average_accuracy"))
        for summary in context.ranked
        if summary.metric("forgetting").n and summary.metric("average_accuracy").n
    ]
    if not points:
        return None
    references = [point for point in points if point[0].is_reference][:MOST_REFERENCES]
    shown = [point for point in points if not point[0].is_reference][: MOST_SETTINGS - len(references)] + references
    best = front_settings(summary for summary in context.ranked if not summary.setting.is_reference)
    places = {setting: (100 * (x.mean or 0.0), 100 * (y.mean or 0.0)) for setting, x, y in points}
    front = list(dict.fromkeys(places[setting] for setting in best))
    regions = {point[0]: _region(context, point[0]) for point in points}
    rows: list[Datum] = [_point(context, point, bars=not regions[point[0]]) for point in points]
    rows += [{"kind": "front", "forgetting": x, "accuracy": y} for x, y in front]
    rows += [row for region in regions.values() for row in region]
    within = frozenset(context.label(setting) for setting, _, _ in shown)
    across, up, cut = _ends([row for row in rows if row.get("setting", "") in within])
    x = quantity("forgetting", "forgetting, points (left is better)", across)
    y = quantity("accuracy", "average accuracy, per cent (up is better)", up)
    tooltip = told(setting="setting", accuracy="average accuracy|.2f", forgetting="forgetting|.2f", n="seeds")
    bar: Spec = {"mark": {"type": "rule", "strokeWidth": 1.2, "opacity": 0.75, "clip": True}}
    seen: Spec = {"color": colour("setting"), "tooltip": tooltip}
    spec = layers(
        {
            "transform": only("front"),
            "mark": {"type": "line", "color": SOFT, "strokeWidth": 1, "clip": True, "tooltip": False},
            "encoding": {"x": x, "y": y},
        },
        {
            "transform": only("region"),
            "mark": {"type": "line", "strokeWidth": 1.2, "opacity": 0.8, "clip": True, "interpolate": "linear-closed"},
            "encoding": {"x": x, "y": y, **seen, "order": {"field": "corner", "type": "quantitative"}},
        },
        {
            **bar,
            "transform": [*only("setting"), {"filter": "isValid(datum.forgetting_low)"}],
            "encoding": {**seen, "x": {**x, "field": "forgetting_low"}, "x2": {"field": "forgetting_high"}, "y": y},
        },
        {
            **bar,
            "transform": [*only("setting"), {"filter": "isValid(datum.accuracy_low)"}],
            "encoding": {**seen, "y": {**y, "field": "accuracy_low"}, "y2": {"field": "accuracy_high"}, "x": x},
        },
        {
            "transform": only("setting"),
            "mark": {"type": "point", "filled": True, "size": 80, "clip": True},
            "encoding": {"x": x, "y": y, **seen, "shape": shape("setting")},
        },
        height=420,
        zoom=["x", "y"],
    )
    caption = (
        f"Means over seeds: from {LEAST_SEEDS} seeds on with the 95 % region of both together (Hotelling's T²), with "
        "three or four, and where orders were drawn, with a 95 % interval of each. They say how much may be chance."
    )
    caption += (
        " The thin line joins the settings under study that no other one beats in both."
        if len(front) > 1
        else (" One setting is best in both." if len(context.studied) > 1 else "")
    )
    caption += " Some of these are cut at the panel's edge." if cut else ""
    left = len(points) - len(shown)
    caption += f" The best on validation rows are drawn at first, and references; {left} settings are not." * bool(left)
    return Figure(
        "Average accuracy against forgetting",
        caption,
        [Panel("", spec, rows)],
        [context.styles[setting] for setting, _, _ in points],
        picked=within,
        columns=1,
    )


def _point(context: Context, point: Place, bars: bool) -> Datum:
    """bars: with the interval of each metric."""
    setting, x, y = point
    ends: dict[str, float | None] = {}
    for name, found in (("forgetting", x), ("accuracy", y)):
        low, high = found.interval or (None, None)
        if bars and low is not None and high is not None:
            ends |= {f"{name}_low": 100 * low, f"{name}_high": 100 * high}
    return {
        "kind": "setting",
        "setting": context.label(setting),
        "forgetting": 100 * (x.mean or 0.0),
        "accuracy": 100 * (y.mean or 0.0),
        **ends,
        "n": y.n,
    }


def _region(context: Context, setting: Setting) -> list[Datum]:
    """The corners of the region of a setting's mean; none where there is none, or too few seeds."""
    found = setting_ellipse(context.rows(setting), context.results.design).value
    if found is None or found.n < LEAST_SEEDS:
        return []
    return [
        {
            "kind": "region",
            "setting": context.label(setting),
            "corner": corner,
            "forgetting": 100 * x,
            "accuracy": 100 * y,
        }
        for corner, (x, y) in enumerate(found.polygon)
    ]


def _ends(rows: list[Datum]) -> tuple[tuple[float, float], tuple[float, float], bool]:
    """Of both scales: means are in them, what is around means may stretch them threefold; and whether that is cut."""
    found, cut = [], False
    for name in ("forgetting", "accuracy"):
        centres = [value for row in rows if row["kind"] == "setting" and isinstance(value := row[name], float)]
        parts = (name, f"{name}_low", f"{name}_high")
        every = [value for row in rows for part in parts if isinstance(value := row.get(part), float)]
        room = max(max(centres) - min(centres), 4.0)
        low, high = max(min(every), min(centres) - room), min(max(every), max(centres) + room)
        found.append((low - 0.08 * room, high + 0.08 * room))
        cut |= min(every) < low or max(every) > high
    return found[0], found[1], cut


def time_figure(context: Context) -> Figure | None:
    """Seconds of a trial spent training and evaluating: of the CPU where all have them, else by the clock."""
    rows = [(row, context.results.stages.get(text_in(row, "trial"), [])) for row in context.results.finished]
    cpu = all(
        f"{name}_cpu" in stage.metrics
        for _, stages in rows
        for stage in stages
        for name in SPENT
        if name in stage.metrics
    )
    spent: dict[tuple[Setting, str], list[float]] = {}
    for row, stages in rows:
        for name in SPENT:
            measured = f"{name}_cpu" if cpu else name
            seconds = [stage.metrics[measured] for stage in stages if measured in stage.metrics]
            if seconds:
                spent.setdefault((context.setting_of(row), name), []).append(sum(seconds))
    settings = [one.setting for one in context.ranked if any(setting == one.setting for setting, _ in spent)]
    if not settings:
        return None
    found: list[Datum] = [
        {
            "setting": context.label(setting),
            "on": name.split("/")[1],
            "seconds": estimate(spent.get((setting, name), [])).mean or 0.0,
        }
        for setting in settings
        for name in SPENT
    ]
    spec = layers(
        {
            "mark": {"type": "bar", "height": 15},
            "encoding": {
                "x": {
                    "field": "seconds",
                    "type": "quantitative",
                    "title": f"{'CPU ' if cpu else ''}seconds per trial, summed over its stages",
                },
                "y": names("setting", axis={"grid": False}),
                "color": colour("on"),
                "tooltip": told(setting="setting", on="spent on", seconds="seconds|.1f"),
            },
        },
        height={"step": 22},
    )
    caption = "Mean over finished trials. A stage taken from the store counts with the seconds recorded for it. " + (
        "CPU seconds are those of the worker's own threads; a GPU's are not in them."
        if cpu
        else "Seconds are by the clock, on a machine that trials share: no measure of a method's cost."
    )
    labels = [context.label(setting) for setting in settings]
    references = [context.label(one) for one in settings if one.is_reference]
    return Figure(
        "Seconds per trial",
        caption,
        [Panel("", spec, found, room_for(labels) + 330)],
        [Series("train", "#0072B2"), Series("evaluate", "#E69F00")],
        key="on",
        picked=frozenset([*labels[:MOST_SETTINGS], *references]),
        columns=1,
    )
