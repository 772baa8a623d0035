"""What a plan finds in a stage store: what need not be made again, and what it took."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcit_core.config import Experiment
from orchestration.plan.stage_tree import stage_tree
from orchestration.plan.stored import Stored, read_store
from orchestration.plan.timings import LIKE, evaluation_likeness, training_likeness
from orchestration.plan.trials import Trial
from tests.support.timed import keep, trial


def read(folder: Path, trials: list[Trial]) -> tuple[Stored, list[str]]:
    tree = stage_tree(trials)
    return read_store(str(folder), trials, tree, "cpu"), tree.chains[trials[0].id]


def test_nothing_is_stored_where_there_is_no_folder(tmp_path: Path) -> None:
    found, _ = read(tmp_path / "none", [trial("sequential")])
    assert found == Stored()
    assert not (tmp_path / "none").exists()


def test_stored_stages_and_their_evaluations(tmp_path: Path) -> None:
    one = trial("sequential")
    keep(tmp_path, [one.experiment], stages=1)
    found, chain = read(tmp_path, [one])
    assert found.stages.keys() == {chain[0]}
    # after the first of two: its own validation and test rows, the next task's test rows, and those before any training
    assert found.stages[chain[0]] == {
        ("attribute", "validation", 100): 1,
        ("attribute", "test", 100): 1,
        ("ground", "test", 100): 2,
    }


def test_a_chain_with_a_gap_is_stored_up_to_it(tmp_path: Path) -> None:
    one = trial("sequential")
    keep(tmp_path, [one.experiment])
    found, chain = read(tmp_path, [one])
    assert found.stages.keys() == {*chain}
    other, chain = read(tmp_path, [trial("sequential", seed=1)])
    assert not other.stages
    assert other.timings.train(
        training_likeness(stage_tree([one]).made_from[stage_tree([one]).chains[one.id][0]], "cpu")
    )


def test_what_other_code_trained_gives_times_and_is_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = trial("sequential")
    keep(tmp_path, [one.experiment], step=lambda one: 0.25, row=0.002)
    monkeypatch.setattr(
        "mcit_core.stages.fingerprint.stage_code", lambda *_: {"code": {"mcit_core.x": "new"}, "libraries": {}}
    )
    found, chain = read(tmp_path, [one])
    assert not found.stages
    made_from = stage_tree([one]).made_from[chain[1]]
    trained = found.timings.train(training_likeness(made_from, "cpu"))
    assert trained is not None
    assert (trained.each, trained.samples, trained.alike, trained.units) == (0.25, 1, LIKE, (10, 10))
    timing = found.timings.evaluate(evaluation_likeness(made_from, "cpu", "ground", "test"))
    assert timing is not None
    assert timing.seconds(100) == pytest.approx(0.2)


def test_another_device_gives_nothing(tmp_path: Path) -> None:
    one = trial("sequential")
    keep(tmp_path, [one.experiment], device="cuda")
    found, _ = read(tmp_path, [one])
    assert found == Stored()


def test_damaged_records_and_evaluations_are_passed_over_and_stay(tmp_path: Path) -> None:
    one = trial("sequential")
    keep(tmp_path, [one.experiment])
    records = sorted(tmp_path.rglob("record.json"))
    records[0].write_text("{")
    for path in tmp_path.rglob("evaluations/*.json"):
        path.write_text(path.read_text()[:-9])
    found, _ = read(tmp_path, [one])
    assert len([*tmp_path.rglob("record.json")]) == 2
    assert not found.timings.evaluation
    assert found.timings.training


def test_steps_of_epochs_and_the_peak_come_from_what_was_trained(tmp_path: Path) -> None:
    def epochs(seed: int) -> Experiment:
        one = trial("sequential_lora", seed).experiment
        return one.model_copy(update={"train": one.train.model_copy(update={"epochs": 0.5})})

    keep(tmp_path, [epochs(0)], **{"memory/peak": 4e9})
    found, chain = read(tmp_path, [Trial("x", epochs(1), {})])
    made_from = stage_tree([Trial("x", epochs(1), {})]).made_from[chain[0]]
    assert found.timings.memory(training_likeness(made_from, "cpu")) == 4e9
    assert {*found.timings.steps.values()} == {24}  # half of 1,500 rows, 32 at a time
