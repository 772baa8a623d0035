"""How far PEGP leaves the answers of the task before as they were, as a Markdown table.

python examples/what_pegp_keeps.py                    # about a minute for each seed and tuner
python examples/what_pegp_keeps.py --tuners lora --seeds 0

Trains a tuner on `--first`, then on `--second`: unprotected, at the preset's energy, and at an energy of 1.0. KL is of
the answer's tokens of the first task's rows, from what they were after its own stage to what they are after the second,
in nats a token, the largest of a single token in brackets (the largest of all seeds). Three kinds of rows: those whose
inputs made the bases (`collected`: the first 256 of training), the training rows after them, and test rows. `closed` is
the share of a site's input directions that the second stage may not use; accuracies are of test rows after the second
stage, in per cent, exact answers. Mean and, from three seeds on, half of the 95 % interval over seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import mcit_core
from mcit_core.config import Experiment, Value
from mcit_core.data.features import Rows
from mcit_core.data.workbench import Workbench, workbench_for
from mcit_core.methods import PRESETS
from mcit_core.protection.pegp import PegpSettings
from mcit_core.stages.state import StageState
from mcit_core.training.evaluation import encode, teacher_forced_exact
from mcit_core.training.stage import build_tuner, metrics_after, stage_view, train_stage
from mcit_core.tuners import Tuner
from orchestration.results.estimates import estimate

TUNERS = ("prompt", "prefix", "lora", "adapter")
COLLECTED = PegpSettings().samples
BATCH = 64


@torch.no_grad()
def answered(bench: Workbench, tuner: Tuner, rows: Rows, index: Tensor) -> tuple[Tensor, float]:
    """Log-probabilities [tokens of the answers, vocabulary], and the share of exact answers, teacher-forced."""
    found, exact = [], 0.0
    with tuner.attached():
        for part in index.split(BATCH):
            labels = rows.labels[part]
            encoded, _ = encode(bench.model, tuner, rows[part])
            found.append(F.log_softmax(bench.model.logits(encoded, labels)[labels != -100], -1))
            exact += float(teacher_forced_exact(bench.model, encoded, labels).sum())
    return torch.cat(found), exact / len(index)


def divergence(was: Tensor, now: Tensor) -> tuple[float, float]:
    """KL of every token, in nats: mean and largest."""
    tokens = F.kl_div(now, was, reduction="none", log_target=True).sum(-1)
    return float(tokens.mean()), float(tokens.max())


def looked_at(bench: Workbench, task: str, count: int) -> dict[str, tuple[Rows, Tensor]]:
    """Kind of rows -> where they are and which; a benchmark with few rows lacks the second kind."""
    train, test = (bench.rows(task, split) for split in ("train", "test"))
    kinds = {
        "collected": (train, torch.arange(min(COLLECTED, len(train)))),
        "other training rows": (train, torch.arange(COLLECTED, max(COLLECTED, min(COLLECTED + count, len(train))))),
        "test rows": (test, torch.arange(min(count, len(test)))),
    }
    return {kind: (rows, index) for kind, (rows, index) in kinds.items() if len(index)}


def changes(experiment: Experiment, bench: Workbench, first: StageState, count: int) -> dict[str, float]:
    """Trains the second stage after `first`: the columns, and the largest KL of a token under `most <kind>`."""
    second, _ = train_stage(experiment, bench, 1, first)
    before, after = (build_tuner(experiment, bench, state.group(0)) for state in (first, second))
    one, other = experiment.order
    closed = metrics_after(stage_view(experiment, bench, 1, None), second.group(0)).get("subspace/occupied", 0.0)
    values = {"closed": closed}
    for kind, (rows, index) in looked_at(bench, one, count).items():
        was, _ = answered(bench, before, rows, index)
        now, values[one] = answered(bench, after, rows, index)  # the last kind, test rows, stays
        values[kind], values[f"most {kind}"] = divergence(was, now)
    rows = bench.rows(other, "test")
    _, values[other] = answered(bench, after, rows, torch.arange(len(rows)))
    return values


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", default="mini")
    parser.add_argument("--first", default="ground")
    parser.add_argument("--second", default="locate")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rows", type=int, default=200, help="of each kind but the collected")
    parser.add_argument("--tuners", nargs="+", choices=TUNERS, default=[*TUNERS])
    parser.add_argument("--features", type=Path, help="a folder to cache the frozen features in")
    args = parser.parse_args(arguments)
    columns = ("collected", "other training rows", "test rows", "closed", args.first, args.second)
    print("| tuner, energy | " + " | ".join(columns) + " |")
    print("| --- " * (len(columns) + 1) + "|")
    for tuner in args.tuners:
        preset = float(str(PRESETS[f"pegp_{tuner}"].settings["projection.task_energy"]))
        ways: dict[str, tuple[str, dict[str, Value]]] = {"unprotected": (f"sequential_{tuner}", {})}
        ways |= {f"{energy:g}": (f"pegp_{tuner}", {"projection.task_energy": energy}) for energy in (preset, 1.0)}
        found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for seed in args.seeds:
            first: StageState | None = None
            for way, (method, settings) in ways.items():
                fields = {"train.steps": args.steps, **settings}
                tasks = (args.first, args.second)
                experiment = mcit_core.build_experiment(args.benchmark, "mini", method, tasks, seed, fields)
                bench = workbench_for(experiment, args.features)
                if first is None:  # nothing is projected in the first stage, so it is the same in every way
                    first, _ = train_stage(experiment, bench, 0, None)
                found[way].append(changes(experiment, bench, first, args.rows))
        for way, seeds in found.items():
            print(f"| {tuner}, {way} | {' | '.join(_cell(name, seeds) for name in columns)} |", flush=True)


def _cell(name: str, seeds: list[dict[str, float]]) -> str:
    known = estimate(values.get(name) for values in seeds)
    if known.mean is None:
        return "–"
    most = [values[f"most {name}"] for values in seeds if f"most {name}" in values]
    scale, digits = (1, 4) if most else (100, 1)
    text = f"{round(scale * known.mean, digits) + 0.0:.{digits}f}"  # the sum turns -0.0 into 0.0
    text += "" if known.half_width is None else f" ± {scale * known.half_width:.{digits}f}"
    return f"{text} ({max(most):.2f})" if most else text


if __name__ == "__main__":
    main()
