"""What MLflow shows while a sweep runs: a trial's run is there with its start, grows by its stages, and ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestration.keep.records import Records
from orchestration.run.progress import Progress
from orchestration.tracking.tracker import Tracker
from tests.orchestration.tracking.test_tracking import (
    Cut,
    DyingTracker,
    _client,
    _runs,
    fill,
    make_records,
    provenance,
    seen,
    stage,
    storage,
    template,
    uri_of,
)

__all__ = ["storage", "template"]  # fixtures


def child(storage: Path, trial: str) -> Any:
    (found,) = [run for run in _runs(storage) if run.data.tags.get("mcit.trial") == trial]
    return found


def live(records: Records, trial: str, stages: int) -> None:
    """As `Progress` leaves a trial that is at work, its stages a minute apart."""
    record = records.records[trial]
    record.times.begun = 1_000_000.0
    for t in range(len(record.stages) - 1, stages):
        record.times.stages.append(1_000_000.0 + 60 * (t + 1))
        record.stages.append(stage(records, t))


def end(records: Records) -> None:
    for trial in records.records:
        live(records, trial, len(records.spec.tasks))
        records.records[trial].times.ended = 1_000_130.0
        records.records[trial].status = "FINISHED"


def test_a_trial_is_there_from_its_start_and_grows_by_its_stages(storage: Path) -> None:
    records = make_records(storage)
    first, second = records.records
    tracker = Tracker(uri_of(storage), records, provenance())
    live(records, first, -1)
    tracker.sync(only=[first, second])
    begun = child(storage, first)
    assert (begun.info.status, begun.info.start_time, begun.data.metrics) == ("RUNNING", 1_000_000_000, {})
    assert len(_runs(storage)) == 2  # the second has not begun
    points = []
    for stages in (1, 2):
        live(records, first, stages)
        tracker.sync(only=[first])
        run = child(storage, first)
        assert (run.info.run_id, run.info.status) == (begun.info.run_id, "RUNNING")
        points.append(len(_client(storage).get_metric_history(run.info.run_id, "average_accuracy")))
        assert "mcit.content" not in run.data.tags
    assert points == [1, 2]
    end(records)
    tracker.sync(final=True)
    run = child(storage, first)
    assert run.info.run_id == begun.info.run_id
    assert (run.info.status, run.info.end_time) == ("FINISHED", 1_000_130_000)
    found = seen(uri_of(storage), "tracked")
    other = make_records(storage, "undisturbed")
    end(other)
    Tracker(uri_of(storage), other, provenance()).sync(final=True)
    assert found == seen(uri_of(storage), "undisturbed")


def test_each_stage_more_is_one_request(storage: Path) -> None:
    records = make_records(storage)
    first, _ = records.records
    tracker = DyingTracker(uri_of(storage), records, provenance(), k=0, when="")
    live(records, first, 1)
    tracker.sync(only=[first])
    assert tracker.dying
    before = tracker.dying.calls
    live(records, first, 2)
    tracker.sync(only=[first])
    assert tracker.dying.calls == before + 1
    tracker.sync(only=[first])
    assert tracker.dying.calls == before + 1


@pytest.mark.parametrize("when", ["half", "after"])
def test_a_kill_at_any_call_while_a_trial_runs_heals_with_the_next_sync(storage: Path, when: str) -> None:
    uri = uri_of(storage)
    other = make_records(storage, "undisturbed")
    end(other)
    Tracker(uri, other, provenance()).sync(final=True)
    wanted = seen(uri, "undisturbed")
    k, cut = 0, True
    while cut:
        k += 1
        records = make_records(storage, f"killed{k}")
        first, _ = records.records
        tracker = DyingTracker(uri, records, provenance(), k=k, when=when)
        cut = False
        try:
            for stages in (-1, 1, 2):
                live(records, first, stages)
                tracker.sync(only=[first])
        except Cut:
            cut = True
        records = make_records(storage, f"killed{k}")  # the same command again, later
        live(records, first, 1)
        records.records[first].times.begun = 1_000_050.0
        tracker = Tracker(uri, records, provenance())
        tracker.sync(only=[first])
        end(records)
        tracker.sync(final=True)
        assert seen(uri, f"killed{k}") == wanted, f"cut {when} call {k}"
    assert k > 6


def test_a_trial_that_was_killed_runs_again_in_the_same_run(storage: Path) -> None:
    records = make_records(storage)
    first, _ = records.records
    live(records, first, 1)
    Tracker(uri_of(storage), records, provenance()).sync(final=True)  # Ctrl-C
    killed = child(storage, first)
    assert killed.info.status == "KILLED"
    records = make_records(storage)
    tracker = Tracker(uri_of(storage), records, provenance())
    tracker.sync()
    live(records, first, 2)
    tracker.sync(only=[first])
    assert child(storage, first).info.status == "RUNNING"
    end(records)
    tracker.sync(final=True)
    run = child(storage, first)
    assert (run.info.run_id, run.info.status) == (killed.info.run_id, "FINISHED")


def test_a_trial_that_fails_again_in_the_same_way_keeps_its_run_and_shows_that_it_ran(storage: Path) -> None:
    ids, found = set(), []
    for again in range(3):
        records = make_records(storage)
        first, _ = records.records
        record = records.records[first]
        tracker = Tracker(uri_of(storage), records, provenance())
        for stages in (0, 1):
            live(records, first, stages)
            tracker.sync(only=[first])
            run = child(storage, first)
            assert run.info.status == "RUNNING"
            assert "error" not in run.data.tags
        record.status, record.error = "FAILED", "boom"
        tracker.sync(final=True)
        ids.add(child(storage, first).info.run_id)
        found.append(seen(uri_of(storage), "tracked")[first])
        assert found[0] == found[again]
    assert len(ids) == 1
    assert found[0][3] == "FAILED"
    records = make_records(storage)
    tracker = Tracker(uri_of(storage), records, provenance())
    records.records[first].stages = [stage(records, -1, 0.1)]
    records.records[first].times.stages = [1_000_000.0]
    live(records, first, 1)
    records.records[first].stages[1] = stage(records, 0, 0.1)  # other numbers: a run of its own
    tracker.sync(only=[first])
    assert child(storage, first).info.run_id not in ids


def test_progress_writes_down_when_and_says_so(tmp_path: Path) -> None:
    records = make_records(tmp_path)
    first, _ = records.records
    news: list[str] = []
    progress = Progress(Console(quiet=True), records, news.append)
    progress.started(first)
    times = records.records[first].times
    begun = times.begun
    progress.paused(first)
    progress.started(first)
    assert times.begun == begun is not None
    progress.stages(first, [stage(records, -1), stage(records, 0)], "key")
    progress.stages(first, [stage(records, 1)], "key")
    progress.finished(first)
    assert news == [first] * 4
    assert len(times.stages) == 3
    assert times.ended is not None
    assert begun <= times.stages[0] <= times.stages[2] <= times.ended
    again = make_records(tmp_path)
    again.begin(lambda trial: "key")
    assert again.records[first].times == times  # of an earlier command, from the journal
    later = make_records(tmp_path)
    later.read()
    assert later.records[first].times == times


def test_an_outdated_result_stands_while_its_trial_runs_anew(storage: Path) -> None:
    records = fill(make_records(storage))
    first, _ = records.records
    for record in records.records.values():
        record.key = "old"
        records.ended(record)
    Tracker(uri_of(storage), records, provenance()).sync(final=True)
    before = child(storage, first)
    records = make_records(storage)
    records.begin(lambda trial: "new")
    live(records, first, 1)
    tracker = Tracker(uri_of(storage), records, provenance("two"))
    tracker.sync()
    run = child(storage, first)
    assert (run.info.run_id, run.info.status) == (before.info.run_id, "FINISHED")
    assert run.data.tags["status"] == "OUTDATED"
    end(records)
    tracker.sync(final=True)
    assert child(storage, first).data.tags["status"] == "FINISHED"
