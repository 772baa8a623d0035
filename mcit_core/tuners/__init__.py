"""The Tuner contract: what is trained on top of the frozen model.

A tuner is built by `build(experiment, model, queries)` and offers `parameters()` (name -> tensor), `groups(train)` for
the optimizer, `projected` (names whose gradient and change are projected), `begin_stage()`, `inputs(features,
training)`, `frozen_rows(name)`, `end_stage()` and `state()` / `load(state)`. Register one in `mcit_core.registry` or
through the entry-point group `mcit_core.tuners`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from mcit_core.config import Experiment
from mcit_core.models import FrozenFeatures, Model
from mcit_core.state import StageState


@dataclass(frozen=True)
class TunerInputs:
    embedded: Tensor  # [N, n, d] what the language model reads
    mask: Tensor  # [N, n]
    extra_loss: Tensor  # scalar, added to the answer's cross-entropy
    chosen: Tensor | None = None  # [N, K] which parts of the tuner each row used


@dataclass(frozen=True)
class QueryStatistics:
    """Mean and deviation of the selection queries over the model's pre-training sample."""

    image_mean: Tensor
    image_std: Tensor
    text_mean: Tensor
    text_std: Tensor


class Tuner(Protocol):
    projected: tuple[str, ...]

    @classmethod
    def build(cls, experiment: Experiment, model: Model, queries: QueryStatistics) -> Tuner: ...
    def parameters(self) -> dict[str, nn.Parameter]: ...
    def groups(self, experiment: Experiment) -> list[dict[str, Any]]: ...
    def begin_stage(self) -> None: ...
    def inputs(self, features: FrozenFeatures, training: bool) -> TunerInputs: ...
    def frozen_rows(self, name: str) -> Tensor | None: ...
    def end_stage(self) -> dict[str, float]: ...
    def state(self) -> StageState: ...
    def load(self, state: StageState) -> None: ...
