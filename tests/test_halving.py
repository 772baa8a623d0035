"""Successive halving: who goes on, then a whole sweep on real Ray."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from sweeping import Sweep, mlflow_runs, without_counts
from test_scheduler import scheduler, start

from orchestration.halving import Halving, score
from orchestration.plan import HalvingRule


def race(stages: int = 4, min_stages: int = 1, reduction: int = 2, **settings: str) -> Halving:
    return Halving(HalvingRule(min_stages, reduction), settings, stages)


def test_rungs_lie_before_the_last_stage() -> None:
    assert HalvingRule(1, 2).rungs(8) == [1, 2, 4]
    assert HalvingRule(2, 3).rungs(6) == [2]
    assert HalvingRule(2, 3).rungs(2) == []


def test_the_better_half_of_the_settings_goes_on() -> None:
    """Two seeds each of three settings, so two of three are kept: a 0.5, b 0.3, c 0.4 on the mean."""
    found = race(a0="a", a1="a", b0="b", b1="b", c0="c", c1="c")
    for trial, value in {"a0": 0.1, "a1": 0.9, "b0": 0.6, "b1": 0.0, "c0": 0.4}.items():
        found.reach(trial, 1, value)
        assert found.held(trial)
        assert not found.stopped
    found.reach("c1", 1, 0.4)
    assert found.stopped == {"b0": 1, "b1": 1}
    assert [found.held(trial) for trial in ("a0", "b0", "c1", "reference")] == [False, True, False, False]
    for trial in ("a0", "a1", "c0", "c1"):
        found.reach(trial, 1, 0.0)  # on its way through finished stages: decided already
        assert not found.held(trial)
        found.reach(trial, 2, 0.5)  # equal scores: the first is kept
    assert found.stopped == {"b0": 1, "b1": 1, "c0": 2, "c1": 2}
    found.reach("a0", 3, 0.5)
    assert not found.held("a0")


def test_nobody_waits_for_a_trial_that_has_failed() -> None:
    found = race(a0="a", a1="a", b0="b", b1="b")
    found.reach("a0", 1, 0.2)
    found.reach("b0", 1, 0.1)
    found.reach("b1", 1, 0.1)
    assert not found.stopped
    found.leave("a1")
    assert found.stopped == {"b0": 1, "b1": 1}


def test_the_score_is_of_the_tasks_learned_so_far_in_validation() -> None:
    cells = [
        {"task": task, "split": split, "accuracy": value}
        for task, split, value in [
            ("a", "validation", 0.5),
            ("a", "test", 1),
            ("b", "validation", 0.3),
            ("c", "test", 1),
        ]
    ]
    assert score([*cells, {"task": "c", "split": "validation", "accuracy": 1.0}], ("b", "a")) == 0.4


def test_a_trial_at_a_rung_gives_up_its_worker() -> None:
    stages = scheduler(t1="abc", t2="xyz", t3="rst")
    stages.halving = race(3, t1="one", t2="two")
    assert start(stages) == "t1"
    assert not stages.finish("t1", 0, 0.1)
    assert start(stages) == "t2"
    assert start(stages) == "t3"  # no part of the race
    assert start(stages) is None  # t1 waits
    assert stages.finish("t2", 0, 0.9)  # nobody is left to wait for
    assert stages.halving.stopped == {"t1": 1}
    assert start(stages) is None
    stages.end("t1")
    assert stages.finish("t2", 1, 0.0)  # rung 2, alone
    assert stages.finish("t3", 0)
    assert start(stages) is None


def test_a_sweep_stops_all_but_the_best_setting(tmp_path: Path, undisturbed: Sweep) -> None:
    sweep = Sweep(tmp_path)
    sweep.file.write_text(sweep.file.read_text() + "halving: {min_stages: 2, reduction: 3}\n")
    said = sweep.begin().end()
    trials = {str(row["trial"]): row for row in sweep.table("trials")}
    status = {name: row["status"] for name, row in trials.items()}
    assert sorted(status.values()) == ["FINISHED", "FINISHED", "STOPPED", "STOPPED"]  # one is the reference
    assert all(row["error"] == "stopped by halving after 2 of 3 stages" for row in trials.values() if row["error"])
    assert said.count("stopped by halving") == 2
    whole = undisturbed.table("accuracy")
    reached = {
        name: fmean(
            float(str(row["accuracy"]))
            for row in whole
            if row["trial"] == name
            and row["stage"] == 1
            and row["split"] == "validation"
            and row["task"] in str(row["order"]).split(">")[:2]
        )
        for name, row in trials.items()
        if row["method"] != "direct"
    }
    (winner,) = (name for name in reached if status[name] == "FINISHED")
    assert reached[winner] == max(reached.values())
    # what was measured is what a sweep without halving has, up to where it was stopped
    last = {name: 1 if status[name] == "STOPPED" else 2 for name in trials}
    assert sweep.table("accuracy") == [row for row in whole if int(str(row["stage"])) <= last[str(row["trial"])]]
    assert mlflow_runs(sweep) == []
    trained = len(sweep.begun)
    assert trained == 7  # first stage shared, two more first stages of direct, second and third where it went on
    before = sweep.table("trials")
    sweep.begin().end()
    assert len(sweep.begun) == trained
    assert without_counts(sweep.table("trials")) == without_counts(before)
