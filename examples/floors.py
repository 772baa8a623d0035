"""What each task of a benchmark is worth, as a Markdown table: learned alone, against floors that use no picture or no
model, in per cent of its test rows.

python -m orchestration.sweep sweeps/floors.yaml
python examples/floors.py runs/floors
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet as pq

from orchestration.results.estimates import estimate
from orchestration.results.words import format_estimate, format_number

COLUMNS = ("zero_shot", "majority", "blind", "direct")


def main(run: Path) -> None:
    # one row a cell: of `direct` and `blind` those of a task's own stage, of the others those of the untouched model
    cells = pq.read_table(run / "accuracy.parquet", filters=[("split", "=", "test")]).to_pylist()
    found: dict[str, dict[str, list[float]]] = {}
    for cell in cells:
        if cell["stage_task"] == cell["task"] or cell["method"] in ("zero_shot", "majority"):
            of_task = found.setdefault(cell["task"], {})
            of_task.setdefault(cell["method"], []).append(cell["accuracy"])
            if cell["method"] == "direct":
                of_task.setdefault("content", []).append(cell["content_accuracy"])
    print("| task | " + " | ".join(f"`{name}`" for name in COLUMNS) + " | above the higher floor | in content |")
    print("|---" * (len(COLUMNS) + 3) + "|")
    for task, methods in found.items():
        known = {name: estimate(methods[name]) for name in (*COLUMNS, "content")}
        means = {name: one.mean or 0.0 for name, one in known.items()}
        above = means["direct"] - max(means["majority"], means["blind"])
        *words, content = (format_estimate("average_accuracy", one) for one in known.values())
        print(f"| {task} | {' | '.join(words)} | {format_number('average_accuracy', above, signed=True)} | {content} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
