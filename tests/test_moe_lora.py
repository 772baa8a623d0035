"""The mixture of low-rank experts, against its formula written out expert by expert."""

from __future__ import annotations

import pytest
import torch

from mcit_core.config import Experiment
from mcit_core.methods import build_experiment
from mcit_core.sequence import build_tuner
from mcit_core.workbench import Workbench


def experiment(**options: object) -> Experiment:
    return build_experiment("tiny", "mini", "moe_lora", ("attribute", "ground"), 0, {"options": options})


def test_a_layer_gains_the_weighted_sum_of_its_experts(bench: Workbench) -> None:
    tuner = build_tuner(experiment(experts=2, rank=6, alpha=3), bench, None)
    weights, site = tuner.parameters(), next(iter(bench.model.linear_sites()))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in weights.values():
            weight.copy_(torch.randn(weight.shape, generator=draw))
    layer = bench.model.language_model.get_submodule(site)
    x = torch.randn(5, 7, weights[f"A.{site}"].shape[1], generator=draw)
    with torch.no_grad():
        plain = layer(x)
        with tuner.attached():
            tuned = layer(x)
        gates = torch.softmax(x @ weights[f"router.{site}"].T, -1)
        wanted = plain.clone()
        for expert in range(2):
            own = slice(3 * expert, 3 * expert + 3)
            low = x @ weights[f"A.{site}"][own].T
            wanted += 3 / 6 * gates[..., expert, None] * (low @ weights[f"B.{site}"][:, own].T)
    assert torch.allclose(tuned, wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(tuned, plain)


def test_one_expert_is_a_plain_low_rank_update(bench: Workbench) -> None:
    tuner = build_tuner(experiment(experts=1), bench, None)
    weights, site = tuner.parameters(), next(iter(bench.model.linear_sites()))
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(4, weights[f"A.{site}"].shape[1], generator=draw)
    layer = bench.model.language_model.get_submodule(site)
    with torch.no_grad():
        weights[f"B.{site}"].normal_(generator=draw)
        weights[f"router.{site}"].normal_(generator=draw)
        plain = layer(x)
        with tuner.attached():
            tuned = layer(x)
        update = 16 / 8 * weights[f"B.{site}"] @ weights[f"A.{site}"]
    assert torch.allclose(tuned, plain + x @ update.T, rtol=1e-4, atol=1e-4)


def test_it_has_loras_parameters_and_the_routers(bench: Workbench) -> None:
    lora = build_tuner(build_experiment("tiny", "mini", "lora", ("attribute",)), bench, None).parameters()
    mixture = build_tuner(experiment(), bench, None).parameters()
    routers = sum(w.numel() for name, w in mixture.items() if name.startswith("router."))
    assert sum(w.numel() for w in mixture.values()) == sum(w.numel() for w in lora.values()) + routers


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"expert": 4}, r"options.expert: moe_lora knows options.experts"),
        ({"experts": 0}, r"options.experts: expected a whole number of at least 1, got 0"),
        ({"rank": 8.0}, r"options.rank: expected a whole number"),
        ({"experts": 3}, r"options.rank: 3 experts .* cannot share a rank of 8"),
    ],
)
def test_wrong_options_are_refused_with_their_key(options: dict[str, object], fragment: str, bench: Workbench) -> None:
    with pytest.raises(ValueError, match=fragment):
        build_tuner(experiment(**options), bench, None)
