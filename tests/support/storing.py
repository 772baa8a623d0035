"""Stages that take no time, for tests of the store."""

from __future__ import annotations

import torch

from mcit_core.stages.digest import digest
from mcit_core.stages.keys import StageKey
from mcit_core.stages.results import Cell, Evaluation, Measured
from mcit_core.stages.state import StageState
from orchestration.keep.stage_store import Trained

MEASURED = Measured({"loss/last": 0.1 + 0.2, "seconds/train": 1.0}, {"loss": [0.5, 0.3]})


def evaluation(value: float = 0.5, chosen: list[list[int]] | None = None) -> Evaluation:
    return Evaluation([Cell("ground", "test", value, 0.75, 10)], chosen, None, 0.25)


def stage_key(name: str = "a", parent: str | None = None) -> StageKey:
    made_from = {"parent": parent, "task": name, "fields": {"seed": 0}}
    return StageKey(digest(made_from), name, parent, made_from)


def state(value: float = 1.0) -> StageState:
    return StageState({"weights": torch.full((3, 2), value), "usage": torch.arange(4)})


def trained(value: float = 1.0) -> Trained:
    return state(value), MEASURED


def never() -> Trained:
    raise AssertionError("trained again")
