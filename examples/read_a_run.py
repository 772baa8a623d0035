"""A RUN's Parquet in Python: its columns are plain, and the project's own functions compare its settings.

python examples/read_a_run.py runs/threshold
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet as pq

from orchestration.results.comparisons import compare
from orchestration.results.reading import read_results
from orchestration.results.words import units


def main(run: Path) -> None:
    # any reader of Parquet does: one row a trial, every axis and every final metric a column
    trials = pq.read_table(run / "trials.parquet", columns=["trial", "status", "average_accuracy", "forgetting"])
    for row in trials.to_pylist():
        print(row)

    # every setting against `sequential`, paired over seed and order, corrected for their number (Holm)
    results = read_results(run)
    compared = compare(results.trials, results.axes, results.design, ["average_accuracy", "forgetting"])
    for found in compared.with_sequential:
        values = ", ".join(f"{axis}={value}" for axis, value in found.setting.values)
        difference = found.difference
        if difference.mean is None:
            continue
        width = "" if difference.half_width is None else f" ± {difference.half_width:.3f}"
        corrected = "" if found.p_holm is None else f", p = {found.p_holm:.3f}"
        print(
            f"{found.setting.method} ({values}) minus sequential, {found.metric}: "
            f"{difference.mean:+.3f}{width} over {units(difference)}{corrected}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/threshold"))
