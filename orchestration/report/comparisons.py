"""Settings beside one another: accuracy against forgetting, orders, and where the time went."""

from __future__ import annotations

from orchestration.keep.tables import Row, text_in
from orchestration.report.charts import (
    Datum,
    Figure,
    Panel,
    Series,
    Spec,
    colour,
    layers,
    limits,
    names,
    only,
    quantity,
    room_for,
    shape,
    told,
)
from orchestration.report.context import Context
from orchestration.results.estimates import Estimate, estimate
from orchestration.results.settings import Setting, estimate_rows

MOST_SETTINGS = 24
MOST_REFERENCES = 8
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
    front = _front([(100 * (x.mean or 0.0), 100 * (y.mean or 0.0)) for _, x, y in points])
    rows: list[Datum] = [_point(context, point) for point in points]
    rows += [{"kind": "front", "forgetting": x, "accuracy": y} for x, y in front]
    across, cut_x = limits([100 * (x.mean or 0.0) for _, x, _ in shown], [x for _, x, _ in shown])
    up, cut_y = limits([100 * (y.mean or 0.0) for _, _, y in shown], [y for _, _, y in shown])
    x = quantity("forgetting", "forgetting, points (left is better)", across)
    y = quantity("accuracy", "average accuracy, per cent (up is better)", up)
    tooltip = told(setting="setting", accuracy="average accuracy|.2f", forgetting="forgetting|.2f", n="seeds")
    spread: Spec = {"mark": {"type": "rule", "strokeWidth": 1.2, "opacity": 0.75, "clip": True}}
    seen: Spec = {"color": colour("setting"), "tooltip": tooltip}
    spec = layers(
        {
            "transform": only("front"),
            "mark": {"type": "line", "color": "@soft", "strokeWidth": 1, "clip": True, "tooltip": False},
            "encoding": {"x": x, "y": y},
        },
        {
            **spread,
            "transform": [*only("setting"), {"filter": "isValid(datum.forgetting_low)"}],
            "encoding": {**seen, "x": {**x, "field": "forgetting_low"}, "x2": {"field": "forgetting_high"}, "y": y},
        },
        {
            **spread,
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
    caption = "Means, from three seeds on with 95 % intervals, which say how much of the differences may be chance."
    caption += (
        " The thin line joins the settings that no other one beats in both."
        if len(front) > 1
        else (" One setting is best in both." if len(points) > 1 else "")
    )
    caption += " Some intervals are cut at the panel's edge." if cut_x or cut_y else ""
    left = len(points) - len(shown)
    caption += f" The best on validation rows are drawn at first, and references; {left} settings are not." * bool(left)
    return Figure(
        "Average accuracy against forgetting",
        caption,
        [Panel("", spec, rows)],
        [context.styles[setting] for setting, _, _ in points],
        picked=frozenset(context.label(setting) for setting, _, _ in shown),
        columns=1,
    )


def _point(context: Context, point: Place) -> Datum:
    setting, x, y = point
    bounds: dict[str, float | None] = {}
    for name, found in (("forgetting", x), ("accuracy", y)):
        low, high = found.interval or (None, None)
        bounds[f"{name}_low"] = None if low is None else 100 * low
        bounds[f"{name}_high"] = None if high is None else 100 * high
    return {
        "kind": "setting",
        "setting": context.label(setting),
        "forgetting": 100 * (x.mean or 0.0),
        "accuracy": 100 * (y.mean or 0.0),
        **bounds,
        "n": y.n,
    }


def _front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (x low is good, y high is good) that no other point beats, from left to right."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front


def order_figure(context: Context) -> Figure | None:
    """Average accuracy of every setting under every order."""
    orders = context.results.orders
    settings = [setting for setting in context.settings if context.rows(setting)]
    if len(orders) < 2 or not settings:
        return None
    picked = [setting for setting in context.pick(8) if context.rows(setting)]
    rows: list[Datum] = []
    centres: list[float] = []
    shown: list[Estimate] = []
    for setting in settings:
        for number, order in enumerate(orders, start=1):
            found = estimate_rows(context.rows(setting, order), "average_accuracy")
            if found.mean is None:
                continue
            low, high = found.interval or (None, None)
            rows.append(
                {
                    "setting": context.label(setting),
                    "order": f"order {number}",
                    "accuracy": 100 * found.mean,
                    "low": None if low is None else 100 * low,
                    "high": None if high is None else 100 * high,
                    "n": found.n,
                }
            )
            if setting in picked:
                centres.append(100 * found.mean)
                shown.append(found)
    ends, cut = limits(centres, shown)
    x = quantity("accuracy", "average accuracy, per cent", ends)
    place = {"y": names("order"), "yOffset": {"field": "setting", "type": "nominal", "sort": None}}
    tooltip = told(setting="setting", order="order", accuracy="average accuracy|.2f", n="seeds")
    spec = layers(
        {
            "mark": {"type": "point", "filled": True, "size": 50, "clip": True},
            "encoding": {
                "x": x,
                **place,
                "color": colour("setting"),
                "shape": shape("setting"),
                "tooltip": tooltip,
            },
        },
        {
            "transform": [{"filter": "isValid(datum.low)"}],
            "mark": {"type": "rule", "strokeWidth": 1.2, "clip": True},
            "encoding": {
                "x": {**x, "field": "low"},
                "x2": {"field": "high"},
                **place,
                "color": colour("setting"),
                "tooltip": tooltip,
            },
        },
        height={"step": 9, "for": "offset"},
        zoom=["x"],
    )
    caption = "Means over the seeds, from three on with 95 % intervals."
    caption += " Some intervals are cut at the panel's edge." if cut else ""
    return Figure(
        "Average accuracy by order",
        f"{caption} {order_words(context, picked)}",
        [Panel("", spec, rows)],
        [context.styles[setting] for setting in settings],
        picked=frozenset(map(context.label, picked)),
        columns=1,
    )


def order_words(context: Context, settings: list[Setting]) -> str:
    """How much the order matters beside the seed, for each setting on average."""
    ranges, spreads = [], []
    for setting in settings:
        found = [estimate_rows(context.rows(setting, order), "average_accuracy") for order in context.results.orders]
        means = [e.mean for e in found if e.mean is not None]
        ranges += [max(means) - min(means)] if len(means) > 1 else []
        spreads += [e.spread for e in found if e.spread is not None]
    if not ranges:
        return "No setting finished under two orders."
    moved = 100 * (estimate(ranges).mean or 0.0)
    text = f"From its best to its worst order a setting moves {moved:.1f} points on average"
    spread = estimate(spreads).mean
    if spread is None:
        return text + "; one seed per order, so the seeds' own spread is unknown."
    return text + f"; between seeds of one order the standard deviation is {100 * spread:.1f} points."


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


def rows_by_order(context: Context, setting: Setting) -> dict[str, list[Row]]:
    """A setting's finished trials by order, in the orders' order."""
    found = {order: context.rows(setting, order) for order in context.results.orders}
    return {order: rows for order, rows in found.items() if rows}
