"""What each task of a benchmark is worth, as a Markdown table: learned alone, against floors that use no picture or no
model, in per cent of its test rows.

python -m orchestration.sweep sweeps/floors.yaml
python examples/floors.py runs/floors
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet as pq

from orchestration.results.estimates import paired_interval

COLUMNS = ("zero_shot", "majority", "blind", "direct")


def main(run: Path) -> None:
    # one row a cell: of `direct` and `blind` those of a task's own stage, of the others those of the untouched model
    cells = pq.read_table(run / "accuracy.parquet", filters=[("split", "=", "test")]).to_pylist()
    found: dict[str, dict[str, dict[tuple[int, str], float]]] = {}
    content: dict[str, dict[tuple[int, str], float]] = {}
    for cell in cells:
        if cell["stage_task"] == cell["task"] or cell["method"] in ("zero_shot", "majority"):
            unit = (cell["seed"], "")
            found.setdefault(cell["task"], {}).setdefault(cell["method"], {})[unit] = 100 * cell["accuracy"]
            if cell["method"] == "direct":
                content.setdefault(cell["task"], {})[unit] = 100 * cell["content_accuracy"]
    print("| task | " + " | ".join(f"`{name}`" for name in COLUMNS) + " | above the higher floor | in content |")
    print("|---" * (len(COLUMNS) + 3) + "|")
    for task, methods in found.items():
        words, means = [], {}
        for name, values in [*((name, methods[name]) for name in COLUMNS), ("content", content[task])]:
            mean, low, high, _ = paired_interval(values, "fixed")
            assert mean is not None
            means[name] = mean
            words.append(f"{mean:.1f}" + ("" if low is None or high is None else f" ± {(high - low) / 2:.1f}"))
        above = means["direct"] - max(means["majority"], means["blind"])
        print(f"| {task} | {' | '.join(words[:-1])} | +{above:.1f} | {words[-1]} |".replace("+-", "−"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
