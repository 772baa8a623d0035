"""Optimizer, schedule and accumulation: the settings that papers train with."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mcit_core.config import Experiment, Train, Value
from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.protection.projection import space_at
from mcit_core.stages.keys import JOINT, NOMINAL_ROWS, active_fields, stage_chain, stage_steps
from mcit_core.training.batches import batches
from mcit_core.training.stage import build_tuner, stage_view, train_stage
from mcit_core.training.step import Learner, optimizer_of, scheduler_of, train_step
from mcit_core.tuners import Tuner

ORDER = ("attribute", "ground")


def experiment(method: str = "sequential_lora", **settings: Value) -> Experiment:
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    return build_experiment("tiny", "tiny", method, ORDER, 0, {"train.steps": 4, "train.batch_size": 8, **dotted})


@pytest.mark.parametrize(
    "method", ["sequential_lora", "fwd_prompt", "pegp_lora", "ewc", "lwf", "o_lora", "er", "ema_taylor"]
)
@pytest.mark.filterwarnings("ignore:.*the space asked for is used up")
def test_a_batch_in_parts_is_the_batch(method: str, bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two stages, so that what protects the first has something to say; by plain descent, since Adam's first step
    goes by the sign of what may be rounding."""

    def descent(tuner: Tuner, _experiment: Experiment) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for p in tuner.parameters().values() if p.requires_grad], lr=0.01)

    monkeypatch.setattr("mcit_core.training.stage.optimizer_of", descent)
    states = []
    for accumulate in (1, 3):
        config = experiment(method, train__accumulate=accumulate, train__steps=2)
        first, _ = train_stage(config, bench, 0, None)
        second, measured = train_stage(config, bench, 1, first)
        states.append((second.group(0).tensors, measured.traces["loss"]))
    (whole, losses), (parts, other) = states
    assert losses == pytest.approx(other, rel=1e-5)
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        assert torch.allclose(tensor, parts[name], rtol=1e-4, atol=1e-5), name


def test_the_shares_of_parts_are_those_of_tokens_and_rows(bench: Workbench) -> None:
    """By hand: the gradient of a mean over all tokens, where parts have answers of different lengths."""
    rows = bench.rows("attribute", "train")
    index = (rows.labels != -100).sum(1).argsort()[torch.tensor([0, 1, 30, 31, -2, -1])]
    lengths = (rows.labels[index] != -100).sum(1)
    assert lengths[:2].sum() != lengths[4:].sum()  # or shares of rows would do
    gradients = []
    for accumulate in (1, 3):
        config = experiment(train__accumulate=accumulate, train__clip=None)
        tuner = build_tuner(config, bench, None)
        tuner.begin_stage()
        learner = Learner(bench.model, tuner, torch.optim.SGD(tuner.parameters().values(), lr=0.0), config.train)
        train_step(learner, rows[index], rows.labels[index])
        gradients.append({name: value.grad for name, value in tuner.parameters().items()})
    for name, gradient in gradients[0].items():
        assert gradient is not None
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-3, atol=2e-6), name


DECAY: dict[str, Value] = {"train__optimizer": "adamw", "train__weight_decay": 0.5}


def test_adamw_decays_every_group(bench: Workbench) -> None:
    config = experiment("fwd_prompt", **DECAY)
    optimizer = optimizer_of(build_tuner(config, bench, None), config)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.5]


def test_equal_keys_give_equal_weights(bench: Workbench) -> None:
    """A first stage with nothing to project yet is that of the unprotected method, decay and all."""
    chains, states = [], []
    for method in ("sequential_lora", "pegp_lora"):
        config = experiment(method, **DECAY)
        chains.append(stage_chain(config, {}, {})[0].key)
        states.append(train_stage(config, bench, 0, None)[0])
    assert chains[0] == chains[1]
    assert states[0].equals(states[1])


@pytest.mark.parametrize("method", ["fwd_prompt", "fwd_prompt_freeze"])
def test_what_is_frozen_does_not_decay(method: str, bench: Workbench) -> None:
    config = experiment(method, **DECAY)
    first, _ = train_stage(config, bench, 0, None)
    tuner = build_tuner(config, bench, first.group(0))
    tuner.begin_stage()
    rows = tuner.frozen_rows("image_keys")
    assert rows is not None
    assert rows.any()
    second, _ = train_stage(config, bench, 1, first)
    for name in ("prompts", "image_keys", "text_keys"):
        before, after = (state.group(0).tensors[name] for state in (first, second))
        assert torch.equal(before[rows], after[rows]), name
        assert not torch.equal(before[~rows], after[~rows]), name


def test_decay_stays_in_the_space_that_a_stage_may_move_in(bench: Workbench) -> None:
    config = experiment("fwd_prompt", **DECAY, **{"pool__reuse": "share"})
    first, _ = train_stage(config, bench, 0, None)
    second, _ = train_stage(config, bench, 1, first)
    view = stage_view(config, bench, 1, None)
    space = space_at(config.projection, view)
    moved = (second.group(0).tensors["prompts"] - first.group(0).tensors["prompts"]).flatten(0, 1)
    outside = moved.double() - space.project(moved)
    assert moved.norm() > 1
    assert outside.norm() < 1e-4 * moved.norm()


def test_the_rate_rises_and_falls_by_hand(bench: Workbench) -> None:
    def rates(**settings: Value) -> list[float]:
        config = experiment(train__lr=0.2, **settings)
        optimizer = optimizer_of(build_tuner(config, bench, None), config)
        scheduler = scheduler_of(optimizer, config.train, 10)
        found = []
        for _ in range(10):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return found

    assert rates() == [0.2] * 10
    assert rates(train__warmup=0.2) == [0.0, 0.1, *[0.2] * 8]
    cosine = rates(train__schedule="cosine", train__warmup=0.2)
    assert cosine == pytest.approx([0.0, 0.1, *(0.1 * (1 + math.cos(math.pi * i / 8)) for i in range(8))])


def test_a_setting_without_effect_is_refused() -> None:
    with pytest.raises(ValueError, match="weight_decay is set, but optimizer adam has none; set optimizer: adamw"):
        Train(weight_decay=0.1)
    for steps, share in ((1, 0.6), (10, 0.01)):
        with pytest.raises(ValueError, match=rf"warmup {share} is none or all of {steps} steps; leave it out"):
            Train(steps=steps, warmup=share)
    with pytest.raises(ValueError, match="accumulate 9 is more than batch_size 8: a part is empty"):
        Train(batch_size=8, accumulate=9)


def test_they_are_in_a_stages_key() -> None:
    usual = stage_chain(experiment(), {}, {})[0].key
    for name, value in {"accumulate": 2, "optimizer": "adamw", "schedule": "cosine", "warmup": 0.25}.items():
        assert stage_chain(experiment(**{f"train__{name}": value}), {}, {})[0].key != usual, name


def test_epochs_are_passes_over_a_stages_rows(bench: Workbench) -> None:
    """The same steps, told in passes; a plan, which does not know the rows, guesses."""
    order = ("attribute", "ground")
    rows = {task: len(bench.rows(task, "train")) for task in order}

    def made(method: str = "sequential", **train: Value) -> Experiment:
        given = {f"train.{name}": value for name, value in train.items()}
        return build_experiment("tiny", "tiny", method, order, 0, {"train.batch_size": 24, **given})

    by_epochs, by_steps = made(epochs=0.5), made(steps=math.ceil(0.5 * rows["attribute"] / 24))
    (state, measured), (other, told) = (train_stage(one, bench, 0, None) for one in (by_epochs, by_steps))
    assert measured.traces["loss"] == told.traces["loss"]
    weights, others = state.group(0), other.group(0)
    assert weights
    assert others
    assert all(torch.equal(weights.tensors[name], others.tensors[name]) for name in weights.tensors)
    joint = made("multitask", epochs=0.5)
    assert len(list(batches(joint, bench, JOINT))) == math.ceil(0.5 * sum(rows.values()) / 24)
    assert stage_steps(by_epochs) == math.ceil(0.5 * NOMINAL_ROWS / 24)
    assert stage_steps(joint) == math.ceil(0.5 * 2 * NOMINAL_ROWS / 24)


def test_steps_beside_epochs_are_no_setting() -> None:
    def fields(**train: Value) -> object:
        given = {f"train.{name}": value for name, value in train.items()}
        return active_fields(build_experiment("mini", "mini", "sequential", ("attribute",), 0, given), 0)["train"]

    assert fields(epochs=1, steps=10) == fields(epochs=1, steps=20) != fields(epochs=2)
    assert "epochs" not in str(fields(steps=10))


def test_a_stage_ends_soon_after_a_loss_that_is_not_finite(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are fetched at every tenth step, so that a GPU is not waited for at every one."""
    taken: list[int] = []
    whole = train_step

    def step(*given: Any, **more: Any) -> Tensor:
        taken.append(len(taken))
        return whole(*given, **more) * (math.nan if len(taken) > 3 else 1)

    monkeypatch.setattr("mcit_core.training.stage.train_step", step)
    with pytest.raises(FloatingPointError, match=r"the loss of step 3 is nan; lower train\.lr"):
        train_stage(experiment(train__steps=25), bench, 0, None)
    assert len(taken) == 11
    taken.clear()
    with pytest.raises(FloatingPointError, match="the loss of step 3 is nan"):
        train_stage(experiment(train__steps=5, train__accumulate=2), bench, 0, None)


@pytest.mark.parametrize("targets", [["q", "v"], ["v", "q", "q"]])
def test_one_choice_of_matrices_has_one_key(targets: list[str]) -> None:
    one = active_fields(experiment(lora__targets=["q", "v"]), 0)
    assert active_fields(experiment(lora__targets=[*targets]), 0) == one
    with pytest.raises(ValueError, match="all is no name of a matrix; give it alone"):
        experiment(lora__targets=["all"])
