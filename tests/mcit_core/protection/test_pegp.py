"""PEGP's conditions for each form, on inputs that the test collects by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mcit_core.config import Experiment
from mcit_core.data.statistics import Statistics
from mcit_core.data.workbench import Workbench
from mcit_core.methods import PRESETS, build_experiment
from mcit_core.protection.bases import grown_bases, site_statistics
from mcit_core.protection.spaces import SpaceRule, grow, space_outside
from mcit_core.registry import TUNERS
from mcit_core.training.stage import build_tuner, train_stage
from mcit_core.training.step import Learner, train_step
from mcit_core.tuners import Tuner

FORMS = ("prompt", "prefix", "lora", "adapter", "moe_lora")
ORDER = ("attribute", "bars")
#: one old row has fewer tokens than every site is wide, so that room is left at threshold 1
WIDE = {
    "lora": {"lora.rank": 64},
    "adapter": {"adapter.bottleneck": 64},
    "prompt": {"prompt.length": 4},
    "moe_lora": {"options.rank": 64},
}


def experiment(form: str) -> Experiment:
    settings = {
        "train.steps": 6,
        "train.batch_size": 8,
        "projection.task_energy": 1.0,
        "projection.samples": 1,
        **WIDE.get(form, {}),
    }
    if f"pegp_{form}" in PRESETS:
        return build_experiment("tiny", "mini", f"pegp_{form}", ORDER, 0, settings)
    own = {"projection.mode": "pegp", "projection.energy_of": "total", "train.lr": TUNERS.built_in["lora"].lr}
    return build_experiment("tiny", "mini", form, ORDER, 0, {**settings, **own})


def forward(bench: Workbench, tuner: Tuner) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits of the first training row of the old task, and what each site was sent for it."""
    rows, index = bench.rows("attribute", "train"), torch.tensor([0])
    seen: dict[str, Tensor] = {}
    sites = tuner.sites()
    hooks = [
        site.module.register_forward_pre_hook(lambda _m, args, n=n: seen.__setitem__(n, args[0].detach()[0]))
        for n, site in sites.items()
    ]
    with torch.no_grad(), tuner.attached():
        inputs = tuner.inputs(rows[index], training=False)
        encoded = bench.model.read(rows[index], inputs.front)
        logits = bench.model.logits(encoded, rows.labels[index])
    for hook in hooks:
        hook.remove()
    masks = {side: mask[0] for side, mask in bench.model.row_masks(encoded, rows.labels[index]).items()}
    return logits[0][masks["decoder"]], {n: x[masks[sites[n].side]].double() for n, x in seen.items()}


def trained(bench: Workbench, config: Experiment, gradient_only: bool) -> tuple[Tuner, Tuner]:
    """The tuner before and after the second stage; `gradient_only`: no projection of the realised change."""
    first, _ = train_stage(config, bench, 0, None)
    before = build_tuner(config, bench, first.group(0))
    if not gradient_only:
        second, _ = train_stage(config, bench, 1, first)
        return before, build_tuner(config, bench, second.group(0))
    after = build_tuner(config, bench, first.group(0))
    after.begin_stage()
    rows = bench.rows("attribute", "train")
    rule = SpaceRule(**config.projection.model_dump(exclude={"samples", "rows", "condition"}))
    statistics = site_statistics(bench.model, after, rows, 1, "raw")
    bases = grown_bases(rule, {}, statistics, bench.model.device)
    spaces = {name: space_outside(bases[site]) for name, site in after.projected.items()}
    for name, parameter in after.parameters().items():
        if name in spaces:
            parameter.register_hook(lambda grad, space=spaces[name]: space.project(grad).to(grad.dtype))
    learner = Learner(bench.model, after, torch.optim.Adam(after.groups(config)), config.train)
    new = bench.rows(ORDER[1], "train")
    for step in range(config.train.steps):
        index = torch.arange(8 * step, 8 * step + 8)
        train_step(learner, new[index], new.labels[index])
    return before, after


def leak(bench: Workbench, before: Tuner, after: Tuner) -> float:
    """Over all projected tensors the largest |X Δᵀ| / |X Wᵀ|; every one of them must have moved."""
    _, seen = forward(bench, before)
    worst = 0.0
    for name, site in before.projected.items():
        old, x = before.parameters()[name].detach().double(), seen[site]
        change = after.parameters()[name].detach().double() - old
        assert len(x) < x.shape[1], (name, x.shape)
        assert change.norm() > 1e-4 * old.norm().clamp(min=1e-3), name
        worst = max(worst, float((x @ change.T).norm() / (x @ old.T).norm()))
    return worst


@pytest.mark.parametrize("form", FORMS)
def test_what_old_inputs_meet_does_not_change(form: str, bench: Workbench) -> None:
    before, after = trained(bench, experiment(form), gradient_only=False)
    assert leak(bench, before, after) < 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_projecting_the_gradient_alone_is_not_enough(form: str, bench: Workbench) -> None:
    before, after = trained(bench, experiment(form), gradient_only=True)
    assert leak(bench, before, after) > 1e-3


@pytest.mark.parametrize("form", ["lora", "adapter"])
def test_the_answer_to_an_old_row_stays(form: str, bench: Workbench) -> None:
    """For the two forms that act on inputs alone the whole model's output stays; prompts and prefixes do not promise
    it, since values change and attention reads keys."""
    before, after = trained(bench, experiment(form), gradient_only=False)
    old, new = forward(bench, before)[0], forward(bench, after)[0]
    assert (new - old).norm() < 1e-4 * old.norm()
    unprotected = build_experiment(
        "tiny", "mini", f"sequential_{form}", ORDER, 0, {"train.steps": 6, "train.batch_size": 8, **WIDE.get(form, {})}
    )
    first, _ = train_stage(unprotected, bench, 0, None)
    second, _ = train_stage(unprotected, bench, 1, first)
    moved = forward(bench, build_tuner(unprotected, bench, second.group(0)))[0]
    assert (moved - forward(bench, build_tuner(unprotected, bench, first.group(0)))[0]).norm() > 1e-2 * old.norm()


def test_a_full_basis_freezes_the_tensor_and_says_so(bench: Workbench) -> None:
    config = build_experiment(
        "tiny",
        "mini",
        "pegp_lora",
        ORDER,
        0,
        {"train.steps": 3, "train.batch_size": 8, "lora.rank": 2, "projection.task_energy": 1.0},
    )
    first, _ = train_stage(config, bench, 0, None)
    with pytest.warns(UserWarning, match="do not move"):
        second, _ = train_stage(config, bench, 1, first)
    one, two = (build_tuner(config, bench, state.group(0)).parameters() for state in (first, second))
    assert all(torch.equal(one[name], two[name]) for name in one if name.startswith("B."))


def test_the_basis_grows_by_the_rule_of_gpm() -> None:
    """By hand: energies 8, 1, 1 along the axes. Threshold 0.85 takes the first two of them; a second task of energies
    0, 0, 4 finds nothing of it captured and takes the third; a task inside the basis adds nothing."""
    config = SpaceRule(mode="pegp", task_energy=0.85, energy_of="total")
    empty = torch.zeros(3, 0, dtype=torch.float64)
    basis = grow(config, empty, Statistics(torch.diag(torch.tensor([8.0, 1.5, 0.5]).double()), torch.zeros(3), 10))
    assert basis.shape[1] == 2
    assert torch.allclose((basis @ basis.T).diagonal(), torch.tensor([1.0, 1.0, 0.0]).double())
    inside = Statistics(torch.diag(torch.tensor([3.0, 1.0, 0.0]).double()), torch.zeros(3), 10)
    assert torch.equal(grow(config, basis, inside), basis)
    outside = Statistics(torch.diag(torch.tensor([0.0, 0.0, 4.0]).double()), torch.zeros(3), 10)
    assert grow(config, basis, outside).shape[1] == 3
