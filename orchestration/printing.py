"""Results in words and columns: numbers in their units, names of settings, and the table that a sweep ends with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestration.results import (
    HEADLINE,
    METRIC,
    METRICS,
    TUNER,
    Estimate,
    Metric,
    Results,
    Setting,
    SettingSummary,
    read_results,
    settings_summary,
)


def format_value(value: Any) -> str:
    """An axis value as the sweep file would write it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def format_number(metric: str, value: float | None, signed: bool = False) -> str:
    """A metric's value in its unit, with a true minus sign; a dash where there is none."""
    if value is None:
        return "–"
    unit = METRIC[metric].unit if metric in METRIC else "seconds" if metric == "seconds" else "percent"
    scale, digits = {"percent": (100, 1), "count": (1, 0), "mebibytes": (2**-20, 1), "seconds": (1, 1)}[unit]
    number = round(value * scale, digits) + 0.0  # the sum turns -0.0 into 0.0
    return f"{number:{'+' if signed and number else ''},.{digits}f}".replace("-", "−")


def format_estimate(metric: str, found: Estimate) -> str:
    """Mean ± half width; the mean alone where one value allows no interval."""
    mean = format_number(metric, found.mean)
    return mean if found.half_width is None else f"{mean} ± {format_number(metric, found.half_width)}"


def short_axis_names(axes: Iterable[str]) -> dict[str, str]:
    """The last part of each dotted name, or the whole name where the last parts clash."""
    names = list(axes)
    last = [name.rsplit(".", 1)[-1] for name in names]
    return {name: part if last.count(part) == 1 else name for name, part in zip(names, last, strict=True)}


def setting_label(setting: Setting, axes: Iterable[str], method: bool = True) -> str:
    """Readable name of a setting."""
    short = short_axis_names(axes)
    parts = [
        f"{short.get(axis, axis)} {format_value(value)}"
        for axis, value in setting.values
        if axis not in TUNER or axis in short
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
    return [metric for metric in METRICS if any(summary.metric(metric.name).n for summary in found)]


def print_summary(run_dir: Path, console: Console | None = None) -> None:
    """Print settings x metrics (per cent, mean ± half the 95 % interval), and beneath it what failed."""
    console = console or Console()
    results = read_results(run_dir)
    summaries = settings_summary(results.trials, results.axes)
    methods = {summary.setting.method for summary in summaries if not summary.setting.is_reference}
    shown = [metric for metric in summary_metrics(summaries) if metric.name in HEADLINE]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("setting", vertical="bottom", no_wrap=True, overflow="fold")
    table.add_column("trials", justify="right")
    for metric in shown:
        table.add_column(metric.title.replace(" ", "\n", 1) + metric.arrow, justify="right", no_wrap=True)
    for summary in summaries:
        cells = [_estimate_with_n(metric.name, summary) for metric in shown]
        label = setting_label(summary.setting, results.axes, method=len(methods) > 1)
        table.add_row(Text(label), f"{summary.finished}/{summary.trials}", *cells)
    console.print(table)
    console.print("per cent, mean ± half the 95 % interval over seeds and orders; ↑ higher, ↓ lower is better")
    _print_unfinished(results, console)


def _estimate_with_n(metric: str, summary: SettingSummary) -> str:
    found = summary.metric(metric)
    note = f" (n={found.n})" if 0 < found.n < summary.finished else ""
    return format_estimate(metric, found) + note


def _print_unfinished(results: Results, console: Console) -> None:
    rows = [row for row in results.trials if row["status"] != "FINISHED"]
    if not rows:
        return
    console.print("Trials without a final result:")
    table = Table("trial", "status", "why", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*(Text(text) for text in (row["trial"], row["status"], first_line(row["error"]))))
    console.print(table)


def first_line(error: str | None) -> str:
    """The line of an error that says what went wrong: its first, but the last one of a traceback."""
    lines = [line.strip() for line in (error or "").splitlines() if line.strip()]
    if not lines:
        return ""
    return lines[-1] if lines[0].startswith("Traceback ") else lines[0]
