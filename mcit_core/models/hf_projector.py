"""The projector of a model of transformers, trained: rows keep what it was sent, and are read through other weights.

Source: the recipes of LLaVA-1.5 and CoIN train it beside LoRA, at a rate of its own (Liu et al., arXiv 2310.03744; Chen
et al., arXiv 2403.08350).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mcit_core.families import Family
from mcit_core.models.hf_rows import HfBatch, flat


class Projects:
    """The part of the Model contract called HasProjector."""

    network: Any
    family: Family
    _weights: Mapping[str, Tensor] | None = None
    _last: bool | None = None

    @property
    def projector(self) -> nn.Module | None:
        return self.family.projector(self.network)

    @contextmanager
    def projecting(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        try:
            self._weights = weights
            yield
        finally:
            self._weights = None

    @contextmanager
    def watched(self) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """What the projector is sent inside, and what it makes of it, call by call."""
        calls: list[tuple[Tensor, Tensor]] = []
        if self.projector is None:
            yield calls
            return

        def note(_module: nn.Module, sent: tuple[object, ...], made: object) -> None:
            if sent and isinstance(sent[0], Tensor) and isinstance(made, Tensor):
                calls.append((sent[0], made))

        watch = self.projector.register_forward_hook(note)
        try:
            yield calls
        finally:
            watch.remove()

    def sent(self, calls: list[tuple[Tensor, Tensor]], visual: Tensor) -> Tensor | None:
        """[T, c] that the projector made the image tokens `visual` [T, d] of; None where something else came between
        or behind. Whether it does is seen once: on a GPU a comparison has to be waited for."""
        if not calls:
            return None
        sent, made = (flat([call[i] for call in calls]) for i in (0, 1))
        if self._last is None:
            self._last = sent.shape[:1] == visual.shape[:1] and torch.equal(made, visual)
        return sent if self._last else None

    def projected(self, rows: HfBatch) -> list[Tensor]:
        """The image tokens of rows, through the weights that are trained. Raises ValueError where they do not follow
        from them."""
        if self._weights is None or not any(map(len, rows.visual)):
            return rows.visual
        lengths = [*map(len, rows.visual)]
        if [*map(len, rows.seen)] != lengths:
            raise ValueError(
                f"lora.projector_lr: in a {type(self.network).__name__} something is done between projector and "
                "language model, so that it cannot be trained here; leave it out"
            )
        assert self.projector is not None
        made: Tensor = functional_call(self.projector, dict(self._weights), (torch.cat([*filter(len, rows.seen)]),))
        return [*made.split(lengths)]
