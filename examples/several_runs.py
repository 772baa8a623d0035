"""RUNs of one setting each, as Markdown: a row a RUN, and behind each number how far it is above the first RUN's, with
the 95 % interval over seeds; trials of one seed and order are paired. Per cent and points.

python examples/several_runs.py runs/preset,runs/chosen average_accuracy forgetting
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mcit_core.metrics import CATALOGUE
from orchestration.keep.tables import Row
from orchestration.results.comparisons import paired_values
from orchestration.results.estimates import estimate_units
from orchestration.results.reading import Results, read_results
from orchestration.results.settings import estimate_rows, rows_by_setting
from orchestration.results.words import format_estimate, format_number


def only_setting(results: Results) -> list[Row]:
    """Its finished trials. Raises ValueError where a RUN has several settings, or none."""
    found = rows_by_setting(results.finished, results.axes)
    if len(found) != 1:
        raise ValueError(f"{results.folder} has {len(found)} settings with finished trials; expected one")
    return next(iter(found.values()))


def table(runs: Sequence[Path], metrics: Sequence[str]) -> str:
    """Raises ValueError where a RUN has several settings, or none."""
    of_runs = {run.name: read_results(run) for run in runs}
    rows = {name: only_setting(results) for name, results in of_runs.items()}
    first = next(iter(rows.values()))
    lines = [["", *map(_title, metrics)], ["---"] * (1 + len(metrics))]
    for name, own in rows.items():
        design, cells = of_runs[name].design, []
        for metric in metrics:
            cell = format_estimate(metric, estimate_rows(own, metric, design))
            if own is not first:
                apart = estimate_units(paired_values(own, first, metric), design)
                cell += f"; {format_number(metric, apart.mean, signed=True)}"
                if apart.interval is not None:
                    low, high = (format_number(metric, end, signed=True) for end in apart.interval)
                    cell += f" [{low}, {high}]"
            cells.append(cell)
        lines.append([f"`{name}`", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _title(metric: str) -> str:
    split, _, name = metric.rpartition("/")
    return f"{split} {CATALOGUE[name].title}{CATALOGUE[name].arrow}".strip()


if __name__ == "__main__":
    print(table([Path(run) for run in sys.argv[1].split(",")], sys.argv[2:]), end="")
