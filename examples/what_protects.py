"""What a second stage changes for the rows of the first one, part by part, under each way of protecting them.

python examples/what_protects.py --seeds 0 1 2            # about a minute and a half for each seed and way, two cores
python examples/what_protects.py --ways share freeze      # some of them

Trains a prompt pool on `--first`, then on `--second`, and looks at test rows of the first. Changes are relative: the
norm of the difference over that of what was there, at the rows' own tokens; 0 is as it was. From left to right:

  kept      share of the prompts that a row chose after its own stage and still chooses
  scores    of the first self-attention, between a row's tokens and the prompts that it had chosen (by direction: the
            layer's norm divides by a prompt's length)
  attended  what that attention hands on
  layer n   what the encoder's n-th layer hands on
  KL        of the answer's tokens, from the logits before to those now, in nats a token
  accuracy  exact answers, teacher-forced, in per cent

`scores` to `KL` are with the prompts that the row chose after its own stage, as they are now, so that what moved is
told apart from what is chosen; `KL*` and `accuracy*` are with those that it chooses now. Mean and, from three seeds on,
half of the 95 % interval over seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import mcit_core
from mcit_core.config import Value
from mcit_core.data.features import Rows
from mcit_core.data.workbench import Workbench, workbench_for
from mcit_core.models import Batch, TellsFirstAttention
from mcit_core.stages.state import StageState
from mcit_core.training.evaluation import encode, teacher_forced_exact
from mcit_core.training.stage import build_tuner, train_stage
from mcit_core.tuners.prompt_pool import PromptPool
from orchestration.results.estimates import estimate

#: what each way sets; the first stage is the same for all, since nothing protects there
WAYS: dict[str, dict[str, Value]] = {
    "share": {},
    "input 0.8": {"projection.mode": "residual", "projection.task_energy": 0.8},
    "attention 0.8": {
        "projection.mode": "residual",
        "projection.task_energy": 0.8,
        "projection.condition": "attention",
    },
    "input 0.99": {"projection.mode": "residual", "projection.task_energy": 0.99},
    "attention 0.99": {
        "projection.mode": "residual",
        "projection.task_energy": 0.99,
        "projection.condition": "attention",
    },
    "keys 0.97": {"projection.mode": "residual", "projection.task_energy": 0.8, "projection.keys": 0.97},
    "penalise": {"pool.reuse": "penalise"},
    "penalise, input 0.8": {
        "pool.reuse": "penalise",
        "projection.mode": "residual",
        "projection.task_energy": 0.8,
    },
    "freeze": {"pool.reuse": "freeze"},
    "freeze, input 0.8": {"pool.reuse": "freeze", "projection.mode": "residual", "projection.task_energy": 0.8},
}
COLUMNS = ("kept", "scores", "attended", "layer 1", "layer 2", "layer 3", "KL", "KL*", "accuracy*")


@contextmanager
def watching(bench: Workbench) -> Iterator[dict[str, Tensor]]:
    """What the encoder reads, and what its first self-attention and every layer hand on, by name, as passes go by."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: object, _inputs: object, output: Any) -> None:
            seen[name] = output[0] if isinstance(output, tuple) else output

        return hook

    first = next(iter(bench.model.attention_sites().values()))
    places = {"entrance": bench.model.entrance, "attended": first.module}
    for name, (module, side) in bench.model.block_sites().items():
        if side == "encoder":
            places[f"layer {int(name.rpartition('.')[2]) + 1}"] = module
    hooks = [module.register_forward_hook(keep(name)) for name, module in places.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def look(bench: Workbench, pool: PromptPool, batch: Batch, labels: Tensor, chosen: Tensor) -> dict[str, Tensor]:
    """Logits, and every part of the forward pass at the rows' own tokens, padding left out, with these prompts."""
    prompts = pool.prompts[chosen].flatten(1, 2)
    with watching(bench) as seen:
        encoded = bench.model.read(batch, prompts)
        logits = bench.model.logits(encoded, labels)
    own = bench.model.row_masks(encoded, labels)["encoder"].clone()
    own[:, : prompts.shape[1]] = False
    embedded = seen.pop("entrance")
    parts = {name: values[own] for name, values in seen.items()}
    assert isinstance(bench.model, TellsFirstAttention)
    directions = bench.model.first_attention(embedded)
    scores = torch.einsum("nihd,npd->nihp", directions, F.normalize(prompts, dim=-1))
    return {"logits": logits[labels != -100], "scores": scores[own], **parts}


@torch.no_grad()
def changes(bench: Workbench, before: PromptPool, after: PromptPool, rows: Rows, count: int) -> dict[str, float]:
    """The columns, for the first `count` rows."""
    index = torch.arange(min(count, len(rows)))
    batch, labels = rows[index], rows.labels[index]
    _, chosen = encode(bench.model, before, batch)
    encoded, now = encode(bench.model, after, batch)
    assert chosen is not None
    assert now is not None
    was, moved = (look(bench, pool, batch, labels, chosen) for pool in (before, after))
    free = look(bench, after, batch, labels, now)
    found = {
        "kept": float((chosen[:, :, None] == now[:, None]).any(2).float().mean()),
        **{name: float((moved[name] - was[name]).norm() / was[name].norm()) for name in was if name != "logits"},
    }
    truth = F.log_softmax(was["logits"], -1)
    for name, values in (("KL", moved), ("KL*", free)):
        told = F.log_softmax(values["logits"], -1)
        found[name] = float(F.kl_div(told, truth, reduction="batchmean", log_target=True))
    found["accuracy*"] = 100 * float(teacher_forced_exact(bench.model, encoded, labels).float().mean())
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", default="mini")
    parser.add_argument("--first", default="ground")
    parser.add_argument("--second", default="locate")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--ways", nargs="+", choices=[*WAYS], default=[*WAYS])
    parser.add_argument("--features", type=Path, help="a folder to cache the frozen features in")
    args = parser.parse_args(arguments)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ("as it was", *args.ways)}
    for seed in args.seeds:
        first: StageState | None = None
        for way in args.ways:
            settings: dict[str, Value] = {"train.steps": args.steps, **WAYS[way]}
            experiment = mcit_core.build_experiment(
                args.benchmark, "mini", "sequential", (args.first, args.second), seed, settings
            )
            bench = workbench_for(experiment, args.features)
            if first is None:
                first, _ = train_stage(experiment, bench, 0, None)
            second, _ = train_stage(experiment, bench, 1, first)
            before, after = (build_tuner(experiment, bench, state.group(0)) for state in (first, second))
            assert isinstance(before, PromptPool)
            assert isinstance(after, PromptPool)
            rows = bench.rows(args.first, "test")
            if way == args.ways[0]:
                found["as it was"].append(changes(bench, before, before, rows, args.rows))
            found[way].append(changes(bench, before, after, rows, args.rows))
    print(f"{'':22}" + "".join(f"{name:>15}" for name in COLUMNS))
    for way, values in found.items():
        cells = []
        for name in COLUMNS:
            known = estimate(value[name] for value in values)
            width = "" if known.half_width is None else f" ± {known.half_width:.2f}"
            cells.append(f"{known.mean or 0.0:.2f}{width}")
        print(f"{way:22}" + "".join(f"{cell:>15}" for cell in cells))


if __name__ == "__main__":
    main()
