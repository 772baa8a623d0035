"""What is said while a sweep runs, and the table at its end."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from orchestration.keep.files import StorageError
from orchestration.keep.records import Records
from orchestration.report.console import print_summary
from orchestration.run.progress import UNANSWERED, Progress
from tests.orchestration.tracking.test_tracking import make_records, stage
from tests.support.places import ROOT


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def progress_of(records: Records) -> tuple[Progress, io.StringIO]:
    said = io.StringIO()
    return Progress(Console(file=said, width=200), records, lambda trial: None), said


def test_the_time_left_counts_a_shared_stage_once(tmp_path: Path, clock: list[float]) -> None:
    """Two trials of two stages share the first, so that one of three is left when one trial has ended."""
    records = make_records(tmp_path)
    first, second = records.records
    progress, said = progress_of(records)
    clock[0] += 500  # until Ray has started
    progress.started(first)
    clock[0] += 30
    progress.stages(first, [stage(records, -1), stage(records, 0)], "key")
    progress.paused(first)
    clock[0] += 30
    progress.stages(first, [stage(records, 1)], "key")
    progress.finished(first)
    before = said.getvalue()
    progress.started(second)  # whoever ended is told when its worker has another trial, and not as one that is idle
    (line,) = said.getvalue().removeprefix(before).splitlines()
    assert line == "trials 1 done, 1 running, 0 failed of 2 | stages 2 of 4 (0 from the store) | 30 s left"


def test_the_last_trial_is_told_at_the_end(tmp_path: Path) -> None:
    records = make_records(tmp_path)
    progress, said = progress_of(records)
    with progress:
        for trial in records.records:
            progress.started(trial)
            progress.stages(trial, [stage(records, i) for i in (-1, 0, 1)], "key")
            progress.finished(trial)
    assert said.getvalue().splitlines()[-1].startswith("trials 2 done, 0 running, 0 failed of 2 |")


def test_a_line_a_minute_where_there_is_no_terminal(tmp_path: Path, clock: list[float]) -> None:
    records = make_records(tmp_path)
    first = next(iter(records.records))
    progress, said = progress_of(records)
    for _ in range(10):
        clock[0] += 25
        progress.started(first)
    assert len(said.getvalue().splitlines()) == 3


def test_a_line_a_minute_also_where_no_stage_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestration.run.progress.LINE_SECONDS", 0.05)
    progress, said = progress_of(make_records(tmp_path))
    with progress:
        time.sleep(0.5)
    assert len(said.getvalue().splitlines()) > 2
    assert said.getvalue().startswith("trials 0 done, 0 running")


@pytest.mark.parametrize("width", [40, 100])
def test_a_terminal_shows_what_runs_now(tmp_path: Path, width: int) -> None:
    records = make_records(tmp_path)
    first, second = records.records
    said = io.StringIO()
    progress = Progress(Console(file=said, width=width, force_terminal=True), records, lambda trial: None)
    progress.started(first)
    progress.started(second)
    progress.stages(first, [stage(records, -1), stage(records, 0)], "key")
    progress.console.print(progress._view())
    lines = said.getvalue().splitlines()
    assert any(line.startswith(f"  {first}: stage 2 of 2") for line in lines)
    assert any(line.startswith(f"  {second}: stage 1 of 2") for line in lines)
    if width == 100:
        assert "ground, loss 0.500, accuracy so far 10.0 (seed 0" in said.getvalue()
    progress.paused(second)
    progress.console.print(progress._view())
    assert said.getvalue().count(second) == 1


def test_a_sweep_whose_store_stays_away_is_given_up_and_for_nothing_else(tmp_path: Path) -> None:
    records = make_records(tmp_path)
    first, second = records.records
    progress, _ = progress_of(records)
    away = "its worker was lost 4 times; the last time: UnreachableError: s3://b: the store does not answer"
    assert not any(progress.failed(first, "ValueError: a setting that fails with every seed") for _ in range(50))
    for _ in range(UNANSWERED - 1):
        assert not progress.failed(first, away)
    progress.stages(second, [stage(records, 0)], "key")  # a stage was trained: something works
    for _ in range(UNANSWERED - 1):
        assert not progress.failed(first, away)
    assert not progress.failed(first, "ValueError: another")
    for _ in range(UNANSWERED - 1):
        assert not progress.failed(first, away)
    assert progress.failed(first, away)
    assert progress.hopeless.startswith(f"given up after {UNANSWERED} trials in a row: {away}")


def test_a_disk_that_is_full_is_told_once_and_nothing_is_lost(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = make_records(tmp_path)
    first, second = records.records
    progress, said = progress_of(records)

    def full(entry: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(records._journal, "append", full)
        for trial in (first, second):
            progress.stages(trial, [stage(records, 0), stage(records, 1)], "key")
            progress.finished(trial)
        with pytest.raises(StorageError, match=r"journal: no space left .*gc"):
            records.write()
    assert said.getvalue().count("no space left") == 1
    records.write()
    again = make_records(tmp_path)
    again.read()
    assert [record.status for record in again.records.values()] == ["FINISHED"] * 2


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_number_of_the_final_table_is_cut(width: int) -> None:
    said = io.StringIO()
    print_summary(ROOT / "docs" / "data" / "pegp", Console(file=said, width=width))
    table = said.getvalue().partition("per cent,")[0]
    assert "…" not in table
    assert "58.0 ± 1.4" in table
    assert max(map(len, table.splitlines())) <= width
    if width >= 80:
        assert "−11.1 ± 11.3" in table
