"""A race that has been run to its end is told again from what is stored, without a worker."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from mcit_core.config import Experiment
from mcit_core.stages.results import UNTOUCHED, StageResult
from orchestration.keep.records import Records
from orchestration.keep.trial_record import TrialRecord
from orchestration.plan.spec import SweepSpec
from orchestration.run import from_store
from orchestration.run.from_store import MissingError, read_race
from orchestration.run.progress import Progress
from orchestration.search.course import Course
from tests.support.searching import result, run_search, smooth, write_sweep_file

SEARCH = {"kind": "random", "trials": 12, "batch": 4, "objectives": {"average_accuracy": "maximize"}}
GRID = {"train.lr": [0.003, 0.01, 0.03, 0.1], "pool.size": [20, 40]}
RULES: dict[str, dict[str, object]] = {
    "search": {"search": SEARCH, "halving": {"min_stages": 1}},
    "grid": {"axes": GRID, "halving": {"min_stages": 1}, "references": ["sequential"]},
    "pruner": {"search": {**SEARCH, "trials": 16}, "seeds": [*range(6)], "robust": {"pruner": "wilcoxon"}},
}


class Again:
    """A second command on a RUN; what its trials showed is stored, but for the second stages of `missing`."""

    def __init__(self, spec: SweepSpec, run: Path, monkeypatch: pytest.MonkeyPatch, missing: str = "") -> None:
        self.course = Course(spec, run)
        self.records = Records(run, spec, self.course.trials())
        self.records.begin(lambda trial: "key", bool(spec.halving))
        by_experiment = {record.trial.experiment.model_dump_json(): record for record in self.records.records.values()}

        def begin(experiment: Experiment, *_: object) -> object:
            record = by_experiment[experiment.model_dump_json()]
            return Stored(record, record.trial.id == missing)

        monkeypatch.setattr(from_store, "_begin", begin)
        monkeypatch.setattr(from_store, "trial_key", lambda *_: "key")
        self.progress = Progress(Console(file=io.StringIO()), self.records, lambda trial: None)

    def read(self) -> bool:
        assert self.records.all_ended
        left = [record.trial for record in self.records.records.values() if record.status != "FINISHED"]
        race = self.course.race(self.records)
        assert race is not None
        found = read_race(left, race, Path(), "", self.progress)
        self.records.write()
        return found


class Stored(SimpleNamespace):
    bench = None

    def __init__(self, record: TrialRecord, lacks: bool) -> None:
        super().__init__(record=record, lacks=lacks)

    def __iter__(self) -> Iterator[StageResult]:
        trial = self.record.trial
        yield StageResult(UNTOUCHED, None, [], {})
        for stage, row in enumerate(smooth(trial)):
            if self.lacks and stage:
                raise MissingError
            yield replace(result(trial, stage, row), reused=True)


def rows(run: Path) -> list[dict[str, object]]:
    found = pq.read_table(run / "trials.parquet").drop_columns(["stages_trained", "stages_reused"]).to_pylist()
    return [dict(row) for row in found]


@pytest.fixture(params=RULES)
def finished(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[SweepSpec, Path]:
    spec = write_sweep_file(tmp_path, **RULES[request.param])
    run_search(spec, tmp_path / "run", 3, random.Random(0))
    return spec, tmp_path / "run"


def test_all_is_as_it_was(finished: tuple[SweepSpec, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    spec, run = finished
    before = rows(run)
    assert {row["status"] for row in before} == {"FINISHED", "STOPPED"}
    again = Again(spec, run, monkeypatch)
    assert again.read()
    assert rows(run) == before
    assert {record.status for record in again.records.records.values()} == {"FINISHED", "STOPPED"}


@pytest.mark.parametrize("finished", ["search", "grid"], indirect=True)
def test_nothing_is_told_where_a_stage_is_missing(
    finished: tuple[SweepSpec, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, run = finished
    before = rows(run)
    last = next(str(row["trial"]) for row in reversed(before) if row["status"] == "FINISHED")
    again = Again(spec, run, monkeypatch, missing=last)
    assert not again.read()
    assert {record.status for record in again.records.records.values()} == {"UNFINISHED"}
    assert rows(run) == before  # what an earlier command finished stands
