"""What the language model is fed for the rows of a task, with the prompts that a tuner gives to each.

Of the tuners here `prompt` and `prompt_pool` put vectors beside a row's own; all others change nothing of the input.
What a row's sequence is, a point of it and the statistics of all are a reconstruction: Zheng et al. (arXiv 2401.09181)
look at input embeddings, and no code of theirs is public.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mcit_core.data.features import CHUNK
from mcit_core.data.statistics import Statistics, row_statistics
from mcit_core.data.workbench import Workbench
from mcit_core.models import Batch, KeepsFeatures
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
    evaluation. One pass over the rows, however many tuners there are. Raises ValueError for one without prompts."""
    rows = bench.rows(task, "train")
    size = 8 * CHUNK if isinstance(bench.model, KeepsFeatures) else CHUNK
    own: list[tuple[Tensor, Tensor]] = []
    added: dict[str, list[tuple[Tensor, Statistics]]] = {name: [] for name in tuners}
    for some in torch.arange(len(rows)).split(size):
        batch = rows[some]
        own.append(_own(bench, batch))
        for name, tuner in tuners.items():
            front = _front(tuner, batch)
            if front is None:
                raise ValueError(f"{name}: its tuner puts nothing beside a row's own vectors")
            added[name].append((_directions(front).sum(1).cpu(), row_statistics(front.flatten(0, 1), unit=True)))
    untouched = bench.statistics(task, "unit")
    total, count = (torch.cat(column) for column in zip(*own, strict=True))
    tuned: dict[str, TunedInputs] = {}
    for name, parts in added.items():
        sums, statistics = zip(*parts, strict=True)
        prompts = sum(statistics[1:], statistics[0])
        # every row is given as many
        points = (total + torch.cat(sums)) / (count + prompts.count // len(total))
        tuned[name] = TunedInputs(points, untouched + prompts)
    return TunedInputs(total / count, untouched), tuned


@torch.no_grad()
def _front(tuner: Tuner, batch: Batch) -> Tensor | None:
    """[N, m, d], what an evaluation puts beside the rows' own vectors."""
    with tuner.attached():
        return tuner.inputs(batch, training=False).front


def _own(bench: Workbench, batch: Batch) -> tuple[Tensor, Tensor]:
    """[N, d] and [N, 1], float64: the sum of the directions of a row's own positions, and how many there are. Row by
    row, since a model tells the positions of a batch in an order of its own."""
    found = [bench.model.tokens(batch[torch.tensor([i], device=bench.model.device)]) for i in range(len(batch))]
    sums = torch.stack([_directions(tokens).sum(0) for tokens in found]).cpu()
    return sums, torch.tensor([[len(tokens)] for tokens in found], dtype=torch.float64)


def _directions(rows: Tensor) -> Tensor:
    """Rows [..., d] at length 1, float64, as `row_statistics` takes them; a row of zeros stays."""
    return F.normalize(rows.double(), dim=-1)
