"""A command on a RUN that is there already: what has finished stays, and counts while it is of today's code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestration.keep.journal import read_journal
from orchestration.keep.provenance import write_sweep
from orchestration.keep.records import Records
from orchestration.keep.tables import Row
from orchestration.plan.sweep_file import load_spec, resolved
from orchestration.plan.trials import make_trials
from orchestration.results.notices import notices
from orchestration.results.reading import read_results
from tests.orchestration.tracking.test_tracking import fill, make_records, provenance

TABLES = ("trials", "accuracy", "stages", "steps")


def end_all(records: Records, key: str = "today") -> Records:
    for record in records.records.values():
        record.key = key
        # what is written has metrics in every stage
        record.stages = [stage for stage in record.stages if stage.metrics]
        records.ended(record)
    records.write()
    write_sweep(records.run, resolved(records.spec), provenance())
    return records


@pytest.fixture
def run(tmp_path: Path) -> Records:
    """A finished RUN of two trials, by the code of today."""
    return end_all(fill(make_records(tmp_path)))


def command(run: Records, key: str | None = "today", again: bool = False) -> tuple[Records, list[str]]:
    """The same command again, as far as its start."""
    records = Records(run.run, run.spec, [record.trial for record in run.records.values()])
    return records, records.begin(lambda trial: key, again)


def table(run: Records, name: str = "trials") -> list[Row]:
    return pq.read_table(run.run / f"{name}.parquet").to_pylist()


def without_counts(rows: list[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if not name.startswith("stages_")} for row in rows]


def journal(run: Records) -> list[tuple[object, object]]:
    return [(entry["trial"], entry["status"]) for entry in read_journal(run.run / "journal")]


def test_a_finished_run_is_finished(run: Records) -> None:
    before = {name: table(run, name) for name in TABLES}
    records, said = command(run)
    assert said == ["2 of 2 trials have finished before"]
    assert [record.status for record in records.records.values()] == ["FINISHED"] * 2
    records.write()
    for name in ("accuracy", "stages", "steps"):
        assert table(run, name) == before[name]
    assert without_counts(table(run)) == without_counts(before["trials"])
    assert [(row["stages_trained"], row["stages_reused"]) for row in table(run)] == [(0, 2), (0, 2)]
    assert sorted(journal(run)) == sorted((row["trial"], "FINISHED") for row in before["trials"])


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("ended", ["UNFINISHED", "FAILED"])
def test_a_command_that_ends_early_takes_nothing_away(run: Records, again: bool, ended: str) -> None:
    """Neither when it has begun, nor when a trial of it has failed half-way, with every trial gone through again."""
    before = {name: table(run, name) for name in TABLES}
    records, _ = command(run, again=again)
    first = next(iter(records.records.values()))
    if again:
        first.stages, first.status, first.error = first.earlier.stages[:1], ended, "boom"  # type: ignore[union-attr]
        if ended == "FAILED":
            records.ended(first)
    records.write()
    for name in ("accuracy", "stages", "steps"):
        assert table(run, name) == before[name]
    assert without_counts(table(run)) == without_counts(before["trials"])
    assert {status for _, status in journal(run)} == {"FINISHED"}


def test_a_result_of_other_code_stands_marked_until_a_newer_one_has_finished(run: Records) -> None:
    before = table(run)
    records, said = command(run, key="tomorrow")
    assert said == ["2 finished by other code, data or versions: kept until they finish anew"]
    assert [record.status for record in records.records.values()] == ["UNFINISHED"] * 2
    first = next(iter(records.records.values()))
    first.stages, first.status, first.error = first.earlier.stages[:1], "FAILED", "boom"  # type: ignore[union-attr]
    records.ended(first)
    records.write()
    rows = table(run)
    assert [row["status"] for row in rows] == ["OUTDATED"] * 2
    assert [row["average_accuracy"] for row in rows] == [row["average_accuracy"] for row in before]
    assert "ended with: boom" in str(rows[0]["error"])
    assert {row["key"] for row in rows} == {"today"}
    assert read_results(run.run).finished == []  # they do not count
    assert notices(read_results(run.run))[0].startswith("2 of 2 trials finished by other code")
    # with the old code back they do
    assert [record.status for record in command(run)[0].records.values()] == ["FINISHED"] * 2
    # a newer one takes the place
    records, _ = command(run, key="tomorrow")
    for record in records.records.values():
        stored = record.earlier
        assert stored
        record.stages = [
            replace(stage, accuracy=[replace(cell, accuracy=0.5) for cell in stage.accuracy]) for stage in stored.stages
        ]
        record.status, record.key = "FINISHED", "tomorrow"
        records.ended(record)
    records.write()
    assert [(row["status"], row["key"], row["average_accuracy"]) for row in table(run)] == [
        ("FINISHED", "tomorrow", 0.5)
    ] * 2


def test_the_latest_failure_is_told(run: Records) -> None:
    """Also of a trial that failed before it had a stage, where an earlier command's failure had one."""
    first, second = run.records.values()
    for record, stages in ((first, first.stages[:1]), (second, [])):
        record.status, record.error, record.stages = "FAILED", "earlier", stages
    end_all(run)
    records, _ = command(run)
    for record in records.records.values():
        record.status, record.error = "FAILED", "later"
        records.ended(record)
    records.write()
    assert [row["error"] for row in table(run)] == ["later"] * 2


def test_the_tracker_does_not_take_what_is_set_aside_for_a_result(run: Records) -> None:
    for lost in (False, True):
        records, _ = command(run, key="tomorrow")
        records.write()
        if lost:
            (run.run / "trials.parquet").unlink()
        found = Records(run.run, run.spec, [record.trial for record in run.records.values()])
        found.read()
        assert {record.status for record in found.records.values()} == {"OUTDATED"}
        assert set(found.set_aside().values()) == {"OUTDATED"}


def test_a_run_of_a_version_without_keys_is_gone_through_again(run: Records) -> None:
    for record in run.records.values():
        record.key = None
    end_all(run, key="")
    records, said = command(run)
    assert [record.status for record in records.records.values()] == ["UNFINISHED"] * 2
    assert said == ["2 finished by other code, data or versions: kept until they finish anew"]


def test_trials_that_the_file_no_longer_has_are_kept_and_marked(run: Records, tmp_path: Path) -> None:
    before = {name: table(run, name) for name in TABLES}
    file = tmp_path / "tracked.yaml"
    file.write_text(file.read_text().replace("axes:", "axes:\n  train.lr: [0.5]\n  pool.reuse: [share, freeze]"))
    spec = load_spec(file)
    trials = make_trials(spec)
    other = Records(run.run, spec, trials)
    assert other.begin(lambda trial: "today") == ["2 that the sweep file no longer has are kept: NOT_IN_SWEEP"]
    fill(other)
    end_all(other)
    rows = {str(row["trial"]): row for row in table(run)}
    assert len(rows) == 2 + len(trials)
    for row in before["trials"]:
        kept = rows[str(row["trial"])]
        assert kept["status"] == "NOT_IN_SWEEP"
        assert kept["average_accuracy"] == row["average_accuracy"]
        assert kept["projection.task_energy"] == row["projection.task_energy"]
    ids = {row["trial"] for row in before["trials"]}
    for name in ("accuracy", "stages", "steps"):
        assert [row for row in table(run, name) if row["trial"] in ids] == before[name]
    results = read_results(run.run)
    assert len(results.trials) == len(trials)
    assert len(results.left) == 2
    assert notices(results)[0].startswith("trials.parquet keeps 2 finished trials that the sweep file no longer has")
    # the file as it was: they count again, and the others are kept
    records, said = command(run)
    assert [record.status for record in records.records.values()] == ["FINISHED"] * 2
    assert said[1] == f"{len(trials)} that the sweep file no longer has are kept: NOT_IN_SWEEP"
    records.write()
    assert {row["status"] for row in table(run) if row["trial"] in ids} == {"FINISHED"}


@pytest.mark.parametrize("lost", ["journal", "trials.parquet", "stages.parquet", "steps.parquet"])
def test_journal_and_tables_stand_in_for_one_another(run: Records, lost: str) -> None:
    wanted = {name: table(run, name) for name in TABLES}
    path = run.run / lost
    path.write_bytes(path.read_bytes()[:-9])
    records, _ = command(run)
    assert [record.status for record in records.records.values()] == ["FINISHED"] * 2
    records.write()
    assert without_counts(table(run)) == without_counts(wanted["trials"])
    for name in ("accuracy", "stages", "steps"):
        assert table(run, name) == wanted[name]


def test_an_outdated_result_is_known_by_the_tables_alone(run: Records) -> None:
    records, _ = command(run, key="tomorrow")
    records.write()
    (run.run / "journal").unlink()
    assert [record.status for record in command(run)[0].records.values()] == ["FINISHED"] * 2
