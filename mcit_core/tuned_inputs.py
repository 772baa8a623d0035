"""What the language model is fed for the rows of a task, with the prompts that a tuner gives to each.

Of the tuners here `prompt` and `prompt_pool` put vectors beside a row's own; all others change nothing of the input.
What a row's sequence is, a point of it and the statistics of all are a reconstruction: Zheng et al. (arXiv 2401.09181)
look at input embeddings, and no code of theirs is public.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mcit_core.data.statistics import Statistics, row_statistics
from mcit_core.data.workbench import Workbench
from mcit_core.models import Batch
from mcit_core.tuners import Tuner


@dataclass(frozen=True)
class TunedInputs:
    """Of N rows, each position by its direction, a vector of length 1. points [N, d], float64: the mean over a row's
    positions, prompts included; statistics: of all positions of all rows, uncentred."""

    points: Tensor
    statistics: Statistics


def puts_prompts(bench: Workbench, task: str, tuner: Tuner) -> bool:
    """Whether the language model is fed anything of the tuner's beside a row's own vectors."""
    return _front(tuner, bench.rows(task, "train")[torch.arange(1)]) is not None


@torch.no_grad()
def tuned_inputs(
    bench: Workbench, task: str, tuners: Mapping[str, Tuner]
) -> tuple[TunedInputs, dict[str, TunedInputs]]:
    """Of a task's training rows: as the untouched model feeds them, and with the prompts of each tuner, chosen as in
    evaluation. One pass over the rows, however many tuners there are."""
    rows = bench.rows(task, "train")
    own: list[Tensor] = []
    counts: list[Tensor] = []
    fronts: dict[str, list[Tensor]] = {name: [] for name in tuners}
    statistics: dict[str, Statistics] = {}
    for batch in rows.parts(torch.arange(len(rows))):
        sums, positions = _sums(bench, batch)
        own.append(sums)
        counts.append(positions)
        for name, tuner in tuners.items():
            front = _front(tuner, batch)
            if front is None:
                raise ValueError(f"{name}: its tuner puts nothing beside a row's own vectors")
            found = row_statistics(front.flatten(0, 1), unit=True)
            statistics[name] = statistics[name] + found if name in statistics else found
            directions = torch.nn.functional.normalize(front.double(), dim=-1)
            fronts[name].append(directions.sum(1).cpu())
    untouched = bench.statistics(task, "unit")
    total, count = torch.cat(own), torch.cat(counts)[:, None]
    tuned: dict[str, TunedInputs] = {}
    for name, parts in fronts.items():
        length = statistics[name].count // len(total)
        points = (total + torch.cat(parts)) / (count + length)
        tuned[name] = TunedInputs(points, untouched + statistics[name])
    return TunedInputs(total / count, untouched), tuned


@torch.no_grad()
def _front(tuner: Tuner, batch: Batch) -> Tensor | None:
    """[N, m, d], what an evaluation puts beside the rows' own vectors."""
    with tuner.attached():
        return tuner.inputs(batch, training=False).front


def _sums(bench: Workbench, batch: Batch) -> tuple[Tensor, Tensor]:
    """[N, d], float64, and [N]: the sum of the directions of a row's own positions, and how many there are. Row by row,
    since a model tells the positions of a batch in an order of its own."""
    sums, counts = [], []
    for i in range(len(batch)):
        tokens = bench.model.tokens(batch[torch.tensor([i], device=bench.model.device)])
        found = row_statistics(tokens, unit=True)
        sums.append(found.total)
        counts.append(found.count)
    return torch.stack(sums), torch.tensor(counts, dtype=torch.float64)
