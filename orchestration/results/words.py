"""Numbers, axes and settings in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pydantic import JsonValue

from mcit_core.metrics import CATALOGUE, Metric, headline_names
from orchestration.keep.tables import PARTIAL, Row, number_in, text_in
from orchestration.results.estimates import Estimate, present
from orchestration.results.settings import TUNER, Setting, SettingSummary


def format_value(value: object) -> str:
    """An axis value as the sweep file would write it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def some(words: Sequence[str], most: int, joint: str = "; ") -> str:
    """At most so many of them, the first, and how many more there are."""
    more = len(words) - most
    return joint.join([*words[:most], *([f"and {more} more"] if more > 0 else [])])


def format_number(metric: str, value: float | None, signed: bool = False) -> str:
    """A metric's value in its unit, with a true minus sign; a dash where there is none."""
    if value is None:
        return "–"
    unit = CATALOGUE[metric].unit if metric in CATALOGUE else "seconds" if metric == "seconds" else "percent"
    scale, digits = {"percent": (100, 1), "count": (1, 0), "mebibytes": (2**-20, 1), "seconds": (1, 1)}[unit]
    number = round(value * scale, digits) + 0.0  # the sum turns -0.0 into 0.0
    return f"{number:{'+' if signed and number else ''},.{digits}f}".replace("-", "−")


def format_estimate(metric: str, found: Estimate) -> str:
    """Mean ± half width; where there are too few seeds for an interval the mean, and the seeds' own values."""
    mean = format_number(metric, found.mean)
    if found.half_width is not None:
        return f"{mean} ± {format_number(metric, found.half_width)}"
    return f"{mean} ({', '.join(format_number(metric, value) for value in found.values)})" if found.n > 1 else mean


def so_far(row: Row) -> str:
    """What a trial without a final result shows after the stages that it has, its headline metrics; "" for nothing."""
    known = [
        f"{CATALOGUE[name].title} {format_number(name, value)}"
        for name in headline_names()
        for value in present([row.get(PARTIAL + name)])
    ]
    if not known:
        return ""
    done = int((number_in(row, "stages_trained") or 0) + (number_in(row, "stages_reused") or 0))
    return f"after {done} of {len(text_in(row, 'order').split('>'))} tasks: {', '.join(known)}"


def units(found: Estimate) -> str:
    """What an estimate counts as its units."""
    seeds = f"{found.n} seed{'s' * (found.n != 1)}"
    return f"{seeds} × {found.drawn} drawn order{'s' * (found.drawn != 1)}" if found.drawn else seeds


def short_axis_names(axes: Iterable[str]) -> dict[str, str]:
    """The last part of each dotted name, or the whole name where the last parts clash."""
    names = list(axes)
    last = [name.rsplit(".", 1)[-1] for name in names]
    return {name: part if last.count(part) == 1 else name for name, part in zip(names, last, strict=True)}


def setting_label(setting: Setting, axes: Mapping[str, Sequence[JsonValue] | None], method: bool = True) -> str:
    """Readable name of a setting; `axes`: name -> the declared values, where they are a list. An axis whose null says
    that the method does not read it is left out."""
    short = short_axis_names(axes)
    idle = {axis for axis, value in setting.values if value is None and None not in (axes.get(axis) or [None])}
    parts = [
        f"{short.get(axis, axis)} {format_value(value)}"
        for axis, value in setting.values
        if (axis not in TUNER or axis in short) and axis not in idle
    ]
    if method or setting.is_reference or not parts:
        parts.insert(0, setting.method)
    tuned = [
        str(value)
        for axis, value in setting.values
        if axis in TUNER and axis not in short and value not in (None, *parts)
    ]
    return ", ".join(parts) + (f" ({', '.join(tuned)})" if tuned else "")


def summary_metrics(summaries: Iterable[SettingSummary]) -> list[Metric]:
    """The metrics, in their usual order, that at least one setting has."""
    found = list(summaries)
    return [metric for metric in CATALOGUE.values() if any(summary.metric(metric.name).n for summary in found)]
