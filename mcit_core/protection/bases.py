"""The bases of PEGP: for every tuned tensor, the span of the inputs that earlier tasks sent it.

A tensor [..., w] meets the rows x of its site on its last axis, so x Δᵀ = 0 keeps what earlier tasks computed there.
The basis of a site grows after each stage by the GPM rule; it is grown when the next stage begins, from the weights
that the stage left, so that a stage leaves the same state whatever a later one will project.

Source: Qiao et al., PEGP, arXiv 2405.13383 (conditions; GPM's rule). Energy on squared singular values of XᵀX, and the
realised change projected beside the gradient; the public code squares twice and projects the gradient alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from mcit_core.data.features import Rows
from mcit_core.data.statistics import RowView, Statistics, input_statistics, row_statistics
from mcit_core.models import Batch, Model, Side
from mcit_core.parallel import ALONE, Team
from mcit_core.protection.spaces import SpaceRule, grow
from mcit_core.tuners import Site, Tuner

BATCH = 64


@torch.no_grad()
def site_statistics(
    model: Model, tuner: Tuner, rows: Rows, samples: int, view: RowView = "raw", team: Team = ALONE
) -> dict[str, Statistics]:
    """Statistics of every site's inputs over the first `samples` rows of a task, at least one for each process of the
    team, tuner attached, teacher-forced, padding left out; `view`: how those of a site in front of the model count,
    since they are normed by none yet."""
    found: dict[str, Statistics] = {}
    sites = tuner.sites()

    def add(name: str, seen: Tensor) -> None:
        new = input_statistics(model, seen, view) if sites[name].front else row_statistics(seen)
        found[name] = found[name] + new if name in found else new

    for index in torch.arange(min(samples, len(rows)))[team.part()].split(BATCH):
        _pass(model, tuner, rows[index], rows.labels_at(index), sites, add)
    return {name: statistics.over(team) for name, statistics in found.items()}


def _pass(
    model: Model,
    tuner: Tuner,
    batch: Batch,
    labels: Tensor,
    sites: dict[str, Site],
    see: Callable[[str, Tensor], None],
) -> None:
    """A teacher-forced forward pass that shows `see` what every site is sent, padding left out, at once: the inputs of
    all sites together would fill a GPU."""
    masks: dict[Side, Tensor] = {}
    waiting: list[tuple[str, Tensor]] = []  # what an encoder is sent before it is known which of it is padding

    def sent(name: str, values: Tensor) -> None:
        if masks:
            see(name, _real(name, values, masks[sites[name].side]))
        else:
            waiting.append((name, values))

    with tuner.attached(), _watching(sites, sent):
        inputs = tuner.inputs(batch, training=False)
        encoded = model.read(batch, inputs.front)
        masks |= model.row_masks(encoded, labels)
        for name, values in waiting:
            sent(name, values)
        waiting.clear()
        model.logits(encoded, labels)


def _real(name: str, values: Tensor, mask: Tensor) -> Tensor:
    """[R, w]: the rows of a site that are no padding, of values [N, n, w] or, as OPT's feed-forward layers have them,
    [N n, w]. Raises ValueError where the site is sent other rows than the model's input has."""
    rows, real = values.flatten(0, -2), mask.flatten()
    if len(rows) != len(real):
        raise ValueError(
            f"projection.mode pegp: {name} is sent {len(rows)} rows where the model's input has {len(real)}, so that "
            "it is not known which are padding; leave it out of lora.targets"
        )
    return rows[real]


@contextmanager
def _watching(sites: dict[str, Site], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    with ExitStack() as stack:
        for name, site in sites.items():

            def before(_module: object, inputs: tuple[Tensor, ...], name: str = name) -> None:
                see(name, inputs[0].detach())

            stack.callback(site.module.register_forward_pre_hook(before).remove)
        yield


def grown_bases(
    rule: SpaceRule, before: dict[str, Tensor], statistics: dict[str, Statistics], device: torch.device
) -> dict[str, Tensor]:
    """Site -> basis: those of `before` (names `basis.<site>`, missing ones empty) grown by the task's statistics,
    decomposed on a device."""
    grown = {}
    for name, found in statistics.items():
        width = len(found.gram)
        basis = before.get(f"basis.{name}", torch.zeros(width, 0, dtype=torch.float64))
        grown[name] = grow(rule, basis.to(device), found.to(device))
    return grown
