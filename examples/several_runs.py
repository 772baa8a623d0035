"""RUNs of one setting each, as Markdown: a row a RUN, and behind each number how far it is above the first RUN's, with
the 95 % interval over seeds; trials of one seed and order are paired. Per cent and points.

python examples/several_runs.py runs/preset,runs/chosen average_accuracy forgetting
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mcit_core.metrics import CATALOGUE
from orchestration.keep.tables import text_in
from orchestration.results.estimates import estimate_units
from orchestration.results.reading import Results, read_results
from orchestration.results.settings import rows_by_setting
from orchestration.results.words import format_estimate, format_number

Unit = tuple[int, str]


def values(results: Results, metric: str) -> dict[Unit, float]:
    """Of a RUN's only setting, (seed, order) -> the metric. Raises ValueError where it has several."""
    (rows,) = rows_by_setting(results.finished, results.axes).values()
    found = {}
    for row in rows:
        value, seed = row.get(metric), row["seed"]
        if isinstance(value, float) and isinstance(seed, int):
            found[seed, text_in(row, "order")] = value
    return found


def table(runs: Sequence[Path], metrics: Sequence[str]) -> str:
    found = [read_results(run) for run in runs]
    titles = []
    for metric in metrics:
        split, _, name = metric.rpartition("/")
        titles.append(f"{split} {CATALOGUE[name].title}{CATALOGUE[name].arrow}".strip())
    lines = [["", *titles], ["---"] * (1 + len(metrics))]
    for run, results in zip(runs, found, strict=True):
        cells = []
        for metric in metrics:
            own, first = values(results, metric), values(found[0], metric)
            cell = format_estimate(metric, estimate_units(own, results.design))
            if results is not found[0]:
                apart = estimate_units({unit: own[unit] - first[unit] for unit in own if unit in first}, results.design)
                ends = ", ".join(format_number(metric, end, signed=True) for end in apart.interval or ())
                cell += f"; {format_number(metric, apart.mean, signed=True)} [{ends}]"
            cells.append(cell)
        lines.append([f"`{run.name}`", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    print(table([Path(run) for run in sys.argv[1].split(",")], sys.argv[2:]), end="")
