"""Steps that are really taken where nothing is stored; on the embedded model."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.plan.bill import bill
from orchestration.plan.probe import STEPS, probe, unknown_places
from orchestration.plan.stage_tree import costs, stage_tree
from orchestration.plan.stored import Stored, read_store
from orchestration.plan.timings import PROBED
from orchestration.plan.trials import Trial
from tests.support.timed import experiment, keep, trial

#: all that the tests' benchmark has, fewer than a probe would take
TEST_ROWS = 30
SMALL = {"train__batch_size": 8}


def tiny(method: str, seed: int = 0) -> Trial:
    """On the tests' own benchmark and model, which are quick to open."""
    one = trial(method, seed, **SMALL)
    return Trial(one.id, one.experiment.model_copy(update={"benchmark": "tiny", "model": "tiny"}), one.settings)


def test_one_stage_for_each_kind_that_was_never_timed(tmp_path: Path) -> None:
    trials = [trial(method, seed) for method in ("sequential", "ewc", "fwd_prompt") for seed in (0, 1)]
    tree = stage_tree(trials)
    wanted = [(place.trial.method, place.stage) for place in unknown_places(trials, tree, Stored().timings, "cpu")]
    assert ("ewc", 1) in wanted
    assert len(wanted) == len(set(wanted)) == 4
    keep(tmp_path, [experiment("ewc", 5), experiment("sequential", 5)])
    known = read_store(str(tmp_path), trials, tree, "cpu").timings
    assert {place.trial.method for place in unknown_places(trials, tree, known, "cpu")} == {"fwd_prompt"}


def test_a_probe_times_every_stage_and_keeps_nothing(tmp_path: Path) -> None:
    trials = [tiny(method, seed) for method in ("sequential", "ewc", "zero_shot") for seed in (0, 1)]
    tree, stored = stage_tree(trials), Stored()
    counted = costs(trials, tree)
    assert bill(trials, tree, counted, stored, "cpu").total.untimed > 0
    lines = [*probe(trials, tree, stored.timings, "cpu", tmp_path / "features")]
    found = bill(trials, tree, counted, stored, "cpu")
    assert found.total.untimed == found.total.unsized == 0
    assert found.total.train > 0
    assert found.total.evaluate > 0
    assert {timing.alike for line in found.lines for timing in line.timings} == {PROBED}
    assert all(timing.units == (1, 1 + STEPS) for line in found.lines for timing in line.timings)
    assert {path.name for path in tmp_path.iterdir()} <= {"features"}
    assert len(lines) == 3  # of ewc the first stage too, which is on another tuner than the pool's
    assert all(f"{STEPS} steps at " in line and f" {TEST_ROWS} rows at " in line for line in lines)
    assert not [*probe(trials, tree, stored.timings, "cpu", tmp_path / "features")]


def test_the_untouched_model_alone_is_tried_too(tmp_path: Path) -> None:
    trials = [tiny("zero_shot"), tiny("majority")]
    tree, stored = stage_tree(trials), Stored()
    (line,) = probe(trials, tree, stored.timings, "cpu", tmp_path / "features")
    assert line.startswith(f"probed the untouched model: {TEST_ROWS} rows")
    found = bill(trials, tree, costs(trials, tree), stored, "cpu").total
    assert (found.untimed, found.train) == (0, 0)
    assert found.evaluate > 0


def test_epochs_are_counted_once_the_rows_are_read(tmp_path: Path) -> None:
    one = tiny("sequential")
    train = one.experiment.train.model_copy(update={"epochs": 1.0, "warmup": 0.5})
    trials = [Trial("x", one.experiment.model_copy(update={"train": train}), {})]
    tree, stored = stage_tree(trials), Stored()
    assert bill(trials, tree, costs(trials, tree), stored, "cpu").nominal
    assert [*probe(trials, tree, stored.timings, "cpu", tmp_path / "features")]
    found = bill(trials, tree, costs(trials, tree), stored, "cpu")
    assert not found.nominal
    assert found.steps < tree.steps[tree.chains["x"][0]]


def test_a_probe_meets_what_the_sweep_would(tmp_path: Path) -> None:
    one = tiny("sequential")
    train = one.experiment.train.model_copy(update={"batch_size": 100_000})
    trials = [Trial("x", one.experiment.model_copy(update={"train": train}), {})]
    with pytest.raises(ValueError, match=r"train\.batch_size 100000 is larger than"):
        [*probe(trials, stage_tree(trials), Stored().timings, "cpu", tmp_path / "features")]
