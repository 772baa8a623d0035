"""What `projection.condition: attention` keeps, seen in the model's own first attention, and what it cannot keep."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mcit_core import subspace
from mcit_core.data.statistics import input_statistics
from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.protection.projection import BothSettings, ResidualSettings, space_at
from mcit_core.stages.keys import active_fields
from mcit_core.training.sequence import Sequence
from mcit_core.training.stage import stage_view


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return Workbench("tiny", "mini", "cpu")


def first_layer(bench: Workbench, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Scores [H, n, n] and outputs [n, d] of the first self-attention over rows [n, d], by the model's own modules."""
    layer: Any = bench.model.language_model.get_submodule("encoder.block.0.layer.0")
    attention = layer.SelfAttention
    normed = layer.layer_norm(rows)[None]
    q, k = (
        part(normed).unflatten(-1, (attention.n_heads, attention.key_value_proj_dim)).transpose(1, 2)
        for part in (attention.q, attention.k)
    )
    return (q @ k.transpose(2, 3))[0], attention(normed)[0][0]


@torch.no_grad()
def test_scores_with_old_rows_stay_and_the_values_that_they_read_do_not(bench: Workbench) -> None:
    draw = torch.Generator().manual_seed(0)
    old, prompt = bench.rows("ground", "train")[torch.arange(1)].visual[0, :7].split([6, 1])  # a prompt that is read
    claimed = subspace.leading(input_statistics(bench.model, old, "attention").gram, 1.0)
    assert claimed.shape[1] == 6 * 4  # a direction a row and head
    room = subspace.complement(claimed)
    inside = subspace.project(prompt, room)
    turned = subspace.project(torch.randn(1, 128, generator=draw), room)
    turned *= inside.norm() / turned.norm()  # the norm of the prompt stays, by which the layer divides
    moved = (prompt.double() - inside + turned).float()
    assert (moved - prompt).norm() > 0.5 * prompt.norm()
    scores, outputs = first_layer(bench, torch.cat([prompt, old]))
    scores_moved, outputs_moved = first_layer(bench, torch.cat([moved, old]))
    assert torch.allclose(scores[:, 1:], scores_moved[:, 1:], atol=1e-3 * float(scores.abs().max()))
    assert (outputs[1:] - outputs_moved[1:]).norm() > 0.01 * outputs[1:].norm()
    # the condition on the rows themselves does not keep the scores
    free = subspace.complement(subspace.leading(input_statistics(bench.model, old, "unit").gram, 1.0))
    inside = subspace.project(prompt, free)
    turned = subspace.project(torch.randn(1, 128, generator=draw), free)
    turned *= inside.norm() / turned.norm()
    scores_input, _ = first_layer(bench, torch.cat([(prompt.double() - inside + turned).float(), old]))
    change = (scores_input - scores)[:, 1:, 0].norm(), (scores_moved - scores)[:, 1:, 0].norm()
    assert change[0] > 50 * change[1]


def test_a_direction_is_the_score_of_the_models_own_modules(bench: Workbench) -> None:
    rows = torch.randn(5, 128, generator=torch.Generator().manual_seed(1))
    scores, _ = first_layer(bench, rows)
    layer: Any = bench.model.language_model.get_submodule("encoder.block.0.layer.0")
    divided = rows.square().mean(1).add(layer.layer_norm.variance_epsilon).sqrt()
    found = torch.einsum("nhd,md->hnm", bench.model.first_attention(rows), rows / divided[:, None])  # type: ignore[attr-defined]
    assert torch.allclose(found, scores, rtol=1e-4, atol=1e-4)


def test_it_bounds_another_space_and_counts_in_the_key(bench: Workbench) -> None:
    order = ("attribute", "ground")
    made = {}
    for condition in ("input", "attention"):
        config = build_experiment("tiny", "mini", "fwd_prompt", order, 0, {"projection.condition": condition})
        view = stage_view(config, bench, 1, None)
        settings = config.projection
        assert isinstance(settings, BothSettings)
        made[condition] = (space_at(settings, view).allowed, active_fields(config, 0), active_fields(config, 1))
    (one, first, second), (other, first_too, second_too) = made.values()
    assert one is not None
    assert other is not None
    assert one.shape != other.shape or not torch.allclose(one @ one.T, other @ other.T)
    assert first == first_too  # it is about claims, and a first stage is bounded by none
    assert second != second_too
    residual = {
        rows: build_experiment(
            "tiny",
            "mini",
            "fwd_prompt",
            order,
            0,
            {"projection.mode": "residual", "projection.condition": "attention", "projection.rows": rows},
        )
        for rows in ("unit", "raw")
    }
    assert all(isinstance(config.projection, ResidualSettings) for config in residual.values())
    assert active_fields(residual["unit"], 1) == active_fields(residual["raw"], 1)


class Mute:
    """A model that says nothing of its attention."""

    name = "mute"


def test_a_model_that_does_not_tell_is_refused_with_the_remedy() -> None:
    mute: Any = Mute()
    with pytest.raises(ValueError, match=r"condition: attention: model mute .*use projection\.condition: input"):
        input_statistics(mute, torch.zeros(2, 3), "attention")


@pytest.mark.parametrize("method", ["fwd_prompt", "pegp_prompt"])
def test_it_runs(method: str, bench: Workbench) -> None:
    settings = {"projection.condition": "attention", "train.steps": 2, "train.batch_size": 8}
    results = list(Sequence(build_experiment("tiny", "mini", method, ("attribute", "ground"), 0, settings), bench))
    assert results[-1].metrics["subspace/occupied"] > 0
