"""Two processes take the steps of one: the same rows, and gradients, statistics and counts that differ by rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mcit_core.config import Experiment, Off, Value
from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.parallel import ALONE, Team
from mcit_core.protection import Protection, StageStart
from mcit_core.protection.bases import site_statistics
from mcit_core.training.batches import batches
from mcit_core.training.stage import build_tuner, protections_of, stage_view, train_stage
from mcit_core.training.step import Learner, optimizer_of, train_step
from tests.support.teams import in_team

pytestmark = pytest.mark.filterwarnings("ignore:stage")  # of spaces that are used up, which is told elsewhere
ORDER = ("attribute", "ground")
#: nine rows: one process has five of them and the other four. The rate is low, since Adam makes whole steps of the
#: rounding of gradients that are nearly nothing
SETTINGS: dict[str, Value] = {"train.steps": 3, "train.batch_size": 9, "train.lr": 1e-3}
CASES: dict[str, dict[str, Value]] = {
    "fwd_prompt": {"projection.keys": 0.97, "projection.allowed": "claimed", "pool.key_lr": 1e-3},
    "fwd_prompt_directions": {"projection.condition": "attention", "pool.key_lr": 1e-3},
    "llaca": {"grouping.enabled": False},
    "pegp_lora": {"train.accumulate": 2},
    "er": {},
    "ewc": {"regulariser.strength": 1000.0},
    "mas": {},
    "lwf": {},
    "o_lora": {},
    "moe_lora": {},
    "ema_per_tensor": {},
    "multitask": {},
}
#: of the first step and of the second, as shares of the largest entry; other rows or shares make a tenth or more
GRADIENTS = (1e-4, 2e-3)
#: the same, of what is added up in float64
EXACT = 1e-12


class Noting(Protection[Off]):
    """Keeps the raw gradients of every step."""

    def __init__(self, start: StageStart) -> None:
        super().__init__(Off(), start)
        self.seen: list[dict[str, Tensor]] = []

    def see_gradients(self) -> None:
        parameters = self.start.tuner.parameters()
        self.seen.append({name: p.grad.clone() for name, p in parameters.items() if p.grad is not None})


def experiment_of(preset: str, team: Team) -> Experiment:
    return build_experiment(
        "tiny", "tiny", preset, ORDER, 0, {**SETTINGS, **CASES[preset], "train.processes": team.size}
    )


def two_steps(team: Team, bench: Workbench, preset: str, state: Any) -> dict[str, Any]:
    """The first two steps of a second stage, after `state`; the second, since a penalty begins at nothing."""
    experiment = experiment_of(preset, team)
    number = 0 if experiment.protocol == "multitask" else 1
    view = stage_view(experiment, bench, number, None)
    tuner = build_tuner(experiment, bench, state)
    start = StageStart(
        **vars(view), tuner=tuner, before=state, copy=lambda: build_tuner(experiment, bench, state), team=team
    )
    noting = Noting(start)
    protections = [*protections_of(start), noting]
    tuner.begin_stage()
    learner = Learner(bench.model, tuner, optimizer_of(tuner, experiment), experiment.train, protections, team)
    losses, rows = [], []
    for _, (batch, labels) in zip(range(2), batches(experiment, bench, view.task, protections, team), strict=False):
        rows += [[label for label in row if label != -100] for row in labels.tolist()]
        losses.append(train_step(learner, batch, labels).item())
    carried = {name: tensor for protection in protections for name, tensor in protection.carried.items()}
    return {"losses": losses, "gradients": noting.seen, "rows": rows, "carried": carried}


def all_cases(team: Team, features: Path, states: dict[str, Any]) -> dict[str, Any]:
    bench = Workbench("tiny", "tiny", "cpu", features)
    found: dict[str, Any] = {preset: two_steps(team, bench, preset, states[preset]) for preset in CASES}
    found["statistics"] = bench.statistics("ground", "unit", team)
    found["again"] = bench.statistics("ground", "unit", team) is found["statistics"]
    tuner = build_tuner(experiment_of("pegp_lora", team), bench, states["pegp_lora"])
    found["sites"] = site_statistics(bench.model, tuner, bench.rows("ground", "train"), 21, team=team)
    counted = experiment_of("fwd_prompt", team)
    found["state"], found["measured"] = train_stage(counted, bench, 0, None, team)
    return found


@pytest.fixture(scope="module")
def found(features: Path) -> list[dict[str, Any]]:
    """What one process has, then each of two."""
    bench = Workbench("tiny", "tiny", "cpu", features)
    states: dict[str, Any] = {}
    for preset in CASES:
        experiment = experiment_of(preset, ALONE)
        states[preset] = None if preset == "multitask" else train_stage(experiment, bench, 0, None)[0]
    return [all_cases(ALONE, features, states), *in_team(2, all_cases, features, states)]


def apart(one: Tensor, other: Tensor) -> float:
    """Of two tensors the largest difference, by the largest entry."""
    return ((one - other).abs().max() / one.abs().max().clamp(min=1e-30)).item()


@pytest.mark.parametrize("preset", CASES)
def test_a_step_has_the_gradients_of_the_whole_batch(preset: str, found: list[dict[str, Any]]) -> None:
    one, first, second = (each[preset] for each in found)
    assert sorted(one["rows"]) == sorted(first["rows"] + second["rows"])
    assert len(first["rows"]) == 10  # five in each of two steps
    for each in (first, second):
        assert each["losses"] == pytest.approx(one["losses"], abs=2e-5)
        for wanted, gradients, share in zip(one["gradients"], each["gradients"], GRADIENTS, strict=True):
            assert gradients.keys() == wanted.keys()
            # of all tensors together, since some have gradients that are nothing but rounding
            assert apart(*(torch.cat([g.flatten() for g in found.values()]) for found in (wanted, gradients))) < share
    assert all(torch.equal(g, second["gradients"][0][name]) for name, g in first["gradients"][0].items())
    assert first["losses"] == second["losses"]


@pytest.mark.parametrize("preset", ["ewc", "mas"])
def test_importances_are_those_of_all_rows(preset: str, found: list[dict[str, Any]]) -> None:
    one, first, second = (each[preset]["carried"] for each in found)
    assert one
    for name, importance in one.items():
        assert apart(importance, first[name]) < 1e-6
        assert torch.equal(first[name], second[name])


def test_statistics_are_those_of_all_rows(found: list[dict[str, Any]]) -> None:
    one, *team = ({"tokens": each["statistics"], **each["sites"]} for each in found)
    for each in team:
        assert each.keys() == one.keys()
        for name, statistics in one.items():
            assert each[name].count == statistics.count
            # those of sites are of what a float32 pass computed, beside other rows
            assert apart(statistics.gram, each[name].gram) < (EXACT if name == "tokens" else 1e-5)
            assert apart(statistics.total, each[name].total) < (EXACT if name == "tokens" else 1e-5)
    assert all(each["again"] for each in found)


def test_selections_are_counted_over_all_rows(found: list[dict[str, Any]]) -> None:
    one, first, second = (each["state"].tensors["usage"] for each in found)
    assert one.sum() == 3 * 9 * 4  # steps, rows, prompts chosen by each
    assert torch.equal(first, second)
    assert first.sum() == one.sum()
    # at a rate at which three steps move the keys, a row may choose another prompt for rounding
    assert (one - first).abs().sum() <= 4
    assert found[1]["measured"].traces == found[2]["measured"].traces


class Forgetful(Protection[Off]):
    """Carries what only this process's rows say."""

    def __init__(self, start: StageStart) -> None:
        super().__init__(Off(), start)
        self.carried = {"answers": torch.zeros(1)}

    def before_forward(self, batch: object, labels: Tensor) -> None:
        self.carried["answers"] += labels[labels != -100].sum()


def forgetting(team: Team, features: Path) -> str:
    import mcit_core.training.stage as stage

    plain = stage.protections_of
    stage.protections_of = lambda start: [*plain(start), Forgetful(start)]
    try:
        train_stage(experiment_of("er", team), Workbench("tiny", "tiny", "cpu", features), 0, None, team)
    except RuntimeError as error:
        return str(error)
    return "nothing noticed"


def test_what_was_not_added_up_is_an_error(features: Path) -> None:
    for said in in_team(2, forgetting, features):
        assert "different values of answers: these saw the rows of one process alone" in said
        assert "set resources.processes to 1" in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"train.processes": 4, "train.batch_size": 3},
            "accumulate 1 in each of 4 processes is more than batch_size 3",
        ),
        (
            {"train.processes": 3, "train.batch_size": 8, "train.accumulate": 3},
            "accumulate 3 in each of 3 processes is more than batch_size 8",
        ),
        ({"train.processes": 4, "projection.samples": 3}, "projection.samples 3 is less than the 4 processes"),
        ({"train.processes": 0}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(settings: dict[str, Value], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build_experiment("tiny", "tiny", "pegp_lora", ORDER, 0, settings)


def test_one_process_is_named_in_no_key_and_two_are() -> None:
    from mcit_core.stages.keys import active_fields

    plain = build_experiment("tiny", "tiny", "er", ORDER, 0)
    one, two = (build_experiment("tiny", "tiny", "er", ORDER, 0, {"train.processes": n}) for n in (1, 2))
    assert "processes" not in one.model_dump_json()
    assert active_fields(one, 1) == active_fields(plain, 1)
    assert active_fields(two, 1)["train"] == {**dict(active_fields(one, 1)["train"]), "processes": 2}  # type: ignore[call-overload]
    assert Experiment.model_validate_json(two.model_dump_json()) == two
