"""What a search did: its settings in the order in which they were proposed, where it came to, and along its axes."""

from __future__ import annotations

from collections import Counter

from mcit_core.metrics import CATALOGUE
from orchestration.report.blocks import Cell, Line, Section, Table, Text, missing, there
from orchestration.report.charts import Datum, Figure, Panel, Series, Spec, colour, layers, quantity, shape, title, told
from orchestration.report.context import PALETTE, Context
from orchestration.results.searching import Found, Searched, ranges, searched, under
from orchestration.results.words import format_number, format_value, short_axis_names

#: the ends of a setting, as the legend has them
STATES = ("complete", "beyond a constraint")
BEST = "best so far"
#: lines of the front that are shown at first
MOST = 20


def search_section(context: Context) -> Section | None:
    """None of a RUN that searched nothing."""
    found = searched(context.results)
    if found is None:
        return None
    if not found.complete:
        return "The search", [Text(_words(found), "note"), missing("no setting is complete yet")]
    front, orders = _front(context, found), _orders(found)
    several = len(found.settings.objectives) > 1
    return "The search", there(
        Text(_words(found), "note"),
        _progress(found),
        _along(context, found),
        Text("The settings that no other beats in all objectives" if several else "The best setting", "label")
        if front
        else missing("no setting keeps to the constraints"),
        front,
        Text("The best setting of each order alone, under the others", "label") if orders else None,
        orders,
    )


def _words(found: Searched) -> str:
    states = Counter(one.state for one in found.found)
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    objectives = " and ".join(
        f"{CATALOGUE[name].title} ({direction}d)" for name, direction in found.settings.objectives.items()
    )
    limits = [f"{CATALOGUE[name].title} at most {most:g}" for name, most in found.settings.constraints.items()]
    kept = f", {' and '.join(limits)}" if limits else ""
    over = " and ".join(f"{factor}s" for factor in found.rule.over)
    statistic = {"mean": "the mean", "worst": "the worst", "cvar": f"the mean of the worst {found.rule.level:g}"}
    return (
        f"{len(found.found)} of {found.settings.trials} settings were proposed: {told}. Searched by "
        f"{objectives}{kept}, on validation rows alone; a setting's value is {statistic[found.rule.statistic]} over "
        f"{over}. A best of many is too good by chance: judge it on test rows, and by seeds and orders that the search "
        "has not seen."
    )


def _series() -> list[Series]:
    return [
        Series(STATES[0], PALETTE[0]),
        Series(STATES[1], PALETTE[1], "cross"),
        Series(BEST, PALETTE[2], dash=(6.0, 3.0)),
    ]


def _percent(name: str) -> bool:
    return CATALOGUE[name].unit == "percent"


def _shown(name: str, value: float) -> float:
    return 100 * value if _percent(name) else value


def _progress(found: Searched) -> Figure:
    panels = []
    for name in found.settings.objectives:
        rows: list[Datum] = [
            {
                "kind": "setting",
                "series": STATES[0] if one.feasible else STATES[1],
                "x": one.number,
                "y": _shown(name, one.objectives[name]),
                "batch": one.batch,
            }
            for one in found.complete
        ]
        so_far: list[Found] = []
        for one in found.found:
            so_far += [one] if one.objectives and one.feasible else []
            if (best := found.best(so_far, name)) is not None:
                rows.append({"kind": "best", "series": BEST, "x": one.number, "y": _shown(name, best.objectives[name])})
        panels.append(Panel(title(name), _over_numbers("per cent" if _percent(name) else ""), rows))
    if found.volumes is not None:
        volumes: list[Datum] = [
            {"kind": "best", "series": BEST, "x": one.number, "y": volume}
            for one, volume in zip(found.found, found.volumes, strict=True)
        ]
        panels.append(Panel("Hypervolume of the front (more is better)", _over_numbers(""), volumes))
    caption = (
        "Settings in the order in which they were proposed, on validation rows; the line is the best so far that keeps "
        "to the constraints."
    )
    if found.volumes is not None:
        caption += (
            " The hypervolume is the area that the front of both objectives dominates, from the worst of each on, as "
            "shares."
        )
    return Figure("The search, setting by setting", caption, panels, _series(), key="series")


def _over_numbers(words: str) -> Spec:
    x, y = {**quantity("x", "setting"), "scale": {"zero": False, "padding": 8}}, quantity("y", words)
    points = {
        "transform": [{"filter": "datum.kind === 'setting'"}],
        "mark": {"type": "point", "filled": True, "size": 45, "clip": True},
        "encoding": {
            "x": x,
            "y": y,
            "color": colour("series"),
            "shape": shape("series"),
            "tooltip": told(x="setting", y="value|.3f", batch="batch", series="state"),
        },
    }
    line = {
        "transform": [{"filter": "datum.kind === 'best'"}],
        "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2, "clip": True},
        "encoding": {"x": x, "y": y, "color": colour("series")},
    }
    return layers(points, line, height=230, zoom=["x", "y"])


def _along(context: Context, found: Searched) -> Figure | None:
    """The first objective along every range that was searched."""
    name = next(iter(found.settings.objectives))
    panels = []
    for axis, log in ranges(context.results).items():
        rows: list[Datum] = [
            {
                "kind": "setting",
                "series": STATES[0] if one.feasible else STATES[1],
                "x": float(str(one.values[axis])),
                "y": _shown(name, one.objectives[name]),
                "number": one.number,
            }
            for one in found.complete
            if axis in one.values
        ]
        panels += [Panel(axis, _over_axis(axis, _percent(name), log), rows)] if rows else []
    if not panels:
        return None
    caption = (
        f"{CATALOGUE[name].title} of the complete settings on validation rows along each range. All axes vary at once, "
        "and a search looks more often where it is good: how much an axis matters is told by its importance."
    )
    return Figure("Objective along the searched ranges", caption, panels, _series()[:2], key="series")


def _over_axis(axis: str, percent: bool, log: bool) -> Spec:
    scale = {"type": "log", "padding": 8} if log else {"zero": False, "padding": 8}
    x = {**quantity("x", axis), "scale": scale}
    return layers(
        {
            "mark": {"type": "point", "filled": True, "size": 45, "clip": True},
            "encoding": {
                "x": x,
                "y": quantity("y", "per cent" if percent else ""),
                "color": colour("series"),
                "shape": shape("series"),
                "tooltip": told(number="setting", x=f"{axis}|.4", y="value|.3f", series="state"),
            },
        },
        height=230,
        zoom=["y"],
    )


def _front(context: Context, found: Searched) -> Table | None:
    """The settings that no other beats, of several objectives; of one the best."""
    names = [*found.settings.objectives]
    shown = found.front
    if len(names) == 1:
        best = found.best(found.feasible, names[0])
        shown = [] if best is None else [best]
    if not shown:
        return None
    short = short_axis_names(name for name in context.results.axes if name != "order")
    head = ["setting", *(f"{CATALOGUE[name].title}, validation" for name in names), *short.values()]
    lines = [
        Line(
            [
                str(one.number),
                *(Cell(format_number(name, one.objectives[name]), value=one.objectives[name]) for name in names),
                *(format_value(one.values.get(axis)) for axis in short),
            ]
        )
        for one in shown
    ]
    return Table(head, lines, "numbers", first=MOST)


def _orders(found: Searched) -> Table | None:
    """How the best setting of each order does under the others, beside the one that the search chose over all."""
    objective = next(iter(found.settings.objectives))
    chosen = found.best(found.feasible, objective)
    if not found.by_order or chosen is None:
        return None
    orders = list(found.by_order)
    worse = min if found.settings.objectives[objective] == "maximize" else max

    def line(label: str, one: Found, own: str | None) -> Line:
        others = [order for order in orders if order != own]
        values = [
            under(one, objective, [own]) if own else None,
            under(one, objective, others),
            worse(under(one, objective, [order]) for order in orders),
        ]
        cells = ["–" if v is None else Cell(format_number(objective, v), value=v) for v in values]
        return Line([label, str(one.number), *cells], "" if own else "chosen")

    head = ["the best under", "setting", "under that order", "mean under the others", "worst under any"]
    lines = [line(order.replace(">", " → "), one, order) for order, one in found.by_order.items()]
    return Table(head, [*lines, line("all, as searched", chosen, None)], "numbers")
