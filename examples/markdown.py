"""A RUN's tables as Markdown, in the words of its report: a row a setting, or each setting against `sequential` (paired
over seeds, 95 % interval, p after Holm over all that the report compares). Per cent and points; needs sweep.yaml and
trials.parquet of the RUN alone.

python examples/markdown.py settings runs/compare average_accuracy forgetting
python examples/markdown.py differences runs/compare
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from mcit_core.metrics import CATALOGUE, headline_names
from orchestration.report.context import Context
from orchestration.report.tables import format_p
from orchestration.results.comparisons import Comparison
from orchestration.results.estimates import Estimate
from orchestration.results.reading import read_results
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
    """`kind`: settings or differences."""
    context = Context.of(read_results(run))
    make, first = {"settings": (settings, ""), "differences": (differences, "minus `sequential`")}[kind]
    heads = [first, *map(_title, metrics)]
    lines = [heads, ["---"] * len(heads), *make(context, metrics)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(table(sys.argv[1], Path(sys.argv[2]), sys.argv[3:] or headline_names()))
