"""RUN folders of any size, with all that a report draws, in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mcit_core.metrics import CATALOGUE, summarise
from orchestration.keep.tables import Row
from tests.orchestration.results.test_results import cells, trial, write_run

TASKS = ("charts", "colours", "counting", "digits", "documents", "grounding", "scenes", "shapes")


def large_run(folder: Path, settings: int, seeds: int = 3, orders: int = 1, state: str = "finished") -> Path:
    """`settings` of two axes with sequential, direct and zero_shot. state: finished, half (every other trial has no
    result yet) or failed (some have failed)."""
    random = np.random.default_rng(settings)
    sizes = [10 * (1 + i) for i in range(-(-settings // 3))]
    energies = [0.5, 0.9, 0.99]
    grid = [(size, energy) for size in sizes for energy in energies][:settings]
    ordered = [">".join(np.roll(TASKS, shift).tolist()) for shift in range(orders)]
    trials: list[Row] = []
    accuracy: list[Row] = []
    stages: list[Row] = []

    def add(name: str, method: str, seed: int, order: str, level: float, forgets: float, **values: object) -> None:
        count = len(TASKS)
        matrix: list[list[float | None]] = [
            [
                float(np.clip(level - forgets * max(0, t - j) / count + 0.02 * random.normal(), 0, 1))
                if t >= j
                else 0.1 * level
                for j in range(count)
            ]
            for t in range(count)
        ]
        known = {name: value for name, value in summarise(matrix, [0.05] * count).items() if name in CATALOGUE}
        validated = float(np.mean(np.asarray(matrix[-1], float))) + 0.01 * random.normal()
        found = {**known, "trained_parameters": 5000.0, "memory_bytes": 1e6}
        row = trial(name, method, seed, order, **(found | values))  # type: ignore[arg-type]
        row["tuner"] = "prompt_pool"
        row["validation/average_accuracy"] = validated
        broken = len(trials) % 2 if state == "half" else len(trials) % 7 == 3 if state == "failed" else False
        if broken and method != "sequential":
            row |= dict.fromkeys(known)
            row |= {"status": "UNFINISHED" if state == "half" else "FAILED", "validation/average_accuracy": None}
            row["error"] = None if state == "half" else "RuntimeError: the loss is not a number at step 7\n  in train"
            trials.append(row)
            return
        trials.append(row)
        accuracy.extend(cells(row, matrix, [0.05] * count))
        for stage, task in enumerate(order.split(">")):
            measured = {
                "subspace/rank": 4 + stage,
                "subspace/dims_left": 60 - 6 * stage,
                "subspace/gradient_allowed": 0.6 - 0.05 * stage,
                "subspace/gradient_occupied": 0.3 + 0.05 * stage,
                "subspace/gradient_other": 0.1,
                "seconds/train": 3.0,
                "seconds/evaluate": 1.0,
                "pool/effective_prompts": 12.0 + stage,
                **{f"prompt_usage/{task}/{i}": 1 / 40 for i in range(0, 40, 1 + stage)},
            }
            stages.extend(
                {"trial": name, "stage": stage, "task": task, "name": key, "value": float(value)}
                for key, value in measured.items()
            )

    for number, order in enumerate(ordered):
        for seed in range(seeds):
            for size, energy in grid:
                level = 0.5 + 0.1 * np.sin(size) + 0.2 * (energy - 0.5) + 0.02 * random.normal()
                values = {"pool__size": size, "projection__task_energy": energy}
                add(f"fwd_prompt-{number}-{seed}-{size}-{energy}", "fwd_prompt", seed, order, level, 0.1, **values)
            add(f"sequential-{number}-{seed}", "sequential", seed, order, 0.55, 0.5)
            none = dict.fromkeys(("forgetting", "forward_transfer"))
            add(f"direct-{number}-{seed}", "direct", seed, order, 0.6, 0.0, **none)
    axes: dict[str, object] = {"pool.size": sizes, "projection.task_energy": energies}
    if orders > 1:
        axes["order"] = {"kind": "explicit", "orders": [order.split(">") for order in ordered]}
    return write_run(folder, trials, accuracy, stages, axes=axes, tasks=list(TASKS))
