"""The contract that every registered tuner keeps; a new one joins by its registry line alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mcit_core.config import Experiment
from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.registry import TUNERS
from mcit_core.stages.state import StageState
from mcit_core.training.stage import build_tuner, train_stage
from mcit_core.training.step import Learner, train_step
from mcit_core.tuners import Tuner, plain_inputs

NAMES = [name for name in TUNERS.names() if name not in ("failing", "noting")]  # the tests' own, broken on purpose
#: tuners that promise to change nothing before they are trained; the others put something in front
NEUTRAL = {"lora", "o_lora", "moe_lora", "adapter", "full"}
ORDER = ("attribute", "ground")


def experiment(tuner: str) -> Experiment:
    settings = {"train.steps": 4, "train.batch_size": 8, "train.lr": 0.01, "train.clip": None}
    return build_experiment("tiny", "mini", tuner, ORDER, 0, settings)


def logits(bench: Workbench, tuner: Tuner | None) -> Tensor:
    rows = bench.rows("attribute", "train")
    index = torch.arange(8)
    with torch.no_grad():
        if tuner is None:
            return bench.model.logits(bench.model.encoder(*plain_inputs(bench.model, rows[index])), rows.labels[index])
        with tuner.attached():
            inputs = tuner.inputs(rows[index], training=False)
            return bench.model.logits(bench.model.encoder(inputs.embedded, inputs.mask), rows.labels[index])


def weights_of(bench: Workbench) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in bench.model.language_model.state_dict().items()}


def stepped(bench: Workbench, tuner: Tuner, config: Experiment, steps: int) -> None:
    learner = Learner(bench.model, tuner, torch.optim.Adam(tuner.groups(config)), config.train)
    rows = bench.rows("attribute", "train")
    for step in range(steps):
        index = torch.arange(8 * step, 8 * step + 8)
        train_step(learner, rows[index], rows.labels[index])


@pytest.mark.parametrize("name", NAMES)
def test_attaching_changes_nothing_where_that_is_promised(name: str, bench: Workbench) -> None:
    plain, tuned = logits(bench, None), logits(bench, build_tuner(experiment(name), bench, None))
    assert torch.equal(plain, tuned) == (name in NEUTRAL)


@pytest.mark.parametrize("name", NAMES)
def test_detaching_restores_the_model_to_the_last_bit(name: str, bench: Workbench) -> None:
    plain, before = logits(bench, None), weights_of(bench)
    modules = dict(bench.model.language_model.named_modules())
    tuner = build_tuner(experiment(name), bench, None)
    tuner.begin_stage()
    stepped(bench, tuner, experiment(name), 3)
    assert not torch.equal(logits(bench, tuner), plain)
    after = weights_of(bench)
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert dict(bench.model.language_model.named_modules()) == modules
    assert torch.equal(logits(bench, None), plain)


@pytest.mark.parametrize("name", NAMES)
def test_an_error_inside_leaves_the_model_detached(name: str, bench: Workbench) -> None:
    plain = logits(bench, None)
    tuner = build_tuner(experiment(name), bench, None)
    with torch.no_grad():
        for parameter in tuner.parameters().values():
            parameter.add_(0.5)
    with pytest.raises(RuntimeError, match="inside"), tuner.attached():
        raise RuntimeError("inside")
    assert torch.equal(logits(bench, None), plain)


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_that_is_declared_trains_and_no_other(name: str, bench: Workbench) -> None:
    config = experiment(name)
    tuner = build_tuner(config, bench, None)
    tuner.begin_stage()
    declared = tuner.parameters()
    grouped = {id(p) for group in tuner.groups(config) for p in group["params"]}
    assert grouped == {id(p) for p in declared.values()}
    start = {key: p.detach().clone() for key, p in declared.items()}
    stepped(bench, tuner, config, 3)  # from the second step on LoRA's A has a gradient: B has left zero
    for key, parameter in declared.items():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None, key
        assert parameter.grad.any(), key
        assert not torch.equal(parameter, start[key]), key
    assert all(p.grad is None for p in bench.model.language_model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_its_state_saves_and_loads_to_the_last_bit(name: str, bench: Workbench, tmp_path: Path) -> None:
    config = experiment(name)
    first, _ = train_stage(config, bench, 0, None)
    second, _ = train_stage(config, bench, 1, first)
    for state in (first, second):
        state.save(tmp_path / "state.safetensors")
        loaded = StageState.load(tmp_path / "state.safetensors")
        assert loaded.equals(state)
        one, other = (build_tuner(config, bench, s.group(0)) for s in (state, loaded))
        assert torch.equal(logits(bench, one), logits(bench, other))
        assert one.state().equals(other.state())


@pytest.mark.parametrize("name", NAMES)
def test_two_tuners_share_one_model(name: str, bench: Workbench) -> None:
    one, other = (build_tuner(experiment(name), bench, None) for _ in range(2))
    untrained = logits(bench, other)
    stepped(bench, one, experiment(name), 2)
    assert torch.equal(logits(bench, other), untrained)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_projected_has_a_site_of_its_width(name: str, bench: Workbench) -> None:
    tuner = build_tuner(experiment(name), bench, None)
    declared, sites = tuner.parameters(), tuner.sites()
    for key, site in tuner.projected.items():
        assert key in declared
        if sites:
            assert site in sites
    seen: dict[str, int] = {}
    hooks = [
        site.module.register_forward_pre_hook(lambda _m, args, n=n: seen.__setitem__(n, args[0].shape[-1]))
        for n, site in sites.items()
    ]
    logits(bench, tuner)
    for hook in hooks:
        hook.remove()
    assert set(seen) == set(sites)
    for key, site in tuner.projected.items():
        if sites:
            assert declared[key].shape[-1] == seen[site]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_start(name: str, bench: Workbench) -> None:
    torch.manual_seed(1)
    one = build_tuner(experiment(name), bench, None).state()
    torch.manual_seed(2)
    assert one.equals(build_tuner(experiment(name), bench, None).state())
