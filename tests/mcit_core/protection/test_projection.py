"""Laws of the four modes, and of the step that applies them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from mcit_core import subspace
from mcit_core.config import Section, Train
from mcit_core.data.statistics import Statistics, row_statistics
from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.models.mini import FrozenFeatures
from mcit_core.protection import Protection, spaces
from mcit_core.protection.bases import site_statistics
from mcit_core.protection.spaces import Projector, Space, SpaceRule, grow, space_outside, stage_space
from mcit_core.training.stage import build_tuner, train_stage
from mcit_core.training.step import Learner, fetched, train_step
from mcit_core.tuners import TunerInputs

D = 12


def statistics(rank: int, seed: int, d: int = D) -> Statistics:
    rows = torch.randn(200, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mix = torch.randn(rank, d, generator=torch.Generator().manual_seed(seed + 100), dtype=torch.float64)
    x = rows @ mix
    return Statistics(x.T @ x, x.sum(0), len(x))


def orthonormal(basis: Tensor) -> bool:
    return bool(torch.allclose(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64), atol=1e-10))


TASKS = [statistics(4, seed) for seed in range(4)]
PRETRAINING = statistics(9, 77)


def test_none_allows_everything_and_claims_nothing() -> None:
    space = stage_space(SpaceRule(mode="none"), TASKS, PRETRAINING, 4)
    assert space.allowed is None
    assert space.occupied.shape == (D, 0)
    rows = torch.randn(3, D)
    assert torch.equal(space.project(rows), rows.double())


@given(st.integers(1, 3), st.floats(0.05, 1.0))
@settings(max_examples=30, derandomize=True, deadline=None)
def test_residual_leaves_every_claimed_direction_alone(stage: int, energy: float) -> None:
    config = SpaceRule(mode="residual", task_energy=energy)
    space = stage_space(config, TASKS[: stage + 1], PRETRAINING, 4)
    assert space.allowed is not None
    assert orthonormal(space.allowed)
    assert space.allowed.shape[1] == D - space.occupied.shape[1]
    assert torch.linalg.norm(space.occupied.T @ space.allowed) < 1e-10
    # what the last stage claims is the leading part of ITS energy outside the occupied space
    gram = subspace.residual(TASKS[stage].gram, space.occupied)
    kept = (space.claimed.T @ gram @ space.claimed).trace() / gram.trace() if gram.trace() > 1e-9 else torch.tensor(1.0)
    assert kept >= energy - 1e-9


def test_pretrained_stays_inside_and_claims_nothing() -> None:
    space = stage_space(SpaceRule(mode="pretrained", pretrained_energy=0.9), TASKS, PRETRAINING, 4)
    expected = subspace.leading(PRETRAINING.gram, 0.9)
    assert space.allowed is not None
    assert torch.allclose(space.allowed @ space.allowed.T, expected @ expected.T, atol=1e-9)
    assert space.claimed.shape[1] == 0


@given(st.integers(0, 3), st.floats(0.05, 1.0), st.sampled_from([0.5, 0.9, 1.0]), st.sampled_from(["room", "claimed"]))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_both_is_inside_the_pretrained_space_and_outside_the_occupied(
    stage: int, energy: float, pretrained: float, allowed: Literal["room", "claimed"]
) -> None:
    config = SpaceRule(mode="both", task_energy=energy, pretrained_energy=pretrained, allowed=allowed)
    space = stage_space(config, TASKS[: stage + 1], PRETRAINING, 4)
    assert space.allowed is not None
    assert torch.linalg.norm(space.occupied.T @ space.allowed) < 1e-9
    if not space.exhausted:
        basis = subspace.leading(PRETRAINING.gram, pretrained)
        assert torch.linalg.norm(space.allowed - basis @ (basis.T @ space.allowed)) < 1e-8
        if allowed == "claimed":
            assert torch.equal(space.claimed, space.allowed)
        else:  # everything of the pre-trained space that nobody has claimed, what the stage claims included
            assert space.allowed.shape[1] == subspace.allowed_basis(basis, space.occupied).shape[1]
            assert torch.linalg.norm(space.claimed - space.project(space.claimed.T).T) < 1e-8


def test_both_grows_with_its_threshold() -> None:
    ranks = [
        stage_space(SpaceRule(mode="both", task_energy=e), TASKS[:1], PRETRAINING, 4).claimed.shape[1]
        for e in (0.3, 0.6, 0.9, 1.0)
    ]
    assert ranks == sorted(ranks)
    assert ranks[0] < ranks[-1]


def test_equal_budget_leaves_room_for_every_stage() -> None:
    config = SpaceRule(mode="both", task_energy=1.0, pretrained_energy=1.0, rank_budget="equal")
    for stage in range(4):
        space = stage_space(config, TASKS[: stage + 1], PRETRAINING, 4)
        assert not space.exhausted
        assert 1 <= space.claimed.shape[1] <= D


def test_an_empty_space_is_told_and_falls_back() -> None:
    whole = statistics(D, 5)
    config = SpaceRule(mode="both", task_energy=1.0, pretrained_energy=1.0)
    space = stage_space(config, [whole, whole], whole, 2)
    assert space.exhausted
    assert space.allowed is not None
    assert space.allowed.shape[1] == 0  # nothing is left at all: the prompts freeze
    assert space.project(torch.randn(2, D)).abs().max() == 0
    narrow = stage_space(SpaceRule(mode="both", task_energy=1.0, pretrained_energy=0.01), [whole, whole], whole, 2)
    assert narrow.exhausted
    assert narrow.allowed is not None
    assert narrow.allowed.shape[1] == D - narrow.occupied.shape[1]


@pytest.mark.parametrize("allowed", ["room", "claimed"])
@pytest.mark.parametrize("mode", ["residual", "both"])
def test_a_task_inside_what_is_claimed_leaves_no_energy_and_is_no_error(mode: str, allowed: str) -> None:
    """What is left of its statistics is round-off, of no symmetry."""
    for seed in range(16):
        first, pretraining = statistics(4, seed), statistics(4, seed)
        rows = torch.randn(50, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        inside = row_statistics(rows @ subspace.leading(first.gram, 1.0).T)
        rule = SpaceRule(mode=mode, task_energy=1.0, pretrained_energy=1.0, allowed=allowed)  # type: ignore[arg-type]
        space = stage_space(rule, [first, inside], pretraining, 2)
        assert space.claimed.shape[1] == 0
        assert space.exhausted == (mode == "both")


def test_room_in_which_nothing_of_the_task_lies_is_counted_and_not_used() -> None:
    """Four of nine pre-trained dimensions are claimed, and the second task lies in them."""
    units = torch.eye(D, dtype=torch.float64)
    first, inside, pretraining = (row_statistics(units[:n]) for n in (4, 3, 9))
    for allowed, exhausted, width in (("room", False, 5), ("claimed", True, D - 4)):
        rule = SpaceRule(mode="both", task_energy=1.0, pretrained_energy=1.0, allowed=allowed)  # type: ignore[arg-type]
        space = stage_space(rule, [first, inside], pretraining, 2)
        assert space.allowed is not None
        assert (space.exhausted, space.dims_left, space.allowed.shape[1]) == (exhausted, 5, width)


def test_unit_rows_count_by_direction_alone() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.5], [0.0, 0.0]])
    found = row_statistics(rows, unit=True)
    assert torch.allclose(found.gram, torch.tensor([[0.36, 0.48], [0.48, 1.64]], dtype=torch.float64))
    assert found.count == 3
    assert torch.equal(row_statistics(rows * 7, unit=True).gram, found.gram) or torch.allclose(
        row_statistics(rows * 7, unit=True).gram, found.gram, rtol=1e-12
    )


@pytest.mark.parametrize("energy", [0.5, 0.8, 0.95])
def test_words_and_old_prompts_are_inside_the_protected_space(energy: float, bench: Workbench) -> None:
    """With the rows' lengths the space is one of visual tokens: of what the words say, nothing is held."""
    task = bench.benchmark.tasks[0]
    features = bench.rows(task, "train")[torch.arange(16)]
    tokens = bench.model.tokens(features).double()
    words = bench.model.word_rows(features.instruction[features.instruction_mask.bool()]).double()
    assert torch.equal(tokens[-len(words) :], words)
    held = {}
    for unit in (True, False):
        found = row_statistics(tokens, unit)
        claimed = stage_space(SpaceRule(mode="residual", task_energy=energy), [found], found, 2).claimed
        directions = words / words.norm(dim=1, keepdim=True)
        held[unit] = float(subspace.project(directions, claimed).square().sum() / len(directions))
        everything = tokens / tokens.norm(dim=1, keepdim=True) if unit else tokens
        share = subspace.project(everything, claimed).square().sum() / everything.square().sum()
        assert share >= energy - 1e-9  # what the threshold promises, of what the statistics see
    assert held[True] > held[False]
    config = build_experiment("tiny", "mini", "pegp_prompt", bench.benchmark.tasks[:2], 0, {"prompt.length": 8})
    tuner = build_tuner(config, bench, None)
    (site,) = tuner.sites()
    prompts = tuner.parameters()["prompts"].detach().double()
    prompts = prompts / prompts.norm(dim=1, keepdim=True)
    kept = {}
    for unit in (True, False):
        seen = site_statistics(bench.model, tuner, bench.rows(task, "train"), 16, "unit" if unit else "raw")[site]
        rule = SpaceRule(mode="pegp", task_energy=energy, energy_of="total")
        basis = grow(rule, torch.zeros(len(seen.gram), 0, dtype=torch.float64), seen)
        kept[unit] = float(subspace.project(prompts, basis).square().sum() / len(prompts))
    assert kept[True] > kept[False]
    assert kept[True] > 0.5 * energy


def test_energy_of_total_counts_what_is_already_occupied() -> None:
    remaining = stage_space(SpaceRule(mode="residual", task_energy=0.6), [TASKS[0], TASKS[0]], PRETRAINING, 2)
    total = stage_space(
        SpaceRule(mode="residual", task_energy=0.6, energy_of="total"), [TASKS[0], TASKS[0]], PRETRAINING, 2
    )
    assert remaining.claimed.shape[1] > 0  # 60 % of what is left of the same task
    assert total.claimed.shape[1] == 0  # the occupied space holds 60 % of it already


def test_centring_is_a_switch() -> None:
    rows = torch.randn(100, D, dtype=torch.float64) * 0.01 + 5
    shifted = Statistics(rows.T @ rows, rows.sum(0), 100)
    plain = stage_space(SpaceRule(mode="residual", task_energy=0.9), [shifted], PRETRAINING, 1)
    centred = stage_space(SpaceRule(mode="residual", task_energy=0.9, center=True), [shifted], PRETRAINING, 1)
    assert plain.claimed.shape[1] == 1
    assert centred.claimed.shape[1] > 5


def test_statistics_add_up_over_workers() -> None:
    both = TASKS[0] + TASKS[1]
    assert both.count == 400
    assert torch.allclose(both.gram, TASKS[0].gram + TASKS[1].gram)


class LinearModel:
    """The least model that a step can train: logits are a fixed linear map of the mean input."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.head = torch.randn(D, 7, generator=torch.Generator().manual_seed(3))

    def read(self, features: FrozenFeatures, front: Tensor) -> Tensor:
        return torch.cat([front, features.visual], 1)

    def logits(self, encoded: Tensor, labels: Tensor) -> Tensor:
        return torch.tanh(encoded.mean(1, keepdim=True) @ self.head).expand(-1, labels.shape[1], -1) * 5


class OnePrompt:
    projected: ClassVar = {"prompts": "input"}

    def __init__(self, scale: float) -> None:
        self.prompts = nn.Parameter(torch.randn(3, D, generator=torch.Generator().manual_seed(1)) * scale)

    def parameters(self) -> dict[str, nn.Parameter]:
        return {"prompts": self.prompts}

    def attached(self) -> AbstractContextManager[None]:
        return nullcontext()

    def inputs(self, features: FrozenFeatures, training: bool) -> TunerInputs:
        return TunerInputs(torch.zeros(()), self.prompts.expand(len(features), -1, -1))

    def frozen_rows(self, name: str) -> Tensor | None:
        return None


class Inside(Protection[Section]):
    """Keeps one prompt in a given space."""

    def __init__(self, tuner: OnePrompt, space: Space) -> None:
        self.projector = Projector(tuner.parameters(), {"prompts": space})

    def change_gradients(self, measure: bool) -> None:
        self.projector.change_gradients(measure)

    def change_step(self) -> None:
        self.projector.change_step()


def realised(space: Space, train: Train, scale: float = 1.0, steps: int = 5) -> tuple[Tensor, Tensor]:
    tuner, model = OnePrompt(scale), LinearModel()
    optimizer = torch.optim.Adam([tuner.prompts], lr=train.lr)
    learner = Learner(model, tuner, optimizer, train, [Inside(tuner, space)])  # type: ignore[arg-type]
    start = tuner.prompts.detach().clone()
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        visual = torch.randn(8, 4, D, generator=generator)
        features = FrozenFeatures(visual, torch.zeros(8, 1), torch.ones(8, 1), visual[:, 0], visual[:, 0])
        fetched([train_step(learner, features, torch.randint(7, (8, 2), generator=generator))])
    return tuner.prompts.detach() - start, start


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("clip", [None, 0.01, 1.0])
@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("mode", ["residual", "pretrained", "both"])
def test_the_realised_change_stays_inside(mode: str, scale: float, clip: float | None, precision: str) -> None:
    config = SpaceRule(mode=mode, pretrained_energy=0.9, task_energy=0.7)  # type: ignore[arg-type]
    space = stage_space(config, TASKS[:2], PRETRAINING, 4)
    train = Train.model_validate({"lr": 0.1, "clip": clip, "precision": precision})
    change, start = realised(space, train, scale, steps=1)
    norm = change.double().norm()
    assert norm > 1e-3  # it did move
    outside = (change.double() - space.project(change)).norm()
    bound = max(1e-5, 8 * torch.finfo(torch.float32).eps * start.double().norm() / norm)
    assert outside <= bound * norm


def test_projecting_the_gradient_alone_is_not_enough() -> None:
    """The counter-test: Adam's per-element scaling takes a projected gradient out of the subspace."""
    space = stage_space(SpaceRule(mode="both", task_energy=0.7), TASKS[:2], PRETRAINING, 4)
    parameter = nn.Parameter(torch.randn(3, D, generator=torch.Generator().manual_seed(1)))
    optimizer = torch.optim.Adam([parameter], lr=0.1)
    before = parameter.detach().clone()
    parameter.grad = space.project(torch.randn(3, D, generator=torch.Generator().manual_seed(4))).float()
    optimizer.step()
    change = parameter.detach() - before
    assert (change.double() - space.project(change)).norm() > 0.05 * change.norm()


def test_energy_shares_add_up() -> None:
    space = stage_space(SpaceRule(mode="both", task_energy=0.7), TASKS[:2], PRETRAINING, 4)
    inside = space.inside(torch.device("cpu"))
    assert inside is not None
    assert inside.energy_shares(torch.randn(5, D)).sum().item() == pytest.approx(1.0)
    assert inside.energy_shares(torch.zeros(5, D)).tolist() == [0.0, 0.0, 0.0]


def test_a_wide_space_is_projected_to_by_the_smaller_of_it_and_what_is_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside is what is occupied, or what is left beside that, or nothing that is worth it."""
    rows, basis = torch.randn(5, D), torch.linalg.qr(torch.randn(D, D, dtype=torch.float64)).Q
    beside = spaces.Space(basis[:, 3:-1], basis[:, :3], basis[:, :0])  # the last column is in neither
    few = spaces.Space(basis[:, :3], basis[:, 3:4], basis[:, :0])
    cases = {"occupied": (space_outside(basis[:, :3]), 3), "complement": (beside, 4), "few": (few, 3)}
    before = {name: space.project(rows) for name, (space, _) in cases.items()}
    monkeypatch.setattr(spaces, "WIDE", D)
    for name, (space, columns) in cases.items():
        inside = space.inside(torch.device("cpu"))
        assert inside is not None
        assert inside.columns.shape == (D, columns), name
        assert inside.outside == (name != "few")
        assert (inside.project(rows) - before[name]).abs().max() < 1e-13


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    space = stage_space(SpaceRule(), TASKS[:1], PRETRAINING, 1)
    with pytest.raises(FloatingPointError, match="lower train"):
        realised(space, Train(), scale=float("nan"))


def test_rows_that_do_not_move_have_no_part_in_the_clipped_norm() -> None:
    class Frozen(OnePrompt):
        def frozen_rows(self, name: str) -> Tensor | None:
            return torch.tensor([True, False, False])

    tuner, model = Frozen(1.0), LinearModel()
    start = tuner.prompts.detach().clone()
    optimizer = torch.optim.SGD([tuner.prompts], lr=1.0)
    learner = Learner(model, tuner, optimizer, Train(lr=1.0, clip=1e-3))  # type: ignore[arg-type]
    visual = torch.randn(8, 4, D, generator=torch.Generator().manual_seed(2))
    features = FrozenFeatures(visual, torch.zeros(8, 1), torch.ones(8, 1), visual[:, 0], visual[:, 0])
    train_step(learner, features, torch.zeros(8, 2, dtype=torch.long))
    change = tuner.prompts.detach() - start
    assert change[0].norm() == 0
    assert change.norm() == pytest.approx(1e-3, rel=1e-3)


def test_rows_that_do_not_move_have_no_gradient_for_protections() -> None:
    """LLaCA's weight comes from norms of gradients."""

    class Frozen(OnePrompt):
        def frozen_rows(self, name: str) -> Tensor | None:
            return torch.tensor([True, False, False])

    class Looks(Protection[Section]):
        def __init__(self) -> None:
            self.seen: list[Tensor] = []

        def see_gradients(self) -> None:
            assert tuner.prompts.grad is not None
            self.seen.append(tuner.prompts.grad.clone())

    tuner, model, looks = Frozen(1.0), LinearModel(), Looks()
    learner = Learner(model, tuner, torch.optim.SGD([tuner.prompts]), Train(), [looks])  # type: ignore[arg-type]
    visual = torch.randn(8, 4, D, generator=torch.Generator().manual_seed(2))
    features = FrozenFeatures(visual, torch.zeros(8, 1), torch.ones(8, 1), visual[:, 0], visual[:, 0])
    train_step(learner, features, torch.zeros(8, 2, dtype=torch.long))
    assert looks.seen[0][0].norm() == 0
    assert looks.seen[0][1:].norm() > 0


def test_keys_move_away_from_the_queries_of_earlier_tasks(bench: Workbench) -> None:
    """At energy 1 what a key is to an earlier query, but for its length, is what it was; without, it is not."""
    order = bench.benchmark.tasks[:2]
    few = {"pool.size": 6, "pool.top_k": 2, "train.steps": 3, "train.batch_size": 8, "pool.standardise": False}
    moved: dict[object, dict[str, float]] = {}
    for energy in (1.0, None):
        settings = {**few, "projection.mode": "residual", "projection.keys": energy}
        config = build_experiment("tiny", "mini", "sequential", order, 0, settings)
        first, _ = train_stage(config, bench, 0, None)
        second, _ = train_stage(config, bench, 1, first)
        tuner = build_tuner(config, bench, first)
        rows = bench.rows(order[0], "train")
        queries = tuner.key_queries(rows[torch.arange(16)])  # type: ignore[attr-defined]
        moved[energy] = {}
        for name, query in queries.items():
            change = second.tensors[name] - first.tensors[name]
            assert change.norm() > 0
            moved[energy][name] = float((query @ change.T).norm() / (query.norm() * change.norm()))
    assert all(moved[1.0][name] < 1e-4 < moved[None][name] for name in moved[None])


def test_keys_of_a_tuner_without_any_are_refused() -> None:
    settings = {"projection.mode": "residual", "projection.keys": 0.97}
    with pytest.raises(ValidationError, match="tuner prompt has no keys; leave it out"):
        build_experiment("tiny", "mini", "sequential_prompt", ("attribute", "ground"), 0, settings)
