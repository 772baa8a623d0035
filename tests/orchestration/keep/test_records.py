"""A RUN survives torn lines, damaged Parquet files and kills; writing it stays linear."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestration.keep import records as records_module
from orchestration.keep.journal import Journal, read_journal
from orchestration.keep.provenance import write_sweep
from orchestration.keep.records import Records
from orchestration.plan.sweep_file import load_spec, resolved
from orchestration.plan.trials import make_trials
from orchestration.report import write_report
from orchestration.results.reading import metric_names, read_results
from orchestration.results.words import so_far
from orchestration.track import main as track
from tests.orchestration.tracking.test_tracking import fill, make_records, provenance, stage


def again(records: Records) -> Records:
    """The same sweep with nothing known of its results."""
    return Records(records.run, records.spec, [record.trial for record in records.records.values()])


def rows(records: Records) -> list[object]:
    return [(record.status, record.error, record.stages) for record in records.records.values()]


@pytest.fixture
def written(tmp_path: Path) -> Records:
    """A RUN whose trials have ended, its Parquet files written at the end."""
    records = fill(make_records(tmp_path), failed=True)
    for record in records.records.values():
        record.stages = [stage for stage in record.stages if stage.metrics]
        records.ended(record)
    records.write()
    write_sweep(records.run, resolved(records.spec), provenance())
    return records


def test_what_ended_since_the_last_writing_comes_from_the_journal(tmp_path: Path) -> None:
    records = fill(make_records(tmp_path))
    for record in records.records.values():
        records.ended(record)
    stored = pq.read_table(records.run / "trials.parquet").to_pylist()
    assert len(stored) == len(records.records)  # written at the first trial's end, then not again so soon
    assert len(read_journal(records.run / "journal")) == len(records.records)
    for name in ("trials", "stages", "accuracy"):
        (records.run / f"{name}.parquet").unlink()
    fresh = again(records)
    assert fresh.read() == [f"{records.run / 'trials.parquet'} is missing"]
    assert rows(fresh) == rows(records)


def test_the_parquet_files_are_not_written_at_every_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = fill(make_records(tmp_path))
    first, second = records.records.values()
    records.ended(first)
    before = (records.run / "trials.parquet").stat().st_mtime_ns
    records.ended(second)
    assert (records.run / "trials.parquet").stat().st_mtime_ns == before
    monkeypatch.setattr(records_module, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(records_module, "PAUSE_SHARE", 0.0)
    records.write()
    before = (records.run / "trials.parquet").stat().st_mtime_ns
    records.ended(second)
    assert (records.run / "trials.parquet").stat().st_mtime_ns > before


def test_a_journal_torn_anywhere_loses_no_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    entries = [{"trial": str(i), "text": "é\n" * i} for i in range(4)]
    ends = []
    for entry in entries:
        journal.append(entry)
        ends.append(path.stat().st_size)
    data = path.read_bytes()
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        whole = sum(end <= size for end in ends)
        assert [entry["trial"] for entry in read_journal(path)] == [str(i) for i in range(whole)]
    path.write_bytes(data[:-3])
    journal.append({"trial": "next"})
    assert [entry["trial"] for entry in read_journal(path)] == ["0", "1", "2", "next"]


def test_damage_is_found_and_mended_from_the_journal(written: Records) -> None:
    """Cuts and single flipped bits at random places of every file: never another number, never a traceback."""
    wanted, kept = rows(written), written.run.parent / "kept"
    shutil.copytree(written.run, kept)
    rng = random.Random(0)
    found = 0
    for name in ("trials.parquet", "stages.parquet", "steps.parquet", "accuracy.parquet", "journal"):
        data = (kept / name).read_bytes()
        for _ in range(60):
            place = rng.randrange(len(data))
            hurt = bytearray(data[:place] if rng.random() < 0.3 else data)
            if len(hurt) == len(data):
                hurt[place] ^= 1 << rng.randrange(8)
            (written.run / name).write_bytes(hurt)
            records = again(written)
            found += bool(records.read())
            assert rows(records) == wanted, (name, place)
        (written.run / name).write_bytes(data)
    assert found > 60


def test_track_rebuilds_a_damaged_file_and_says_so(written: Records, capsys: pytest.CaptureFixture[str]) -> None:
    path = written.run / "trials.parquet"
    before = path.read_bytes()
    path.write_bytes(before[: len(before) // 2])
    with pytest.raises(ValueError, match=r"trials.parquet is damaged .* writes it anew"):
        read_results(written.run)
    assert track([str(written.run)]) == 0
    assert "is damaged" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert len(read_results(written.run).trials) == 2


def test_track_on_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert track([str(tmp_path / "nothing")]) == 2
    records = make_records(tmp_path)
    write_sweep(records.run, resolved(records.spec), {})
    assert track([str(records.run)]) == 2
    message = capsys.readouterr().err
    assert "has no results that can be read" in message
    assert "Traceback" not in message


def test_track_says_that_the_server_is_dead_and_back_fills_elsewhere(
    written: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    assert track([str(written.run), "--uri", "http://127.0.0.1:9"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("MLflow at http://127.0.0.1:9 cannot be reached")
    assert len(message.splitlines()) == 1
    assert track([str(written.run)]) == 0


def test_what_direct_keeps_is_the_mean_over_its_tasks(tmp_path: Path) -> None:
    records = make_records(tmp_path)
    path = tmp_path / "tracked.yaml"
    path.write_text(path.read_text() + "references: [direct]\n")
    spec = load_spec(path)
    records = Records(records.run, spec, make_trials(spec))
    for record in records.records.values():
        for number, kept in ((0, 0.5), (1, 0.9)):
            result = stage(records, number)
            result.metrics["pretrained_retention"] = kept
            record.stages.append(result)
        record.status = "FINISHED"
    found = {row["method"]: row["pretrained_retention"] for row in map(records.trial_row, records.records.values())}
    assert found["direct"] == pytest.approx(0.7)
    assert found["fwd_prompt"] == 0.9  # what the last stage leaves


def test_a_half_finished_trial_has_its_metrics_so_far_and_no_final_ones(tmp_path: Path) -> None:
    records = make_records(tmp_path)
    one, other = records.records.values()
    one.stages, one.status, one.error = [stage(records, 0)], "FAILED", "OSError: disk full"
    other.stages, other.status = [stage(records, 0), stage(records, 1)], "FINISHED"
    records.write()
    rows = {row["trial"]: row for row in pq.read_table(records.run / "trials.parquet").to_pylist()}
    half, whole = rows[one.trial.id], rows[other.trial.id]
    assert half["average_accuracy"] is None
    assert half["partial/average_accuracy"] == records.metrics_at(one, 0)["average_accuracy"] is not None
    assert whole["partial/average_accuracy"] is None
    assert whole["average_accuracy"] is not None
    assert so_far(half).startswith("after 1 of 2 tasks: average accuracy ")
    assert so_far(whole) == ""
    write_sweep(records.run, resolved(records.spec), provenance())
    results = read_results(records.run)
    assert not [name for name in metric_names(results.trials, results.axes) if name.startswith("partial/")]
    write_report(records.run)
    assert so_far(half) in (records.run / "report.html").read_text()
