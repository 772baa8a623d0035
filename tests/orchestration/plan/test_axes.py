"""Ranges, conditions and searches in a sweep file: refused with file, line, key and remedy, or taken as they stand."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mcit_core.yaml_document import SpecError
from orchestration.plan.space import Space
from orchestration.plan.spec import Range
from orchestration.plan.sweep_file import load_spec, resolved
from orchestration.plan.trials import at_once, known_trials, make_trials, stand_ins
from tests.support.refusals import assert_names_place

GOOD = """\
name: good
benchmark: mini
tasks: [attribute, ground]
model: mini
method: fwd_prompt
axes:
  pool.size: {low: 10, high: 40, step: 5}
  train.lr: {low: 0.001, high: 1.0, log: true}
  projection.mode: [none, both]
  projection.task_energy: {low: 0.4, high: 0.99, when: {projection.mode: both}}
search:
  kind: optuna
  trials: 10
seeds: [0, 1]
"""
#: name -> what is replaced, by what, the line of the fault, words of its message
BROKEN = {
    "no_low": ("{low: 10, high: 40, step: 5}", "{high: 40}", 7, ["low: expected a number"]),
    "low_is_text": ("low: 10, high", "low: ten, high", 7, ["low: expected a number", "'ten'"]),
    "upside_down": ("low: 10, high: 40", "low: 40, high: 10", 7, ["expected low below high"]),
    "step_misses": ("step: 5}", "step: 7}", 7, ["miss 40", "set high: 38"]),
    "step_too_large": ("step: 5}", "step: 50}", 7, ["at most 30"]),
    "log_from_zero": ("low: 0.001", "low: 0", 8, ["begins above 0"]),
    "log_with_step": ("log: true}", "log: true, step: 0.1}", 8, ["keep one"]),
    "unknown_key": ("high: 40, step: 5", "hihg: 40, step: 5", 7, ["did you mean 'high'"]),
    "end_out_of_bounds": ("low: 0.4, high: 0.99", "low: 0.4, high: 1.5", 10, ["projection.task_energy.high"]),
    "empty_values": ("[none, both]", "{values: []}", 9, ["at least one value"]),
    "neither_list_nor_range": ("[none, both]", "7", 9, ["a list of values", "low, high"]),
    "condition_on_nothing": ("when: {projection.mode", "when: {projection.mod", 10, ["did you mean 'projection.mode'"]),
    "condition_never_holds": ("when: {projection.mode: both}", "when: {projection.mode: pegp}", 10, ["never apply"]),
    "condition_on_one_number_of_many": (
        "step: 5}",
        "step: 5, when: {train.lr: 0.3}}",
        7,
        ["train.lr hardly ever takes one number twice"],
    ),
    "condition_on_the_method": (
        "  projection.mode: [none, both]",
        "  projection.mode: [none, both]\n  method: {values: [fwd_prompt, er], when: {projection.mode: both}}",
        10,
        ["has a method in any case"],
    ),
    "condition_is_no_mapping": ("when: {projection.mode: both}", "when: both", 10, ["expected {AXIS: VALUE}"]),
    "no_trials": ("  trials: 10\n", "", 11, ["trials", "missing"]),
    "no_such_search": ("kind: optuna", "kind: bayes", 12, ["there is no search 'bayes'"]),
    "no_such_sampler": ("kind: optuna", "kind: optuna\n  sampler: cmaes", 13, ["'tpe'"]),
    "unknown_setting": ("trials: 10", "trials: 10\n  trails: 3", 14, ["did you mean 'trials'"]),
    "no_such_metric": ("trials: 10", "trials: 10\n  objectives: {accuracy: maximize}", 14, ["no metric 'accuracy'"]),
    "seconds_differ_from_run_to_run": ("trials: 10", "trials: 10\n  objectives: {seconds: minimize}", 14, ["seconds"]),
    "no_such_direction": (
        "trials: 10",
        "trials: 10\n  objectives: {average_accuracy: up}",
        14,
        ["'maximize' or 'minimize'"],
    ),
    "needs_all_cells": (
        "trials: 10",
        "trials: 10\n  objectives: {forward_transfer: maximize}",
        14,
        ["evaluation.cells: all"],
    ),
    "needs_direct": (
        "trials: 10",
        "trials: 10\n  objectives: {intransigence: minimize}",
        14,
        ["references: [direct]"],
    ),
    "grid_of_a_range": ("search:\n  kind: optuna\n  trials: 10\n", "", 8, ["has no step", "kind: optuna"]),
    "robust_grid": (
        "search:\n  kind: optuna\n  trials: 10\n",
        "search: grid\nrobust: {statistic: worst}\n",
        12,
        ["set search"],
    ),
    "no_statistic": ("seeds: [0, 1]", "seeds: [0]\nrobust: {statistic: median}", 15, ["'worst'"]),
    "pruner_of_the_worst": (
        "seeds: [0, 1]",
        "seeds: [0]\nrobust: {statistic: worst, pruner: wilcoxon}",
        15,
        ["says nothing of worst"],
    ),
    "two_ways_to_drop": (
        "seeds: [0, 1]",
        "robust: {pruner: wilcoxon}\nhalving: {min_stages: 1}\nseeds: [0]",
        14,
        ["keep one"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_name_file_line_key_and_remedy(name: str, tmp_path: Path) -> None:
    old, new, line, fragments = BROKEN[name]
    assert old in GOOD
    path = tmp_path / "sweep.yaml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(SpecError) as refused:
        load_spec(path)
    found = [one for one in str(refused.value).splitlines() if one.startswith(f"{path}:{line}: ")]
    assert_names_place("".join(found), path, line, fragments)


def test_conditions_that_wait_for_one_another_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    text = GOOD.replace("[none, both]", "{values: [none, both], when: {pool.size: 10}}")
    path.write_text(text.replace("step: 5}", "step: 5, when: {projection.mode: both}}"))
    with pytest.raises(SpecError, match="wait for one another"):
        load_spec(path)


def test_a_resolved_file_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    extra = (
        "  objectives: {average_accuracy: maximize, forgetting: minimize}\n"
        "  from: [somewhere]\n"
        "robust: {statistic: cvar, level: 0.5}\n"
    )
    path.write_text(GOOD.replace("  trials: 10\n", "  trials: 10\n" + extra))
    spec = load_spec(path)
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(resolved(spec)))
    assert load_spec(again) == spec


def test_set_changes_a_search(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(GOOD)
    spec = load_spec(path, ["search={kind: random, trials: 3}", "axes.pool.size={low: 10, high: 20, step: 10}"])
    assert spec.search == {"kind": "random", "trials": 3}
    assert spec.axes["pool.size"] == Range(10, 20, step=10)


def test_a_grid_goes_through_steps_and_conditions(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        GOOD[: GOOD.index("search:")]
        .replace("low: 0.001, high: 1.0, log: true", "low: 0.5, high: 1.0, step: 0.5")
        .replace("low: 0.4, high: 0.99,", "low: 0.4, high: 0.8, step: 0.2,")
    )
    trials = make_trials(load_spec(path))
    # seven sizes, two rates; both with three energies, and none without
    assert len(trials) == 7 * 2 * (3 + 1)
    assert {trial.settings["projection.task_energy"] for trial in trials} == {None, 0.4, 0.6, 0.8}
    assert {trial.settings["train.lr"] for trial in trials} == {0.5, 1.0}


def test_what_a_search_checks_and_plans_beforehand(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(GOOD)
    spec = load_spec(path)
    sizes = {trial.experiment.pool.size for trial in known_trials(spec)}
    assert {10, 40} <= sizes
    assert len(stand_ins(spec)) == 10 * 2
    assert at_once(spec, known_trials(spec)) == 8 * 2


RANGES = st.one_of(
    st.builds(lambda low, width: Range(low, low + width), st.integers(-5, 50), st.integers(1, 40)),
    st.builds(
        lambda low, step, n: Range(low, low + step * n, step=step),
        st.integers(0, 9),
        st.integers(1, 9),
        st.integers(1, 9),
    ),
    st.builds(lambda low, n: Range(low, low + 0.1 * n, step=0.1), st.sampled_from([0.0, 0.3, 1.0]), st.integers(1, 12)),
    st.builds(lambda low, width: Range(low, low + width), st.floats(-5, 5), st.floats(0.1, 5)),
    st.builds(lambda low, times: Range(low, low * times, log=True), st.floats(1e-4, 1), st.floats(1.5, 1e4)),
    st.builds(lambda low, times: Range(low, low * times, log=True), st.integers(1, 9), st.integers(2, 99)),
)


@given(RANGES, st.floats(0, 1, exclude_max=True))
@settings(deadline=None)
def test_a_range_holds_what_it_gives(one: Range, share: float) -> None:
    value = one.at(share)
    assert one.holds(value)
    assert isinstance(value, int) == one.whole
    assert not one.holds(one.high + 1)
    assert not one.holds(True)
    assert one.at(0.0) == pytest.approx(one.low)
    if one.count is not None and not one.log:
        assert len(one.levels()) == one.count
        assert all(one.holds(level) for level in one.levels())
        assert one.levels()[-1] == pytest.approx(one.high)


def test_every_number_of_a_range_is_as_likely(tmp_path: Path) -> None:
    found = [Range(1, 5).at(i / 1000) for i in range(1000)]
    assert {found.count(number) for number in range(1, 6)} == {200}


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Space:
    path = tmp_path_factory.mktemp("space") / "sweep.yaml"
    path.write_text(GOOD)
    return Space(load_spec(path))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_a_space_holds_its_points(space: Space, seed: int) -> None:
    rng = random.Random(seed)
    point = space.at([rng.random() for _ in space.axes])
    assert space.holds(point)
    assert ("projection.task_energy" in point) == (point["projection.mode"] == "both")
    assert not space.holds({**point, "pool.size": 11})
    assert not space.holds({name: value for name, value in point.items() if name != "train.lr"})
    assert space.reduced({**point, "projection.task_energy": 0.5}).keys() == point.keys()
