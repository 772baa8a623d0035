"""What a search proposed and was told, setting by setting, from a RUN's tables: objectives on validation rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic import JsonValue, ValidationError

from mcit_core.choices import Choice
from orchestration.keep.tables import Row, number_in, text_in
from orchestration.plan.spec import RobustRule
from orchestration.results.reading import Results
from orchestration.results.words import format_value, some
from orchestration.search import Proposal
from orchestration.search.objectives import judged, reading_row
from orchestration.search.registry import settings_of
from orchestration.search.settings import SearchSettings

Point = tuple[float, ...]


@dataclass(frozen=True)
class Found:
    """A setting. `objectives`: by name, of one that is complete; `feasible`: whether it keeps to the constraints."""

    number: int
    batch: int
    state: str
    values: dict[str, JsonValue]
    objectives: dict[str, float]
    feasible: bool
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Searched:
    """A RUN's search. `found`: its settings by number; `settings`: what the sweep file says of it."""

    settings: SearchSettings
    rule: RobustRule
    found: list[Found]

    @property
    def complete(self) -> list[Found]:
        return [one for one in self.found if one.objectives]

    @property
    def feasible(self) -> list[Found]:
        return [one for one in self.complete if one.feasible]

    def best(self, found: Sequence[Found], objective: str) -> Found | None:
        """The best by an objective, of equals the first."""
        return max(found, key=lambda one: self.settings.sign(objective) * one.objectives[objective], default=None)

    @cached_property
    def volumes(self) -> list[float] | None:
        """After each setting, by number, the hypervolume that the feasible ones so far dominate, of two objectives in
        their own units; the reference point is the worst of each among all. None of another number of objectives."""
        if len(self.settings.objectives) != 2 or not self.feasible:
            return None
        points = {one.number: self._point(one) for one in self.feasible}
        worst = tuple(min(point[axis] for point in points.values()) for axis in (0, 1))
        so_far: list[Point] = []
        volumes = []
        for one in self.found:
            so_far += [points[one.number]] if one.number in points else []
            volumes.append(hypervolume(so_far, worst))
        return volumes

    def _point(self, one: Found) -> Point:
        """Its objectives, all such that more is better."""
        return tuple(self.settings.sign(name) * one.objectives[name] for name in self.settings.objectives)

    @cached_property
    def front(self) -> list[Found]:
        """The feasible settings that no other beats in all objectives, by number."""
        points = {one.number: self._point(one) for one in self.feasible}

        def beaten(number: int) -> bool:
            mine = points[number]
            return any(
                other != mine and all(theirs >= own for theirs, own in zip(other, mine, strict=True))
                for other in points.values()
            )

        return [one for one in self.feasible if not beaten(one.number)]

    @cached_property
    def by_order(self) -> dict[str, Found]:
        """Order -> the setting that is the best by the first objective under that order alone; of a RUN of one order
        none."""
        orders = dict.fromkeys(text_in(row, "order") for one in self.complete for row in one.rows)
        if len(orders) < 2:
            return {}
        objective = next(iter(self.settings.objectives))
        return {
            order: max(self.feasible, key=lambda one: self.settings.sign(objective) * under(one, objective, [order]))
            for order in orders
            if self.feasible
        }


def under(one: Found, objective: str, orders: Sequence[str]) -> float:
    """A complete setting's mean objective over its trials of these orders."""
    values = [reading_row(row, objective) for row in one.rows if row["order"] in orders]
    known = [value for value in values if value is not None]
    return sum(known) / len(known)


def hypervolume(points: Sequence[Point], worst: Point) -> float:
    """The area between `worst` and the front of points (x, y), of which more is better (Zitzler & Thiele, 1998)."""
    area, height = 0.0, worst[1]
    for x, y in sorted(points, reverse=True):
        if y > height:
            area += (x - worst[0]) * (y - height)
            height = y
    return area


def searched(results: Results) -> Searched | None:
    """None of a RUN that searched nothing, and of one whose search this version does not know."""
    search = results.sweep.get("search")
    rows: dict[int, list[Row]] = {}
    for row in results.trials:
        if (number := row.get("setting")) is not None:
            rows.setdefault(int(str(number)), []).append(row)
    if not isinstance(search, str | dict) or not rows:
        return None
    settings = _settings(search)
    if settings is None:
        return None
    rule = _rule(results.sweep.get("robust"))
    return Searched(settings, rule, [_found(number, rows[number], results, settings, rule) for number in sorted(rows)])


def _ranges(results: Results) -> dict[str, dict[str, JsonValue]]:
    """The axes that are ranges of numbers, as the sweep file has them."""
    axes = results.sweep.get("axes")
    told = {name: axis for name, axis in (axes.items() if isinstance(axes, dict) else ()) if isinstance(axis, dict)}
    return {name: axis for name, axis in told.items() if "low" in axis}


def ranges(results: Results) -> dict[str, bool]:
    """The axes that are ranges of numbers, and whether on a logarithmic scale."""
    return {name: axis.get("log") is True for name, axis in _ranges(results).items()}


def values_of(results: Results, axis: str, values: Sequence[JsonValue], most: int) -> str:
    """The values of an axis in words: of a range its ends, else the first so many of those that were run."""
    told = _ranges(results).get(axis)
    if told is not None:
        return f"from {format_value(told['low'])} to {format_value(told['high'])}"
    return some([format_value(value) for value in values], most, ", ")


def _settings(search: Choice) -> SearchSettings | None:
    try:
        found = settings_of(search)
    except (KeyError, ValidationError):
        return None
    return found if isinstance(found, SearchSettings) else None


def _rule(told: JsonValue) -> RobustRule:
    if not isinstance(told, dict):
        return RobustRule()
    known: Mapping[str, object] = {**vars(RobustRule()), **told}
    over = known["over"]
    return RobustRule(
        tuple(over) if isinstance(over, list | tuple) else ("order", "seed"),
        known["statistic"],  # type: ignore[arg-type]
        float(str(known["level"])),
    )


def _found(number: int, rows: list[Row], results: Results, settings: SearchSettings, rule: RobustRule) -> Found:
    first = rows[0]
    state = str(first.get("state") or "running")
    values = {name: first.get(name) for name in results.axes if name != "order" and first.get(name) is not None}
    batch = int(number_in(first, "batch") or 0)
    told = Proposal(number, batch, values)
    if state == "complete":
        cells = {(text_in(row, "order"), int(number_in(row, "seed") or 0)): row for row in rows}
        told = judged(told, cells, reading_row, settings, rule)
    objectives = dict(zip(settings.objectives, told.objectives, strict=True)) if told.objectives else {}
    return Found(number, batch, state, values, objectives, told.feasible, tuple(rows))
