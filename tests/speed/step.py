"""What protection and the feature cache cost or save, side by side in one run: `python tests/speed/step.py`.

Prints medians of seconds a training step on the second stage and ratios to the same tuner unprotected. The variants
take turns step by step, so that a machine whose speed drifts slows all of them alike. What a stage does once
(statistics and bases) is not part of a step and stands in a column of its own.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from mcit_core.averaging import Averager
from mcit_core.data.order import data_order
from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.training.stage import MEASURE, build_tuner, protect, space_of, train_stage
from mcit_core.training.step import Learner, train_step

ORDER = ("attribute", "ground")
#: baseline -> what is compared with it: method and settings
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
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


def learner(bench: Workbench, method: str, settings: dict[str, Any]) -> tuple[Learner, float]:
    """A learner at the start of the second stage, and the seconds that its preparation took."""
    experiment = build_experiment("mini", "mini", method, ORDER, 0, {"train.steps": 2, **settings})
    before, _ = train_stage(experiment, bench, 0, None)
    own = before.group(0)
    assert own is not None
    start = time.perf_counter()
    tuner = build_tuner(experiment, bench, own)
    spaces, regulariser, _ = protect(experiment, bench, tuner, 1, own, None)
    if experiment.projection.mode in ("residual", "pretrained", "both"):
        spaces = dict.fromkeys(tuner.projected, space_of(experiment, bench, 1))
    prepared = time.perf_counter() - start
    tuner.begin_stage()
    averager = Averager(experiment.averaging, tuner.parameters()) if experiment.averaging.kind != "none" else None
    optimizer = torch.optim.Adam(tuner.groups(experiment))
    return Learner(bench.model, tuner, optimizer, experiment.train, spaces, averager, regulariser), prepared


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
        ready = {baseline: (cached, *learner(cached, baseline, {}))}
        for name, settings in others.items():
            bench = fresh if "cache off" in name else cached
            rest = {key: value for key, value in settings.items() if key != "method"}
            ready[name] = (bench, *learner(bench, settings.get("method", name), rest))
        seconds: dict[str, list[float]] = {name: [] for name in ready}
        for step, index in enumerate(order):
            for name, (bench, trained, _) in ready.items():
                start = time.perf_counter()
                rows = bench.rows("ground", "train")
                train_step(trained, rows[index], rows.labels[index], measure=step % MEASURE == 0)
                seconds[name].append(time.perf_counter() - start)
        base = statistics.median(seconds[baseline][5:])
        for name, values in seconds.items():
            median = statistics.median(values[5:])
            ratio, prepared = median / base, ready[name][2]
            print(f"{name:28s} {median:.4f} s a step  {ratio:5.3f} x {baseline}  {prepared:6.2f} s a stage")


if __name__ == "__main__":
    main()
