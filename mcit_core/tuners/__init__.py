"""The Tuner contract: what is trained on top of the frozen model.

A tuner is built by `build(experiment, model, queries)`. It changes the model only inside `attached()`; outside, the
model is bit-equal to the pre-trained one, so several tuners can share one model. `BaseTuner` has a default for
everything but the parameters; docs/extending.md shows how to write one. Register a tuner in `mcit_core.registry` or
through the entry-point group `mcit_core.tuners`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, Self, TypedDict, runtime_checkable

import torch
from torch import Tensor, nn

from mcit_core.config import Experiment, Value
from mcit_core.data.statistics import QueryStatistics
from mcit_core.models import Batch, Model, Side
from mcit_core.stages.state import StageState


@dataclass(frozen=True)
class TunerInputs:
    extra_loss: Tensor  # scalar, added to the answer's cross-entropy
    front: Tensor | None = None  # [N, m, d] what the model reads beside its rows, at its own place for it
    chosen: Tensor | None = None  # [N, K] which parts of the tuner each row used


@dataclass(frozen=True)
class Site:
    """Where a projected tensor meets its inputs: the input rows [..., width] of `module`; `side` says whose padding
    counts, that of the model's input or that of the answer; `front` that the rows are the model's input itself, which
    no layer has normed yet."""

    module: nn.Module
    side: Side = "encoder"
    front: bool = False


@runtime_checkable
class ChoosesByKeys(Protocol):
    """What a tuner has besides that chooses what it trains by comparing queries with keys."""

    def key_queries(self, batch: Batch) -> dict[str, Tensor]:
        """Name of a parameter that holds keys, one a row -> the queries that they are compared with, [N, width]."""


@runtime_checkable
class CountsRows(Protocol):
    """What a tuner has besides that counts in `inputs` something of the rows that it trains on. In a trial of several
    processes each counts its own rows."""

    def counted_rows(self) -> list[Tensor]:
        """The counters themselves, holding whole numbers. Before `end_stage` they are set to the counts of all
        processes."""


class ParameterGroup(TypedDict):
    """A group of parameters as torch's optimizers take it."""

    params: list[nn.Parameter]
    lr: float


class Tuner(Protocol):
    """What is trained. `projected`: parameter name -> name of the site whose inputs its last axis meets."""

    projected: dict[str, str]

    @classmethod
    def build(cls, experiment: Experiment, model: Model, queries: QueryStatistics) -> Tuner:
        """A new tuner, its start a function of the experiment's seed alone. Called for every stage and evaluation."""

    def parameters(self) -> dict[str, nn.Parameter]:
        """Every trained tensor by name, float32 on the model's device; the same objects at every call."""

    def groups(self, experiment: Experiment) -> list[ParameterGroup]:
        """The parameters with their learning rates, each in one group. Called once, when a stage begins."""

    def attached(self) -> AbstractContextManager[None]:
        """Inside, the model computes with the tuner; outside, also after an error, it is bit-equal to the pre-trained
        one. Entered for every forward pass."""

    def begin_stage(self) -> None:
        """Called once a stage, after `load` and before the first step."""

    def inputs(self, batch: Batch, training: bool) -> TunerInputs:
        """What the tuner adds to a batch. Called while attached; `training` is False in evaluation."""

    def sites(self) -> dict[str, Site]:
        """Where projected tensors meet their inputs, by name; empty where nothing inside the model is tuned."""

    def frozen_rows(self, name: str) -> Tensor | None:
        """bool [rows]: rows of a parameter that a step must leave alone, or None. Called at every step."""

    def end_stage(self) -> dict[str, float]:
        """Called after the last step; returns metrics of the stage by name."""

    def state(self) -> StageState:
        """All that a later stage and evaluation need, as tensors by name."""

    def load(self, state: StageState) -> None:
        """Take over what `state` of a stage before left. Tensors of other names (of protections) may be in it."""


class BaseTuner:
    """A tuner whose state is its parameters, and which puts nothing in front of the model."""

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
    def check_options(cls, options: dict[str, Value]) -> None:
        """Called before anything runs. Raises ValueError naming the key, what is allowed and what was given."""

    def parameters(self) -> dict[str, nn.Parameter]:
        return self.weights

    def groups(self, experiment: Experiment) -> list[ParameterGroup]:
        return [{"params": list(self.parameters().values()), "lr": experiment.train.lr}]

    @contextmanager
    def attached(self) -> Iterator[None]:
        yield

    def begin_stage(self) -> None:
        """Nothing to do."""

    def inputs(self, batch: Batch, training: bool) -> TunerInputs:
        return TunerInputs(torch.zeros((), device=self.model.device))

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
