"""The Tuner contract: what is trained on top of the frozen model.

A tuner is built by `build(experiment, model, queries)`. It changes the model only inside `attached()`; outside, the
model is bit-equal to the pre-trained one, so several tuners can share one model. `BaseTuner` has a default for
everything but the parameters; docs/extending.md shows how to write one. Register a tuner in `mcit_core.registry` or
through the entry-point group `mcit_core.tuners`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from mcit_core.config import Experiment
from mcit_core.data.statistics import QueryStatistics
from mcit_core.models import FrozenFeatures, Model, Side
from mcit_core.stages.state import StageState


@dataclass(frozen=True)
class TunerInputs:
    embedded: Tensor  # [N, n, d] what the language model reads
    mask: Tensor  # [N, n]
    extra_loss: Tensor  # scalar, added to the answer's cross-entropy
    chosen: Tensor | None = None  # [N, K] which parts of the tuner each row used


@dataclass(frozen=True)
class Site:
    """Where a projected tensor meets its inputs: the input rows [..., width] of `module`; `side` says whose padding
    counts, that of the model's input or that of the answer."""

    module: nn.Module
    side: Side = "encoder"


class Tuner(Protocol):
    """`projected`: parameter name -> name of the site whose inputs its last axis meets. `sites()`: site name -> Site.
    `frozen_rows(name)`: bool mask of rows that a step must leave alone, or None."""

    projected: dict[str, str]

    @classmethod
    def build(cls, experiment: Experiment, model: Model, queries: QueryStatistics) -> Tuner: ...
    def parameters(self) -> dict[str, nn.Parameter]: ...
    def groups(self, experiment: Experiment) -> list[dict[str, Any]]: ...
    def attached(self) -> Any: ...
    def begin_stage(self) -> None: ...
    def inputs(self, features: FrozenFeatures, training: bool) -> TunerInputs: ...
    def sites(self) -> dict[str, Site]: ...
    def frozen_rows(self, name: str) -> Tensor | None: ...
    def end_stage(self) -> dict[str, float]: ...
    def state(self) -> StageState: ...
    def load(self, state: StageState) -> None: ...


def plain_inputs(model: Model, features: FrozenFeatures, front: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What the language model reads, [N, n, d], and its mask: `front` [N, m, d], visual tokens, instruction."""
    parts = [features.visual, model.embeddings(features.instruction)]
    if front is not None:
        parts.insert(0, front)
    ones = features.instruction_mask.new_ones(len(features), sum(part.shape[1] for part in parts[:-1]))
    return torch.cat(parts, 1), torch.cat([ones, features.instruction_mask], 1)


class BaseTuner:
    """A tuner whose state is its parameters, and which reads the model's plain inputs."""

    projected: dict[str, str]

    @classmethod
    def build(cls, experiment: Experiment, model: Model, queries: QueryStatistics) -> Self:
        return cls(experiment, model)

    def __init__(self, experiment: Experiment, model: Model) -> None:
        self.experiment, self.model = experiment, model
        self.generator = torch.Generator().manual_seed(experiment.seed)
        self.weights: dict[str, nn.Parameter] = {}
        self.projected = {}

    def parameter(self, values: Tensor) -> nn.Parameter:
        return nn.Parameter(values.float().to(self.model.device))

    @classmethod
    def check_options(cls, options: dict[str, Any]) -> None:
        """Called before anything runs. Raises ValueError naming the key, what is allowed and what was given."""

    def parameters(self) -> dict[str, nn.Parameter]:
        return self.weights

    def groups(self, experiment: Experiment) -> list[dict[str, Any]]:
        return [{"params": list(self.parameters().values()), "lr": experiment.train.lr}]

    @contextmanager
    def attached(self) -> Iterator[None]:
        yield

    def begin_stage(self) -> None:
        """Nothing to do."""

    def inputs(self, features: FrozenFeatures, training: bool) -> TunerInputs:
        embedded, mask = plain_inputs(self.model, features)
        return TunerInputs(embedded, mask, embedded.new_zeros(()))

    def sites(self) -> dict[str, Site]:
        return {}

    def frozen_rows(self, name: str) -> Tensor | None:
        return None

    def end_stage(self) -> dict[str, float]:
        return {}

    def state(self) -> StageState:
        return StageState({name: parameter.detach().clone() for name, parameter in self.parameters().items()})

    def load(self, state: StageState) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters().items():
                parameter.copy_(state.tensors[name])
