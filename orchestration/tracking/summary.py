"""What the parent run of a sweep shows: the means of its settings as charts, and the setting that is chosen.

A chart's step is a whole number. `by <axis>/<metric>`: the value of a swept number, where that is no whole one times a
power of ten that the name says ("by task_energy x100"), each with all other axes pooled; `by setting/<metric>`: the
place of a setting in the list of the description, as the sweep has them, references last. `by ... half width/<metric>`:
half the width of the mean's 95 % interval, where there are seeds enough for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from mcit_core.metrics import headline_names
from orchestration.keep.tables import Row
from orchestration.results.answer import USUAL, answer, as_markdown, name_of
from orchestration.results.estimates import ROUND_OFF, Estimate
from orchestration.results.reading import Results
from orchestration.results.settings import (
    Setting,
    estimate_rows,
    is_number,
    rows_by_setting,
    setting_axes,
    value_key,
)
from orchestration.results.wanted import pick
from orchestration.results.words import format_value, short_axis_names
from orchestration.tracking.content import Point, mlflow_name

#: powers of ten by which the values of an axis become whole numbers, at most; beyond, their places are the steps
MOST_DIGITS = 6
#: steps from here on are no longer whole numbers in a browser
LARGEST = 2**53
#: settings that are listed in the description
LISTED = 40


@dataclass(frozen=True)
class Summary:
    """`chosen`: tags, of the setting and its values; `note`: the answer, `legend`: what the steps of the charts stand
    for, both in Markdown."""

    points: list[Point] = field(default_factory=list)
    chosen: dict[str, str] = field(default_factory=dict)
    note: str = ""
    legend: str = ""


def summarise_results(results: Results) -> Summary:
    """Of a RUN as its tables have it. Raises ValueError for a damaged one."""
    found = pick(results.trials, results.axes, USUAL, results.design)
    rows = {setting: here for setting, trials in _by_setting(results).items() if (here := list(_finished(trials)))}
    # as the sweep has them, so that a setting keeps its step when seeds are added
    places = sorted(rows, key=lambda setting: setting.is_reference)
    points = [
        point
        for place, setting in enumerate(places, 1)
        for point in _points("by setting", place, rows[setting], results)
    ]
    for axis, short in short_axis_names(setting_axes(results.axes)).items():
        points += _by_axis(
            axis, short, [row for setting, here in rows.items() if not setting.is_reference for row in here], results
        )
    chosen = _chosen(results, found.kept[0].setting) if found.kept else {}
    legend = _legend(results, places) if len(places) > 1 else ""
    return Summary(points, chosen, as_markdown(answer(results, found=found)), legend)


def _by_setting(results: Results) -> dict[Setting, list[Row]]:
    return rows_by_setting(results.trials, results.axes)


def _finished(rows: Iterable[Row]) -> Iterable[Row]:
    return (row for row in rows if row["status"] == "FINISHED")


def _points(name: str, step: int, rows: Sequence[Row], results: Results) -> list[Point]:
    points = []
    for metric in headline_names():
        found: Estimate = estimate_rows(rows, metric, results.design)
        if found.mean is not None:
            points.append(Point(mlflow_name(f"{name}/{metric}"), step, found.mean))
        if found.half_width is not None:
            points.append(Point(mlflow_name(f"{name} half width/{metric}"), step, found.half_width))
    return points


def _by_axis(axis: str, short: str, rows: Sequence[Row], results: Results) -> list[Point]:
    """None where it has no two numbers."""
    values = sorted({value for row in rows if is_number(value := row.get(axis))}, key=value_key)
    if len(values) < 2:
        return []
    scale, steps = steps_of(values)
    return [
        point
        for value, step in zip(values, steps, strict=True)
        for point in _points(f"by {short}{scale}", step, [row for row in rows if row.get(axis) == value], results)
    ]


def steps_of(values: Sequence[int | float]) -> tuple[str, list[int]]:
    """The whole numbers that stand for rising values, and what the name of a chart says of them."""
    for digits in range(MOST_DIGITS + 1):
        scaled = [value * 10**digits for value in values]
        if not 0 <= scaled[0] <= scaled[-1] < LARGEST:
            break
        steps = list(map(round, scaled))
        exact = all(abs(step - value) <= ROUND_OFF * value for step, value in zip(steps, scaled, strict=True))
        if exact and all(here < there for here, there in pairwise(steps)):
            return f" x{10**digits}" if digits else "", steps
    return " in turn", list(range(1, len(values) + 1))


def _legend(results: Results, places: Sequence[Setting]) -> str:
    lines = [f"{place}. {name_of(results, setting)}" for place, setting in enumerate(places[:LISTED], 1)]
    more = [f"and {len(places) - LISTED} more"] if len(places) > LISTED else []
    said = "The steps of the charts `by setting`; a sweep that was extended has its earlier means there too:"
    return "\n".join([said, "", *lines, *more])


def _chosen(results: Results, setting: Setting) -> dict[str, str]:
    short = short_axis_names(setting_axes(results.axes))
    told = {f"chosen.{short[axis]}": format_value(value) for axis, value in setting.values if axis in short}
    method = {"chosen.method": setting.method} if "method" in results.axes else {}
    named = {"chosen": name_of(results, setting), **method, **told}
    return {mlflow_name(name): value for name, value in named.items()}
