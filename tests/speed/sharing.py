"""What sharing equal beginnings saves: `python tests/speed/sharing.py` counts stages, `--train SWEEP.yaml` trains.

Counting needs no training. `--train` trains every trial of a sweep file three ways in one process: each trial whole and
frozen features encoded afresh at every step; each trial whole with the feature cache; cache and stage store. It prints
seconds and ratios, and whether every accuracy and every metric that is no time is bit-equal.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from mcit_core.data.workbench import Workbench, workbench_for
from orchestration.plan.orders import make_orders
from orchestration.plan.spec import SweepSpec
from orchestration.plan.stage_tree import costs
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import Trial, make_trials

SWEEPS = Path(__file__).parent.parent.parent / "sweeps"
#: counted as they are in their files, where they exist
FILES = ("threshold", "threshold_full", "ordering", "pool", "ablation", "reuse", "llaca", "pegp", "compare")


def suites() -> dict[str, SweepSpec]:
    base = load_spec(SWEEPS / "threshold.yaml", ["axes={}", "references=[]", "seeds=[0]", "tasks=5"])
    found = {}
    for n in (4, 5):
        tasks = base.tasks[:n]
        orders = make_orders(tasks, {"kind": "all"})
        found[f"all orders of {n} tasks"] = replace(base, tasks=tasks, orders=orders, order_swept=True)
    four = found["all orders of 4 tasks"]
    thresholds = {"projection.task_energy": [0.5, 0.7, 0.9, 0.95, 0.99]}
    found["5 thresholds, 4 tasks"] = replace(four, orders=four.orders[:1], axes=thresholds)
    found["5 thresholds x all orders of 4 tasks"] = replace(four, axes=thresholds)
    found["5 seeds, 4 tasks, with references"] = replace(
        four, orders=four.orders[:1], seeds=(0, 1, 2, 3, 4), references=("direct", "sequential")
    )
    for name in FILES:
        if (SWEEPS / f"{name}.yaml").exists():
            found[f"sweeps/{name}.yaml"] = load_spec(SWEEPS / f"{name}.yaml")
    return found


def count() -> None:
    print(f"{'suite':40}{'trials':>8}{'stages':>8}{'distinct':>10}{'ratio':>8}{'ratio in steps':>16}")
    for name, spec in suites().items():
        trials = make_trials(spec)
        counted = costs(trials)
        print(
            f"{name:40}{counted.trials:8}{counted.stages:8}{len(counted.distinct):10}"
            f"{counted.stages / len(counted.distinct):8.2f}{counted.steps / sum(counted.distinct.values()):16.2f}"
        )


def train_all(trials: list[Trial], features: Path | None, stages: Path | None) -> dict[str, Any]:
    """Train every trial in this process. Returns stages trained, seconds of training and of everything, and cells."""
    from mcit_core.training.sequence import Sequence
    from orchestration.keep.stage_store import StageStore

    store = StageStore(stages) if stages else None
    trained, training, cells = 0, 0.0, {}
    begun = time.perf_counter()
    for trial in trials:
        bench: Workbench = workbench_for(trial.experiment, features)
        for result in Sequence(trial.experiment, bench, store):
            metrics = {name: value for name, value in result.metrics.items() if not name.startswith("seconds/")}
            cells[trial.id, result.stage] = (result.accuracy, metrics)
            if result.stage >= 0 and not result.reused:
                trained += 1
                training += result.metrics["seconds/train"]
    return {"trained": trained, "training": training, "all": time.perf_counter() - begun, "cells": cells}


def train(spec: SweepSpec, features: Path) -> None:
    trials = make_trials(spec)
    counted = costs(trials)
    workbench_for(trials[0].experiment, features).prepare(spec.tasks)
    print(f"{counted.stages} stages, {len(counted.distinct)} distinct\n")
    print(f"{'':36}{'trained':>8}{'training':>12}{'ratio':>8}{'with evaluation':>17}{'ratio':>8}  cells", flush=True)
    with tempfile.TemporaryDirectory() as stages:
        ways = {
            "each trial whole, no feature cache": (None, None),
            "each trial whole, feature cache": (features, None),
            "stages shared, feature cache": (features, Path(stages)),
        }
        slowest: dict[str, Any] = {}
        for name, (cache, store) in ways.items():
            way = train_all(trials, cache, store)
            slowest = slowest or way
            equal = sum(way["cells"][cell] == value for cell, value in slowest["cells"].items())
            print(
                f"{name:36}{way['trained']:8}{way['training']:10.1f} s{slowest['training'] / way['training']:8.2f}"
                f"{way['all']:15.1f} s{slowest['all'] / way['all']:8.2f}  {equal} of {len(slowest['cells'])} bit-equal",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, metavar="SWEEP.yaml", help="train this sweep's trials in three ways")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments")
    parser.add_argument("--features", type=Path, default=Path("runs/features"))
    args = parser.parse_args()
    if args.train:
        train(load_spec(args.train, args.assignments), args.features)
    else:
        count()


if __name__ == "__main__":
    main()
