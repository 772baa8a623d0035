"""A search begins with what other RUNs know, where it is of the very same experiments."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mcit_core.yaml_document import SpecError
from orchestration.keep.provenance import write_sweep
from orchestration.plan.spec import SweepSpec
from orchestration.plan.sweep_file import resolved
from orchestration.search.course import Course
from orchestration.search.proposals import Proposals
from tests.support.searching import SWEEP, run_search, write_sweep_file


def earlier(folder: Path, **keys: object) -> Path:
    folder.mkdir()
    spec = write_sweep_file(folder, **{"name": "earlier", "search": {"kind": "random", "trials": 8}, **keys})
    run_search(spec, folder / "earlier", 2, random.Random(0))
    write_sweep(folder / "earlier", resolved(spec), {})
    return folder / "earlier"


def later(folder: Path, run: Path, **keys: object) -> SweepSpec:
    search = {"kind": "optuna", "trials": 6, "batch": 3, "seed": 3, "from": [str(run)]}
    return write_sweep_file(folder, **{"search": search, **keys})


def test_settings_of_another_run_are_known_and_not_proposed(tmp_path: Path) -> None:
    run = earlier(tmp_path / "a")
    spec = later(tmp_path, run)
    course = Course(spec, tmp_path)
    assert course.said == [f"search.from: 8 settings of {run} are known"]
    known = course.search.state()
    assert [one.number for one in known] == list(range(-8, 0))
    assert {one.state for one in known} == {"complete"}
    assert all(0 < one.objectives[0] < 1 for one in known)
    records = run_search(spec, tmp_path / "run", 2, random.Random(1))
    assert len(records.records) == 6
    points = [str(one.values) for batch in Proposals(tmp_path / "run", spec).read() for one in batch.proposals]
    assert len(points) == len(set(points)) == 14


def test_what_was_known_stays_known_whatever_becomes_of_the_other_run(tmp_path: Path) -> None:
    run = earlier(tmp_path / "a")
    spec = later(tmp_path, run)
    run_search(spec, tmp_path / "run", 2, random.Random(1))
    before = Proposals(tmp_path / "run", spec).read()
    (run / "trials.parquet").unlink()
    (run / "sweep.yaml").unlink()
    run_search(spec, tmp_path / "run", 4, random.Random(2))
    assert Proposals(tmp_path / "run", spec).read() == before


@pytest.mark.parametrize(
    "keys",
    [
        {"seeds": [1]},
        {"base": {"train.steps": 7}},
        {"axes": {**SWEEP["axes"], "train.lr": {"low": 2.0, "high": 9.0}}},  # type: ignore[dict-item]
    ],
)
def test_other_experiments_are_not_known(tmp_path: Path, keys: dict[str, object]) -> None:
    spec = later(tmp_path, earlier(tmp_path / "a"), **keys)
    course = Course(spec, tmp_path)
    assert course.search.state() == []
    assert "0 settings" in course.said[0]


def test_numbers_are_known_as_the_axis_has_them(tmp_path: Path) -> None:
    """A rate of 1 is 1.0 in an experiment."""
    keys: dict[str, object] = {"axes": {"train.lr": [1, 0.1], "pool.size": {"low": 20, "high": 21}}}
    spec = later(tmp_path, earlier(tmp_path / "a", **keys), **keys)
    course = Course(spec, tmp_path)
    assert len(course.search.state()) == 4
    assert course.search.propose(0) == []


def test_a_run_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"search\.from: .*nowhere cannot be read"):
        Course(later(tmp_path, tmp_path / "nowhere"), tmp_path)
