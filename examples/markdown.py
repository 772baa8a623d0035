"""A RUN's tables as Markdown, in the words of its report: a row a setting, each setting against `sequential` (paired
over seeds, 95 % interval, p after Holm over all that the report compares), or what the order of the tasks does (mean,
standard deviation, lowest and highest over the orders). Per cent and points; needs sweep.yaml and trials.parquet of the
RUN alone.

python examples/markdown.py settings runs/compare average_accuracy forgetting
python examples/markdown.py differences runs/compare
python examples/markdown.py orders runs/ordering average_accuracy
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev

from mcit_core.metrics import CATALOGUE, headline_names
from orchestration.keep.tables import Row
from orchestration.report.context import Context
from orchestration.report.tables import format_p
from orchestration.results.comparisons import Comparison, baseline_of
from orchestration.results.estimates import Estimate, present
from orchestration.results.reading import read_results
from orchestration.results.settings import Setting, rows_by_setting
from orchestration.results.words import format_estimate, format_number


def settings(context: Context, metrics: Iterable[str]) -> list[list[str]]:
    """A row a setting, references last."""
    return [
        [f"`{context.label(summary.setting)}`", *(_cell(name, summary.metric(name)) for name in metrics)]
        for summary in context.summaries
    ]


def differences(context: Context, metrics: Iterable[str]) -> list[list[str]]:
    """A row for each setting that has its `sequential`."""
    rows: dict[str, dict[str, Comparison]] = {}
    for found in context.compared.with_sequential:
        rows.setdefault(context.label(found.setting), {})[found.metric] = found
    return [
        [f"`{label}`", *(_difference(found[name]) if name in found else "–" for name in metrics)]
        for label, found in rows.items()
    ]


def orders(context: Context, metrics: Iterable[str]) -> list[list[str]]:
    """A row a setting that learns several orders, of each the mean over its seeds; one for it minus `sequential`."""
    rows = []
    found = {setting: _by_order(context, setting) for setting in context.settings}
    for setting, by_order in found.items():
        if len(by_order) < 2:
            continue
        rows.append([f"`{context.label(setting)}`", *(_spread(name, _of(by_order, name)) for name in metrics)])
        baseline = baseline_of(setting, context.settings)
        if baseline is not None and setting.method != "sequential":
            rows.append([f"`{context.label(setting)}` minus `sequential`"])
            for name in metrics:
                own, other = _of(by_order, name), _of(found[baseline], name)
                gains = {order: value - other[order] for order, value in own.items() if order in other}
                above = sum(gain > 0 for gain in gains.values())
                counted = f"; higher in {above} of {len(gains)}" if gains else ""
                rows[-1].append(f"{_spread(name, gains, signed=True)}{counted}")
    return rows


def _by_order(context: Context, setting: Setting) -> dict[str, list[Row]]:
    by_order: dict[str, list[Row]] = {}
    for row in rows_by_setting(context.results.finished, context.results.axes)[setting]:
        by_order.setdefault(str(row["order"]), []).append(row)
    return by_order


def _of(by_order: dict[str, list[Row]], metric: str) -> dict[str, float]:
    values = {order: present(row.get(metric) for row in rows) for order, rows in by_order.items()}
    return {order: mean(found) for order, found in values.items() if found}


def _spread(metric: str, by_order: dict[str, float], signed: bool = False) -> str:
    if len(by_order) < 2:
        return "–"
    values = [*by_order.values()]
    middle, lowest, highest = (
        format_number(metric, v, signed=signed) for v in (mean(values), min(values), max(values))
    )
    return f"{middle}, s.d. {format_number(metric, stdev(values))}, {lowest} to {highest}"


def _title(metric: str) -> str:
    split, _, name = metric.rpartition("/")
    return " ".join([split, CATALOGUE[name].title + CATALOGUE[name].arrow]).strip()


def _cell(metric: str, found: Estimate) -> str:
    return format_estimate(metric, found) if found.half_width != 0 else format_number(metric, found.mean)


def _difference(found: Comparison) -> str:
    known = found.difference
    text = format_number(found.metric, known.mean, signed=True)
    if known.interval is None:
        return text
    low, high = (format_number(found.metric, end, signed=True) for end in known.interval)
    p = "" if found.p_holm is None else f", {format_p(found.p_holm)}"
    return f"{text} [{low}, {high}]{p}"


def table(kind: str, run: Path, metrics: list[str]) -> str:
    """`kind`: settings, differences or orders."""
    context = Context.of(read_results(run))
    kinds = {
        "settings": (settings, ""),
        "differences": (differences, "minus `sequential`"),
        "orders": (orders, "over orders"),
    }
    make, first = kinds[kind]
    heads = [first, *map(_title, metrics)]
    lines = [heads, ["---"] * len(heads), *make(context, metrics)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(table(sys.argv[1], Path(sys.argv[2]), sys.argv[3:] or headline_names()))
