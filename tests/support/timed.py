"""Stored stages whose seconds are as a test wants them, for tests of plans."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from pydantic import JsonValue

from mcit_core.config import Experiment
from mcit_core.methods import build_experiment
from mcit_core.stages.digest import digest
from mcit_core.stages.fingerprint import stage_code
from mcit_core.stages.keys import stage_chain, stage_steps
from mcit_core.stages.looks import looks, untrained_looks
from mcit_core.stages.numerics import numerics
from mcit_core.stages.results import Cell, Evaluation, Measured
from orchestration.keep.stage_store import StageStore
from orchestration.plan.trials import Trial
from tests.support.storing import state


def experiment(
    method: str, seed: int = 0, order: tuple[str, ...] = ("attribute", "ground"), **settings: object
) -> Experiment:
    given = {"train.steps": 10, "evaluation.rows": 100, **{k.replace("__", "."): v for k, v in settings.items()}}
    return build_experiment("mini", "mini", method, order, seed, given)  # type: ignore[arg-type]


def trial(method: str, seed: int = 0, **settings: object) -> Trial:
    made = experiment(method, seed, **settings)
    swept = {k.replace("__", "."): v for k, v in settings.items() if not k.startswith(("train", "order"))}
    return Trial(f"{method}-{digest(made.model_dump(mode='json'))[:8]}", made, swept)  # type: ignore[arg-type]


def keep(
    folder: Path,
    experiments: Iterable[Experiment],
    step: Callable[[Experiment], float] = lambda one: 0.5,
    row: float = 0.01,
    fixed: float = 0.0,
    stages: int | None = None,
    device: str = "cpu",
    **metrics: float,
) -> None:
    """Put the first `stages` of each into the store at `folder`, trained in `fixed` seconds and `step` for each step,
    with their evaluations at `row` seconds a row."""
    store = StageStore(folder)
    common = {"device": device, "numerics": {**numerics(torch.device("cpu"))}, "weights": "w"}
    for one in experiments:
        data = dict.fromkeys(one.order, "d")
        chain = stage_chain(one, common, data, lambda names, one=one: stage_code(one, names))  # type: ignore[misc]
        for stage, key in enumerate(chain[:stages]):
            steps = stage_steps(one)
            seconds = {"seconds/train": fixed + steps * step(one), **metrics}
            store.put_stage(key, state(), Measured(seconds, {"loss": [0.5] * steps}))
            seen = looks(one, stage) + (untrained_looks(one) if stage == 0 else [])
            for number, (task, split) in enumerate(seen):
                most = None if split == "retention" else one.evaluation.rows
                rows = {"retention": 300, "validation": 200, "test": 500}[split]
                rows = min(rows, most or rows)
                before = stage == 0 and number >= len(looks(one, stage))
                made = seen_from(one, task, split, most, **({"untrained": True} if before else {}))
                found = Evaluation([Cell(task, split, 0.5, None, rows)], None, None, row * rows, made_from=made)
                store.put_evaluation(digest([key.key, number]), found, key.key)


def seen_from(one: Experiment, task: str, split: str, most: int | None, **other: JsonValue) -> dict[str, JsonValue]:
    """What an evaluation is made from, as far as a plan reads it."""
    return {
        **({} if most is None else {"rows": most}),
        **{"benchmark": one.benchmark, "model": one.model, "task": task, "data": {split: "d"}},
        **{"threads": one.train.threads, "precision": one.train.precision},
        **other,
    }
