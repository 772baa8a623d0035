"""Optimizer, schedule and accumulation: the settings that papers train with."""

from __future__ import annotations

import math

import pytest
import torch

from mcit_core.config import Experiment, Train, Value
from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.training.stage import build_tuner, train_stage
from mcit_core.training.step import Learner, optimizer_of, scheduler_of, train_step
from mcit_core.tuners import Tuner

ORDER = ("attribute", "ground")


def experiment(method: str = "sequential_lora", **settings: Value) -> Experiment:
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    return build_experiment("tiny", "tiny", method, ORDER, 0, {"train.steps": 4, "train.batch_size": 8, **dotted})


@pytest.mark.parametrize(
    "method", ["sequential_lora", "fwd_prompt", "pegp_lora", "ewc", "lwf", "o_lora", "er", "llaca"]
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
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-4, atol=1e-7), name


def test_adamw_decays_what_is_not_projected(bench: Workbench) -> None:
    decay = {"train__optimizer": "adamw", "train__weight_decay": 0.1}
    plain = experiment(**decay)
    tuner = build_tuner(plain, bench, None)
    assert {group["weight_decay"] for group in optimizer_of(tuner, plain).param_groups} == {0.1}
    projected = experiment("pegp_lora", **decay)
    tuner = build_tuner(projected, bench, None)
    optimizer = optimizer_of(tuner, projected)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(tuner.parameters())
    pool = experiment("fwd_prompt", **decay)
    tuner = build_tuner(pool, bench, None)
    found = {id(p): group["weight_decay"] for group in optimizer_of(tuner, pool).param_groups for p in group["params"]}
    assert found[id(tuner.parameters()["prompts"])] == 0.0
    assert found[id(tuner.parameters()["image_keys"])] == 0.1


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
    with pytest.raises(ValueError, match="accumulate 9 is more than batch_size 8: a part is empty"):
        Train(batch_size=8, accumulate=9)


def test_they_are_in_a_stages_key() -> None:
    from mcit_core.stages.keys import stage_chain

    usual = stage_chain(experiment(), {}, {})[0].key
    for name, value in {"accumulate": 2, "optimizer": "adamw", "schedule": "cosine", "warmup": 0.1}.items():
        assert stage_chain(experiment(**{f"train__{name}": value}), {}, {})[0].key != usual, name
