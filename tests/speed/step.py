"""What protection and the feature cache cost or save, side by side in one run: `python -m tests.speed.step`.

Prints medians of seconds a training step on the second stage and ratios to the same tuner unprotected. The variants
take turns step by step, so that a machine whose speed drifts slows all of them alike. What a stage does once
(statistics and bases) is not part of a step: a column of its own has what it takes beyond the unprotected tuner.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from mcit_core.config import Value
from mcit_core.data.order import data_order
from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.training.stage import MEASURE
from mcit_core.training.step import Learner, train_step
from tests.support.learning import second_stage

ORDER = ("attribute", "ground")
#: baseline -> what is compared with it: method and settings
VARIANTS: dict[str, dict[str, dict[str, str]]] = {
    "sequential": {
        f"fwd_prompt, mode {mode}": {"method": "fwd_prompt", "projection.mode": mode}
        for mode in ("residual", "pretrained", "both")
    }
    | {"sequential, cache off": {"method": "sequential"}},
    "sequential_prompt": {"pegp_prompt": {}},
    "sequential_prefix": {"pegp_prefix": {}},
    "sequential_lora": {"pegp_lora": {}, "llaca": {}, "ema_taylor": {}, "ema_fixed": {}, "lwf": {}, "ewc": {}},
    "sequential_adapter": {"pegp_adapter": {}},
}


def prepared(bench: Workbench, method: str, settings: Mapping[str, Value]) -> tuple[Learner, float]:
    """A learner at the start of the second stage, and the seconds that its preparation took (a step of the first stage
    and tuners apart, the same for all)."""
    experiment = build_experiment("mini", "mini", method, ORDER, 0, {"train.steps": 1, **settings})
    start = time.perf_counter()
    made = second_stage(experiment, bench)
    return made, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--features", type=Path, default=Path("runs/features"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    cached = Workbench("mini", "mini", "cpu", args.features)
    fresh = Workbench("mini", "mini", "cpu", None)
    order = torch.from_numpy(data_order(0, "ground", len(cached.rows("ground", "train")), 32, args.steps))
    for baseline, others in VARIANTS.items():
        ready = {baseline: (cached, *prepared(cached, baseline, {}))}
        for name, settings in others.items():
            bench = fresh if "cache off" in name else cached
            rest = {key: value for key, value in settings.items() if key != "method"}
            ready[name] = (bench, *prepared(bench, str(settings.get("method", name)), rest))
        seconds: dict[str, list[float]] = {name: [] for name in ready}
        for step, index in enumerate(order):
            for name, (bench, trained, _) in ready.items():
                start = time.perf_counter()
                rows = bench.rows("ground", "train")
                train_step(trained, rows[index], rows.labels_at(index), measure=step % MEASURE == 0).item()
                seconds[name].append(time.perf_counter() - start)
        base = statistics.median(seconds[baseline][args.steps // 10 :])
        for name, values in seconds.items():
            median = statistics.median(values[args.steps // 10 :])
            more = ready[name][2] - ready[baseline][2]
            print(f"{name:28s} {median:.4f} s a step  {median / base:5.3f} x {baseline}  {more:+6.2f} s a stage")


if __name__ == "__main__":
    main()
