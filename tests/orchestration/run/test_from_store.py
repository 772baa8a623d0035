"""A race that has been run to its end is told again from its RUN, without a worker."""

from __future__ import annotations

import io
import random
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from mcit_core.methods import build_experiment
from mcit_core.stages.results import StageResult
from orchestration.keep.records import Records
from orchestration.plan.halving import Halving, run_again
from orchestration.plan.spec import HalvingRule, SweepSpec
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import Trial
from orchestration.run.from_store import read_race
from orchestration.run.progress import Progress
from orchestration.search.course import Course
from tests.support.searching import run_search, smooth, write_sweep_file

SEARCH = {"kind": "random", "trials": 12, "batch": 6, "objectives": {"average_accuracy": "maximize"}}
GRID = {"train.lr": [0.003, 0.01, 0.03, 0.1], "pool.size": [20, 40]}
RULES: dict[str, dict[str, object]] = {
    "search": {"search": SEARCH, "halving": {"min_stages": 1, "reduction": 3}},
    "grid": {"axes": GRID, "halving": {"min_stages": 1, "reduction": 3}, "references": ["sequential", "blind"]},
    "pruner": {"search": {**SEARCH, "trials": 16}, "seeds": [*range(6)], "robust": {"pruner": "wilcoxon"}},
}


class Noting(Progress):
    """Notes what it is told."""

    def __init__(self, records: Records) -> None:
        super().__init__(Console(file=io.StringIO()), records, lambda trial: None)
        self.told: list[tuple[str, str]] = []

    def started(self, trial: str) -> None:
        self.told.append((trial, "started"))
        super().started(trial)

    def stages(self, trial: str, results: list[StageResult], key: str) -> None:
        self.told.append((trial, f"{len(results)} of {key}"))
        super().stages(trial, results, key)

    def _end(self, trial: str, status: str, error: str | None = None) -> None:
        self.told.append((trial, status))
        super()._end(trial, status, error)


def read(spec: SweepSpec, run: Path, key: str = "key") -> tuple[bool, Records, Noting]:
    """What a second command does before it turns to Ray; `key`: what numbers follow from today."""
    course = Course(spec, run)
    records = Records(run, spec, course.trials())
    records.begin(lambda trial: key, bool(spec.halving))
    race = course.race(records)
    assert race is not None
    progress = Noting(records)
    found = course.over and read_race(records, race, progress)
    records.write()
    return found, records, progress


def ends(records: Records) -> dict[str, tuple[str, int]]:
    return {name: (record.status, len(record.trained)) for name, record in records.records.items()}


def rows(run: Path) -> list[dict[str, object]]:
    found = pq.read_table(run / "trials.parquet").drop_columns(["stages_trained", "stages_reused"]).to_pylist()
    return [dict(row) for row in found]


@pytest.fixture(params=RULES)
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> SweepSpec:
    return write_sweep_file(tmp_path, **RULES[request.param])


def test_all_is_as_it_was(spec: SweepSpec, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = ends(run_search(spec, run, 3, random.Random(0)))
    before = rows(run)
    assert {status for status, _ in first.values()} == {"FINISHED", "STOPPED"}
    found, records, progress = read(spec, run)
    assert found
    assert ends(records) == first
    assert rows(run) == before
    left = first if spec.halving else {name: end for name, end in first.items() if end[0] == "STOPPED"}
    for name, (status, stages) in left.items():
        told = [what for trial, what in progress.told if trial == name]
        assert told == ([] if stages == 0 else ["started", f"{stages} of key"]) + [status]
    assert {trial for trial, _ in progress.told} == left.keys()


def other_key(spec: SweepSpec, run: Path) -> tuple[bool, Records, Noting]:
    return read(spec, run, "other")


def other_rule(spec: SweepSpec, run: Path) -> tuple[bool, Records, Noting]:
    """More go on, beyond what they have shown; a search is another one."""
    return read(load_spec(run.parent / "sweep.yaml", ["halving.reduction=2"]), run)


@pytest.mark.parametrize("spec", ["search", "grid"], indirect=True)
@pytest.mark.parametrize("change", [other_key, other_rule])
def test_nothing_is_told_where_it_is_not_the_same_any_more(change: object, spec: SweepSpec, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = ends(run_search(spec, run, 3, random.Random(0)))
    found, records, progress = change(spec, run)  # type: ignore[operator]
    assert not found
    assert progress.told == []
    assert {record.status for record in records.records.values()} <= {"UNFINISHED"}
    # and a race that is made anew comes to the same ends
    assert ends(run_search(spec, run, 2, random.Random(1))) == first


def test_what_failed_is_tried_again(tmp_path: Path) -> None:
    spec = write_sweep_file(tmp_path, **RULES["grid"])

    def failing(trial: Trial) -> list[list[float]]:
        if trial.method == "sequential":
            raise ArithmeticError("diverged")
        return smooth(trial)

    run_search(spec, tmp_path / "run", 3, random.Random(0), failing)
    found, _, progress = read(spec, tmp_path / "run")
    assert not found
    assert progress.told == []


def test_a_race_over_what_went_on_to_the_end_without_one(tmp_path: Path) -> None:
    """Of a trial that is stopped now no more is told than it comes to."""
    run = tmp_path / "run"
    run_search(write_sweep_file(tmp_path, axes=GRID), run, 3, random.Random(0))
    spec = load_spec(tmp_path / "sweep.yaml", ["halving.reduction=3"])
    found, records, progress = read(spec, run)
    assert found
    assert ends(records) == ends(run_search(spec, tmp_path / "raced", 2, random.Random(0)))
    assert {what for _, what in progress.told} == {"started", "1 of key", "2 of key", "FINISHED", "STOPPED"}


def test_what_an_earlier_version_did_not_say_the_key_of_is_not_known(tmp_path: Path) -> None:
    """Nor where the model does not load here, so that there is no key of today."""
    spec = write_sweep_file(tmp_path, **RULES["grid"])
    run_search(spec, tmp_path / "run", 3, random.Random(0))
    records = Records(tmp_path / "run", spec, Course(spec, tmp_path / "run").trials())
    records.begin(lambda trial: None, True)
    for record in records.records.values():
        assert record.earlier is not None
        record.earlier = replace(record.earlier, key=None)
        assert record.earlier.stages
        assert records.ended_before(record) is None


class Waiting(Halving):
    def held(self, trial: str) -> bool:
        return True


def test_a_race_in_which_all_wait_ends() -> None:
    trial = Trial("one", build_experiment("mini", "mini", "sequential", ("ground",), 0, {}), {})
    assert run_again([trial], Waiting(HalvingRule(1, 2), {}, 2), {"one": []}) is None
