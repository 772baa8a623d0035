"""What projection and the feature cache cost or save, side by side in one run: `python benchmarks/step.py`.

Prints medians of seconds a training step and ratios to the unprojected step with cached features. The variants take
turns step by step, so that a machine whose speed drifts slows all of them alike.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from mcit_core.methods import build_experiment
from mcit_core.sequence import build_tuner, space_of
from mcit_core.step import train_step
from mcit_core.workbench import Workbench, data_order

ORDER = ("attribute", "ground")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--features", type=Path, default=Path("runs/features"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    cached = Workbench("mini", "mini", "cpu", args.features)
    fresh = Workbench("mini", "mini", "cpu", None)
    variants = {
        "none": ("none", cached),
        "residual": ("residual", cached),
        "pretrained": ("pretrained", cached),
        "both": ("both", cached),
        "none, cache off": ("none", fresh),
    }
    ready = {}
    for name, (mode, bench) in variants.items():
        experiment = build_experiment("mini", "mini", "fwd_prompt", ORDER, 0, {"projection.mode": mode})
        tuner = build_tuner(experiment, bench, None)
        tuner.begin_stage()
        optimizer = torch.optim.Adam(tuner.groups(experiment))
        ready[name] = (experiment, bench, tuner, optimizer, space_of(experiment, cached, 1))
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    order = torch.from_numpy(data_order(0, "ground", len(cached.rows("ground", "train")), 32, args.steps))
    for step, index in enumerate(order):
        for name, (experiment, bench, tuner, optimizer, space) in ready.items():
            start = time.perf_counter()
            rows = bench.rows("ground", "train")
            measure = step % 10 == 0
            train_step(bench.model, tuner, rows[index], rows.labels[index], optimizer, space, experiment.train, measure)
            seconds[name].append(time.perf_counter() - start)
    base = statistics.median(seconds["none"][5:])
    for name, values in seconds.items():
        median = statistics.median(values[5:])
        print(f"{name:16s} {median:.4f} s a step, {median / base:.3f} x the unprojected step")


if __name__ == "__main__":
    main()
