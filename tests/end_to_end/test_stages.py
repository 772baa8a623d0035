"""Who trains which stage on real Ray, with workers that are killed."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.support.object_store import CREDENTIALS, ObjectStore
from tests.support.sweeping import DISTINCT, STAGES, WORKERS, Sweep, mlflow_runs, without_counts


def test_every_distinct_stage_is_trained_once(undisturbed: Sweep) -> None:
    trials = undisturbed.table("trials")
    assert len(undisturbed.begun) == DISTINCT
    assert sum(int(str(row["stages_trained"])) for row in trials) == DISTINCT
    assert sum(int(str(row["stages_reused"])) for row in trials) == STAGES - DISTINCT
    assert len(set(undisturbed.begun)) <= 2  # each worker is loaded once; one that comes late finds nothing left


def test_a_killed_worker_costs_its_stage_alone(undisturbed: Sweep, tmp_path: Path) -> None:
    """And so does one whose file system has gone, which is no fault of the trial."""
    sweep = Sweep(tmp_path).begin(sleep=1.0, MCIT_TEST_STALE=str(tmp_path / "stale"))
    for count in (2, 6):
        os.kill(sweep.wait_for(count), signal.SIGKILL)
    sweep.end()
    assert len(sweep.begun) == DISTINCT + 3
    for name in ("accuracy", "stages"):
        assert sweep.table(name) == undisturbed.table(name)
    assert without_counts(sweep.table("trials")) == without_counts(undisturbed.table("trials"))


def test_the_same_command_again_trains_nothing(undisturbed: Sweep) -> None:
    before = undisturbed.table("accuracy")
    undisturbed.begin().end()
    assert len(undisturbed.begun) == DISTINCT
    assert undisturbed.table("accuracy") == before
    assert all(row["stages_trained"] == 0 for row in undisturbed.table("trials"))


def test_a_second_command_on_a_run_is_refused(undisturbed: Sweep, tmp_path: Path) -> None:
    """Nor does it harm that the folder in which Tune writes goes meanwhile: nothing of ours reads it."""
    sweep = Sweep(tmp_path).begin(sleep=0.5)
    sweep.wait_for(2)
    first = sweep.process
    assert first
    said = sweep.begin().end(code=2)
    assert "another command is at work on it" in said
    assert f"process {first.pid} on " in said
    (scratch,) = (sweep.storage / ".scratch").iterdir()
    assert scratch.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(scratch)
    sweep.process = first
    sweep.end()
    assert len(sweep.begun) == DISTINCT
    assert without_counts(sweep.table("trials")) == without_counts(undisturbed.table("trials"))
    assert mlflow_runs(sweep) == []
    assert "trials have finished before" in sweep.begin().end()


def test_two_commands_on_one_store_train_a_stage_once(undisturbed: Sweep, tmp_path: Path) -> None:
    first, second = Sweep(tmp_path, "first").begin(sleep=0.5), Sweep(tmp_path, "second").begin(sleep=0.5)
    first.end()
    second.end()
    assert len(first.begun) == DISTINCT  # the notes of both
    assert first.table("accuracy") == second.table("accuracy") == undisturbed.table("accuracy")


def test_a_sweep_whose_stages_are_in_an_object_store(
    undisturbed: Sweep, tmp_path: Path, object_store: ObjectStore
) -> None:
    """The same numbers, again nothing trained, and credentials in nothing that is written or said."""
    place = ("--stages", object_store.uri(object_store.bucket()))
    sweep = Sweep(tmp_path).begin(0.0, *place)
    said = sweep.end()
    assert len(sweep.begun) == DISTINCT
    assert sweep.table("accuracy") == undisturbed.table("accuracy")
    said += sweep.begin(0.0, *place).end()
    assert len(sweep.begun) == DISTINCT
    assert not (sweep.storage / "stages").exists()
    files = [file for file in sweep.storage.rglob("*") if file.is_file() and "features" not in file.parts]
    for secret in CREDENTIALS.values():
        assert secret not in said
        assert [file for file in files if secret.encode() in file.read_bytes()] == []
    nowhere = sweep.begin(0.0, "--stages", object_store.uri("nowhere")).end(code=2)
    assert "no such bucket; make it" in nowhere
    assert "Ray" not in nowhere


def test_out_of_memory_is_told_and_not_tried_again(tmp_path: Path) -> None:
    """Ray's memory monitor ends every worker, as it does where the machine's memory runs out."""
    sweep = Sweep(tmp_path).begin(RAY_memory_usage_threshold="0.001", RAY_memory_monitor_refresh_ms="100")
    sweep.end(code=1)
    trials = sweep.table("trials")
    assert {row["status"] for row in trials} == {"FAILED"}
    for row in trials:
        assert str(row["error"]).startswith("out of memory")
        assert str(row["error"]).count("Failure #") == 1


@pytest.mark.slow
def test_out_of_memory_in_the_middle_of_a_stage_ends_no_other_trial(tmp_path: Path) -> None:
    """Ray may end another worker first, but not those that come after."""
    memory = dict(re.findall(r"(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text()))
    total, available = int(memory["MemTotal"]), int(memory["MemAvailable"])
    threshold = (total - available + 2.5 * 2**20) / total
    sweep = Sweep(tmp_path).begin(
        MCIT_TEST_HOARD=str(tmp_path / "hoard"),
        RAY_memory_usage_threshold=f"{threshold:.4f}",
        RAY_memory_monitor_refresh_ms="100",
    )
    said = sweep.end(code=1)
    assert "Traceback" not in said
    trials = sweep.table("trials")
    failed = [row for row in trials if row["status"] == "FAILED"]
    assert 1 <= len(failed) <= WORKERS
    assert all(str(row["error"]).startswith("out of memory") for row in failed)
    assert all(row["status"] == "FINISHED" for row in trials if row not in failed)


def test_ray_listens_on_the_loopback_alone(undisturbed: Sweep) -> None:
    assert undisturbed.listening
    loopback = ("0100007F:", "0000000000000000FFFF00000100007F:", "00000000000000000000000001000000:")
    assert {address: who for address, who in undisturbed.listening.items() if not address.startswith(loopback)} == {}
