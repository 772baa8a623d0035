"""What shared stages and early stopping saved in RUNs, apart, in CPU seconds of training (of a GPU: by the clock), as
Markdown; needs sweep.yaml, trials.parquet and stages.parquet of each, and proposals of a search.

python examples/saved.py runs/search [RUN ...]
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from orchestration.results.reading import read_results
from orchestration.results.saved import Part, saved


def table(runs: Iterable[Path]) -> str:
    lines = ["| | trained, or found in the store | shared | stopped early |", "|---|---|---|---|"]
    for run in runs:
        found = saved(read_results(run))
        if found is not None:
            lines.append(f"| `{run.name}` | {_told(found.made)} | {_told(found.shared)} | {_told(found.stopped)} |")
    return "\n".join(lines) + "\n"


def _told(part: Part) -> str:
    return f"{part.stages} stages, {part.seconds:,.0f} s" if part.stages else "–"


if __name__ == "__main__":
    print(table(map(Path, sys.argv[1:])), end="")
