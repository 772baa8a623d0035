"""Successive halving: who goes on; tests/end_to_end/test_racing.py has whole sweeps."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mcit_core.stages.results import Cell
from mcit_core.yaml_document import SpecError
from orchestration.plan.halving import Halving, score
from orchestration.plan.halving import race as make_race
from orchestration.plan.spec import HalvingRule
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import make_trials
from tests.orchestration.plan.test_scheduler import scheduler, start

BASE = "name: s\nbenchmark: mini\ntasks: 3\nmodel: mini\n"


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
        found.reach(trial, 2, 0.6 if trial == "a0" else 0.5)
    assert found.stopped == {"b0": 1, "b1": 1, "c0": 2, "c1": 2}
    found.reach("a0", 3, 0.5)
    assert not found.held("a0")


def test_what_equals_the_last_one_kept_goes_on_too() -> None:
    found = race(a="a", b="b", c="c", d="d")
    for trial, value in {"a": 0.5, "b": 0.7, "c": 0.5, "d": 0.4}.items():
        found.reach(trial, 1, value)
    assert found.stopped == {"d": 1}


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
        Cell(task, split, value, value, 10)
        for task, split, value in [
            ("a", "validation", 0.5),
            ("a", "test", 1),
            ("b", "validation", 0.3),
            ("c", "test", 1),
        ]
    ]
    assert score([*cells, Cell("c", "validation", 1.0, 1.0, 10)], ("b", "a")) == 0.4
    assert math.isnan(score([cell for cell in cells if cell.split == "test"], ("b", "a")))


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


@pytest.mark.parametrize(
    ("more", "left"),
    [
        ("", ["er", "fwd_prompt"]),  # one stage of joint training, a single task's accuracy, a reference: no part of it
        ("references: [sequential]", ["er", "fwd_prompt"]),
    ],
)
def test_who_races_where_methods_are_compared(more: str, left: list[str], tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    methods = "axes: {method: [fwd_prompt, er, multitask, sequential]}"
    file.write_text(f"{BASE}method: fwd_prompt\n{methods}\nhalving: {{min_stages: 1}}\n{more}\n")
    spec = load_spec(file)
    halving = make_race(spec, make_trials(spec))
    assert halving is not None
    assert sorted(trial.split("-")[0] for trial in halving.settings) == left


@pytest.mark.parametrize("method", ["multitask", "sequential\nreferences: [sequential]"])
def test_a_race_without_runners_is_refused(method: str, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(f"{BASE}method: {method}\naxes: {{train.lr: [0.1, 0.2]}}\nhalving: {{min_stages: 1}}\n")
    with pytest.raises(SpecError, match="halving: has no settings to choose from"):
        load_spec(file)
