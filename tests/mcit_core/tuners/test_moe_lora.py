"""MoELoRA by hand: the stacked experts against a loop, its size, and the options that it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from mcit_core.config import Experiment
from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.registry import TUNERS, TunerPart
from mcit_core.training.stage import build_tuner, train_stage


def experiment(tuner: str, settings: dict[str, Any] | None = None) -> Experiment:
    return build_experiment("tiny", "mini", tuner, ("attribute",), 0, settings or {})


def test_a_site_computes_the_sum_over_experts(bench: Workbench) -> None:
    experts, rank, alpha = 3, 6, 5.0
    options = {"options.experts": experts, "options.rank": rank, "options.alpha": alpha}
    tuner = build_tuner(experiment("moe_lora", options), bench, None)
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in tuner.parameters().values():
            parameter.copy_(torch.randn(parameter.shape, generator=draws))
    for site in bench.model.linear_sites():
        layer = bench.model.language_model.get_submodule(site)
        a, b, g = (tuner.parameters()[f"{matrix}.{site}"] for matrix in "ABG")
        assert (len(a), b.shape[1], len(g)) == (rank, rank, experts)
        x = torch.randn(2, 5, a.shape[1], generator=draws)
        with torch.no_grad():
            plain = layer(x)
            with tuner.attached():
                tuned = layer(x)
            expected = plain.clone()
            for n in range(2):
                for token in range(5):
                    gates = torch.softmax(g @ x[n, token], 0)
                    for e in range(experts):
                        own = slice(2 * e, 2 * e + 2)
                        expected[n, token] += alpha / rank * gates[e] * (b[:, own] @ (a[own] @ x[n, token]))
        assert not torch.allclose(tuned, plain)
        torch.testing.assert_close(tuned, expected, rtol=1e-4, atol=1e-4)


def test_it_is_as_large_as_lora_and_its_routers(bench: Workbench) -> None:
    lora = build_tuner(experiment("lora", {"lora.rank": 8}), bench, None).parameters()
    mixture = build_tuner(experiment("moe_lora", {"options.rank": 8}), bench, None).parameters()
    routers = {name: tensor for name, tensor in mixture.items() if name.startswith("G.")}
    widths = [
        bench.model.language_model.get_submodule(site).get_parameter("weight").shape[1]
        for site in bench.model.linear_sites()
    ]
    assert sum(tensor.numel() for tensor in routers.values()) == 4 * sum(widths)
    assert {name: tensor.shape for name, tensor in mixture.items() if name not in routers} == {
        name: tensor.shape for name, tensor in lora.items()
    }


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        ({"expert": 4}, ("options.expert ", "options.experts, options.rank, options.alpha")),
        ({"experts": 0}, ("options.experts", "at least 1", "got 0")),
        ({"experts": True}, ("options.experts", "whole number", "got True")),
        ({"rank": 8.0}, ("options.rank", "whole number", "got 8.0")),
        ({"experts": 3}, ("options.rank", "multiple of options.experts (3)", "got 8")),
        ({"alpha": -1}, ("options.alpha", "above 0", "got -1")),
        ({"alpha": "16"}, ("options.alpha", "number", "got '16'")),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, Any], fragments: tuple[str, ...]) -> None:
    settings = {f"options.{key}": value for key, value in options.items()}
    with pytest.raises(ValueError, match="options") as refusal:
        experiment("moe_lora", settings)
    assert all(fragment in str(refusal.value) for fragment in fragments)


def test_fwd_prompts_modes_are_refused_where_nothing_is_a_row_of_the_input() -> None:
    with pytest.raises(ValidationError, match=r"tuner moe_lora trains nothing; use projection.mode pegp"):
        experiment("moe_lora", {"projection.mode": "pretrained"})


def test_a_tuner_of_which_nothing_is_known_is_refused_when_its_stage_begins(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TUNERS.built_in, "unknown", TunerPart("mcit_core.tuners.moe_lora:MoeLora"))
    config = experiment("unknown", {"projection.mode": "pretrained"})
    with pytest.raises(ValueError, match=r"pretrained: tuner unknown trains no rows.*projection.mode pegp"):
        train_stage(config, bench, 0, None)
