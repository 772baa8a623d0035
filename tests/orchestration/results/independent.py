"""The figures of a RUN from the cells of accuracy.parquet, by code that shares nothing with the project's: numpy,
pyarrow and loops. Where a stored RUN has no such file, the metrics are those of trials.parquet."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

Key = tuple[Any, ...]
HEADLINE = ("average_accuracy", "forgetting", "forward_transfer", "transfer_to_direct")
METRICS = ("average_accuracy", "learning_accuracy", "forgetting", "backward_transfer", "forward_transfer")
REFERENCES = {"zero_shot", "majority", "blind", "direct", "multitask", "sequential"}
PLAIN = {"o_lora": "lora"}


class Run:
    """trials: those that finished. values: trial -> metric -> value. settings: key -> its trials, where a key is the
    method, its values of the axes and, where methods are compared, what is trained."""

    def __init__(self, folder: Path) -> None:
        sweep = yaml.safe_load((folder / "sweep.yaml").read_text())
        self.axes = [axis for axis in sweep["axes"] if axis not in ("order", "method")]
        self.trials = [
            row for row in pq.read_table(folder / "trials.parquet").to_pylist() if row["status"] == "FINISHED"
        ]
        self.columns = ["method", *self.axes, *(["tuner", "tuner_settings"] if "method" in sweep["axes"] else [])]
        self.settings: dict[Key, list[dict[str, Any]]] = {}
        for row in self.trials:
            self.settings.setdefault(tuple(row[name] for name in self.columns), []).append(row)
        self.cells: dict[tuple[str, int, str], float] = {}
        self.learned: dict[tuple[str, str], float] = {}
        if (folder / "accuracy.parquet").exists():
            for cell in pq.read_table(folder / "accuracy.parquet").to_pylist():
                if cell["split"] == "test":
                    self.cells[cell["trial"], cell["stage"], cell["task"]] = cell["accuracy"]
                    if cell["stage_task"] == cell["task"]:
                        self.learned[cell["trial"], cell["task"]] = cell["accuracy"]
            self.values = {row["trial"]: self.metrics(row) for row in self.trials if self.is_sequence(row)}
        else:
            self.values = {row["trial"]: {name: row[name] for name in (*METRICS, *HEADLINE)} for row in self.trials}

    @staticmethod
    def is_sequence(row: dict[str, Any]) -> bool:
        return row["method"] not in REFERENCES - {"sequential"}

    def matrix(self, row: dict[str, Any]) -> list[list[float | None]]:
        tasks = row["order"].split(">")
        return [[self.cells.get((row["trial"], stage, task)) for task in tasks] for stage in range(len(tasks))]

    def metrics(self, row: dict[str, Any]) -> dict[str, float | None]:
        tasks, r = row["order"].split(">"), self.matrix(row)
        count, last = len(tasks), len(tasks) - 1
        before = [self.cells.get((row["trial"], -1, task)) for task in tasks]
        alone = [
            other["trial"]
            for other in self.trials
            if other["method"] == "direct" and (other["seed"], other["tuner"]) == (row["seed"], row["tuner"])
        ]
        direct = [self.learned.get((trial, task)) for trial in alone[:1] for task in tasks]

        def mean(terms: list[float]) -> float:
            return sum(terms) / len(terms)

        def transfer(bases: list[float | None], shift: int) -> float | None:
            pairs = [(r[j - shift][j], bases[j] if bases else None) for j in range(1, count)]
            return None if any(None in pair for pair in pairs) else mean([a - b for a, b in pairs])  # type: ignore[operator]

        own = [r[j][j] for j in range(count)]
        best = [max(r[stage][j] for stage in range(j, last)) for j in range(last)]  # type: ignore[type-var]
        return {
            "average_accuracy": mean(r[last]),  # type: ignore[arg-type]
            "learning_accuracy": mean(own),  # type: ignore[arg-type]
            "forgetting": mean([best[j] - r[last][j] for j in range(last)]),  # type: ignore[operator]
            "backward_transfer": mean([r[last][j] - own[j] for j in range(last)]),  # type: ignore[operator]
            "forward_transfer": transfer(before, 1),
            "transfer_to_direct": transfer(direct, 0),
        }

    def studied(self) -> list[Key]:
        return [key for key in self.settings if key[0] not in REFERENCES]

    def by_seed(self, key: Key, metric: str) -> dict[int, float]:
        """Seed -> mean over its orders, of seeds that have as many as there are."""
        found: dict[int, list[float]] = {}
        for row in self.settings[key]:
            value = self.values.get(row["trial"], {}).get(metric)
            if value is not None:
                found.setdefault(row["seed"], []).append(value)
        orders = len({row["order"] for row in self.trials if row["method"] not in ("zero_shot", "majority", "direct")})
        return {seed: sum(values) / len(values) for seed, values in found.items() if len(values) == orders}

    def baseline(self, key: Key) -> Key | None:
        """The sequential setting that agrees in all it has. A reference lacks an axis that does not apply to it; what
        is trained, and how, must be the same, where a method's own kind of a tuner counts as the plain one."""
        wanted = dict(zip(self.columns, key, strict=True))
        wanted["tuner"] = PLAIN.get(wanted.get("tuner"), wanted.get("tuner"))  # type: ignore[arg-type]
        for other in self.settings:
            theirs = dict(zip(self.columns, other, strict=True))
            same = all(
                wanted[name] == value or (value is None and name in self.axes)
                for name, value in theirs.items()
                if name != "method"
            )
            if other[0] == "sequential" and same:
                return other
        return None

    def against_sequential(self, metric: str) -> dict[Key, list[float]]:
        """Setting -> its difference from sequential on every seed that both have."""
        found = {}
        for key in self.studied():
            base = self.baseline(key)
            if base is not None:
                mine, theirs = self.by_seed(key, metric), self.by_seed(base, metric)
                found[key] = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
        return found

    def along(self, axis: str, metric: str) -> list[float]:
        """The highest value of an axis minus the lowest on every seed, over pairs that differ in it alone."""
        place = self.columns.index(axis)
        sizes = sorted({key[place] for key in self.studied()})
        found: dict[int, list[float]] = {}
        for low, high in itertools.product(self.studied(), repeat=2):
            ends = (low[place], high[place]) == (sizes[0], sizes[-1])
            if ends and low[:place] + low[place + 1 :] == high[:place] + high[place + 1 :]:
                below, above = self.by_seed(low, metric), self.by_seed(high, metric)
                for seed in below:
                    found.setdefault(seed, []).append(above[seed] - below[seed])
        return [sum(values) / len(values) for values in found.values()]


def t_inside(t: float, freedom: int) -> float:
    """The chance that |T| <= t, by the finite sums of Abramowitz & Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    if freedom % 2 == 0:
        term = total = 1.0
        for k in range(1, freedom // 2):
            term *= (2 * k - 1) / (2 * k) * cosine**2
            total += term
        return sine * total
    total = 0.0
    term = cosine
    for k in range(1, (freedom - 1) // 2 + 1):
        total += term
        term *= 2 * k / (2 * k + 1) * cosine**2
    return 2 / math.pi * (angle + sine * total)


def t_quantile(freedom: int) -> float:
    """The t that leaves 2.5 % on either side, by halving."""
    low, high = 0.0, 1000.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_inside(middle, freedom) < 0.95 else (low, middle)
    return low


def mean_and_half(values: list[float]) -> tuple[float, float]:
    n = len(values)
    mean = sum(values) / n
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    return mean, t_quantile(n - 1) * spread / math.sqrt(n)


def p_of(values: list[float]) -> float:
    n = len(values)
    mean = sum(values) / n
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return 1 - t_inside(abs(mean) / error, n - 1)


def holm(p_values: list[float]) -> list[float]:
    """Each p-value's largest bound among those that are no larger than it."""
    count = len(p_values)
    bounds = [(p, min(1.0, p * sum(other >= p for other in p_values))) for p in p_values]
    assert len(set(p_values)) == count  # equals would need care
    return [max(bound for other, bound in bounds if other <= p) for p in p_values]


def place(means: list[float], higher: bool) -> list[float]:
    """Ranks, equals with their mean rank."""
    signed = [round(mean if higher else -mean, 9) for mean in means]
    return [1 + sum(o > one for o in signed) + (sum(o == one for o in signed) - 1) / 2 for one in signed]


def all_resamples(table: np.ndarray, higher: bool) -> np.ndarray:
    """Ranks [resamples, settings] under every way to draw as many seeds as there are, of table [settings, seeds]."""
    seeds = table.shape[1]
    return np.array(
        [
            place([float(np.mean(row[list(drawn)])) for row in table], higher)
            for drawn in itertools.product(range(seeds), repeat=seeds)
        ]
    )


def eta(groups: list[list[float]]) -> float:
    """Squares between groups over all squares."""
    every = [value for group in groups for value in group]
    mean = sum(every) / len(every)
    between = sum(len(group) * (sum(group) / len(group) - mean) ** 2 for group in groups)
    return between / sum((value - mean) ** 2 for value in every)
