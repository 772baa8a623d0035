"""What the order of the tasks does: to every setting, to a task by its place, and by the task before it."""

from __future__ import annotations

from orchestration.report.charts import (
    ONCE,
    SOFT,
    Datum,
    Figure,
    Panel,
    colour,
    heat_map,
    interval_ends,
    layers,
    limits,
    names,
    quantity,
    shape,
    told,
    with_intervals,
)
from orchestration.report.context import Context
from orchestration.results.estimates import Estimate, estimate
from orchestration.results.order_effects import Measure, PlaceEffect, order_effects
from orchestration.results.settings import Setting, estimate_rows
from orchestration.results.verdicts import plural

#: settings that are drawn at first
MOST = 8
#: settings whose effects of places are drawn
MOST_EFFECTS = 12
PLACES: dict[Measure, str] = {
    "final": "final accuracy",
    "learning": "accuracy right after its own stage",
    "forgetting": "forgetting",
}


def order_figure(context: Context) -> Figure | None:
    """Average accuracy of every setting under every order."""
    orders = context.results.orders
    settings = [setting for setting in context.settings if context.rows(setting)]
    if len(orders) < 2 or not settings:
        return None
    picked = context.pick(MOST, among=settings)
    rows: list[Datum] = []
    centres: list[float] = []
    shown: list[Estimate] = []
    for setting in settings:
        for number, order in enumerate(orders, start=1):
            found = estimate_rows(context.rows(setting, order), "average_accuracy")
            if found.mean is None:
                continue
            rows.append(
                {
                    "setting": context.label(setting),
                    "order": f"order {number}",
                    "accuracy": 100 * found.mean,
                    **interval_ends(found),
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
        *with_intervals(
            rows,
            {
                "mark": {"type": "rule", "strokeWidth": 1.2, "clip": True},
                "encoding": {
                    "x": {**x, "field": "low"},
                    "x2": {"field": "high"},
                    **place,
                    "color": colour("setting"),
                    "tooltip": tooltip,
                },
            },
        ),
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
    moving = plural(len(ranges), "setting")
    text = f"From its best to its worst order each of {moving} moves {moved:.1f} points on average"
    spread = estimate(spreads).mean
    if spread is None:
        return text + "; one seed per order, so the seeds' own spread is unknown."
    return text + f"; between seeds of one order the standard deviation is {100 * spread:.1f} points."


def place_figures(context: Context) -> list[Figure]:
    """What a task's place does to it, and which task comes before it: of the settings that went through two orders."""
    every = context.results.design.every
    panels: dict[str, list[Panel]] = {"places": [], "before": []}
    through = [one for one in context.settings if len({row["order"] for row in context.rows(one)}) > 1]
    picked = {context.label(setting) for setting in context.pick(2, among=through)}
    for setting in context.pick(MOST_EFFECTS, among=through):
        label = context.label(setting)
        effects = order_effects(context.rows(setting), context.results.stages, orders=[str(order) for order in every])
        if effects.value is None:
            continue
        for measure, words in PLACES.items():
            found = effects.value.places[measure]
            panels["places"].append(_places(f"{label}: {words}", label, found, label in picked))
        before = effects.value.predecessors
        values = [[one.mean if one and one.mean is not None else None for one in line] for line in before.effects]
        known = [abs(value) for line in values for value in line if value is not None]
        if not known:
            continue
        panels["before"].append(
            heat_map(
                before.tasks,
                before.tasks,
                [[None if value is None else 100 * value for value in line] for line in values],
                max(1.0, 100 * max(known)),
                words=("comes before", "the task"),
                form="+.1f",
                signed=True,
                title=label,
                shown=label in picked,
                setting=label,
            )
        )
    captions = {
        "places": (
            "Effect of a task's place in the order",
            "A task at a place less its own mean over its places, in points, so that how hard it is does not count; "
            "means over tasks, from three seeds on with 95 % intervals over seeds. What comes before a task goes with "
            "its place and cannot be told from it.",
            3,
        ),
        "before": (
            "Effect of the task before",
            "Accuracy of a task (column) right after its own stage where it follows another (row), less its own mean "
            "over the tasks that it follows, in points. Blank: never seen.",
            2,
        ),
    }
    return [
        Figure(name, caption, panels[kind], columns=columns, most=520, picker="setting")
        for kind, (name, caption, columns) in captions.items()
        if panels[kind]
    ]


def _places(title: str, setting: str, effects: tuple[PlaceEffect, ...], shown: bool) -> Panel:
    rows: list[Datum] = [
        {
            "place": str(1 + one.position),
            "effect": 100 * one.effect.mean,
            **interval_ends(one.effect),
            "tasks": one.tasks,
            "trials": one.count,
        }
        for one in effects
        if one.effect.mean is not None
    ]
    x = {**names("place", "place in the order"), "axis": {"labelAngle": 0, "grid": False}}
    y = quantity("effect", "points")
    tooltip = told(place="place", effect="effect, points|+.2f", tasks="tasks", trials="trials")
    spec = layers(
        {
            "mark": {"type": "point", "filled": True, "size": 50, "color": "#0072B2"},
            "encoding": {"x": x, "y": y, "tooltip": tooltip},
        },
        {
            "data": ONCE,
            "mark": {"type": "rule", "color": SOFT, "tooltip": False},
            "encoding": {"y": {"datum": 0}},
        },
        *with_intervals(
            rows,
            {
                "mark": {"type": "rule", "strokeWidth": 1.5, "color": "#0072B2"},
                "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "tooltip": tooltip},
            },
        ),
        height=170,
    )
    return Panel(title, spec, rows, 230, shown=shown, setting=setting)
