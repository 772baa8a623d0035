"""How far the same trials of two RUNs are apart, setting by setting: of two kinds of CPU, say, or of a CPU and a GPU.

python examples/two_runs.py runs/cpus runs/cpus_avx2 [METRIC]
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import stdev

from orchestration.keep.tables import text_in
from orchestration.results.estimates import paired_interval
from orchestration.results.reading import read_results
from orchestration.results.settings import rows_by_setting
from orchestration.results.words import setting_label

Unit = tuple[int, str]


def values(run: Path, metric: str) -> dict[str, dict[Unit, float]]:
    """Setting -> (seed, order) -> the metric, of finished trials."""
    results = read_results(run)
    found: dict[str, dict[Unit, float]] = {}
    for setting, rows in rows_by_setting(results.finished, results.axes).items():
        known = found.setdefault(setting_label(setting, results.axes), {})
        for row in rows:
            value, seed = row.get(metric), row["seed"]
            if isinstance(value, float) and isinstance(seed, int):
                known[seed, text_in(row, "order")] = value
    return found


def table(first: Path, second: Path, metric: str = "average_accuracy") -> str:
    here, there = values(first, metric), values(second, metric)
    difference = f"{second.name} minus {first.name}"
    lines = [
        f"| {metric}, points | trials | apart on average | at most | {difference} | sd between seeds |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in here.items():
        other = there.get(name, {})
        both = {unit: 100 * (other[unit] - value) for unit, value in one.items() if unit in other}
        if not both:
            continue
        apart = [abs(value) for value in both.values()]
        mean = paired_interval(both, "fixed")
        interval = "" if mean.low is None or mean.high is None else f" [{mean.low:+.1f}, {mean.high:+.1f}]"
        shown = "–" if mean.mean is None else f"{mean.mean:+.1f}{interval}"
        spread = f"{stdev(100 * value for value in one.values()):.1f}" if len(one) > 1 else "–"
        average, most = sum(apart) / len(apart), max(apart)
        lines.append(f"| {name} | {len(both)} | {average:.1f} | {most:.1f} | {shown} | {spread} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]), end="")
