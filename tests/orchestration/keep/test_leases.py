"""Leases: who trains which stage, among processes that die."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock

from mcit_core.stages.results import Evaluation
from orchestration.keep.files import LocalFolder
from orchestration.keep.leases import BeatLeases, LockLeases
from orchestration.keep.stage_store import BusyError, StageStore, Trained
from tests.support.storing import evaluation, stage_key, trained


def test_two_processes_train_a_stage_once(tmp_path: Path) -> None:
    code = f"""
import sys, time
from tests.support.storing import *
from orchestration.keep.stage_store import StageStore
def train():
    time.sleep(1.0)
    print("trained", flush=True)
    return trained()
assert StageStore({str(tmp_path)!r}).stage(stage_key(), train)[0].equals(state())
"""
    workers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert sorted(said) == ["", "trained\n"]


def test_the_lease_of_a_killed_process_is_taken_over_at_once(tmp_path: Path) -> None:
    code = f"""
import sys, time
from tests.support.storing import *
from orchestration.keep.stage_store import StageStore
def train():
    print("training", flush=True)
    time.sleep(600)
StageStore({str(tmp_path)!r}).stage(stage_key(), train)
"""
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert worker.stdout
    assert worker.stdout.readline() == "training\n"
    leases = LockLeases(LocalFolder(tmp_path))
    assert leases.attempt(stage_key().key) is None
    (held,) = leases.held()
    assert held["key"] == stage_key().key
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    begun = time.monotonic()
    assert leases.held() == []
    assert StageStore(tmp_path).stage(stage_key(), trained)[2] is False
    assert time.monotonic() - begun < 5
    assert not list((tmp_path / "leases").iterdir())


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_lease_that_was_given_back_is_free_and_no_two_hold_it(tmp_path: Path) -> None:
    """Eight threads, each with a file of its own opened: whoever holds the lease is alone."""
    leases = [LockLeases(LocalFolder(tmp_path)) for _ in range(8)]
    inside: list[int] = []
    taken: list[int] = []

    def work(number: int) -> None:
        for _ in range(200):
            lease = leases[number].attempt("k")
            if lease is None:
                continue
            with lease:
                inside.append(number)
                assert inside == [number]
                taken.append(number)
                inside.clear()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) > 8
    assert leases[0].attempt("k")


def test_where_there_are_no_locks_heartbeats_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(self: FileLock) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(FileLock, "acquire", without)
    leases = LockLeases(LocalFolder(tmp_path))
    with pytest.warns(UserWarning, match="no locks there"):
        lease = leases.attempt("k")
    assert lease
    assert leases.attempt("k") is None
    assert [body["key"] for body in leases.held()] == ["k"]
    with lease:
        pass
    assert leases.attempt("k")


def test_a_worker_need_not_wait_for_another_sweep_s_stage(tmp_path: Path) -> None:
    lease = LockLeases(LocalFolder(tmp_path)).attempt(stage_key().key)
    assert lease
    with lease, pytest.raises(BusyError, match="another sweep trains"):
        StageStore(tmp_path, wait=False).stage(stage_key(), trained)
    assert StageStore(tmp_path, wait=False).stage(stage_key(), trained)[2] is False


def test_workers_share_the_evaluation_of_the_untouched_model(tmp_path: Path) -> None:
    made: list[str] = []
    found: list[dict[str, Evaluation]] = []
    keys = [letter * 64 for letter in "abcde"]
    together = threading.Barrier(3)

    def make(key: str) -> Evaluation:
        made.append(key)
        time.sleep(0.1)
        return evaluation(ord(key[0]) / 200)

    def work() -> None:
        together.wait()
        found.append(StageStore(tmp_path).untouched({key: partial(make, key) for key in keys}))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == keys
    assert found == [{key: evaluation(ord(key[0]) / 200) for key in keys}] * 3


def test_a_lease_expires_by_the_waiting_side_s_own_clock_alone(tmp_path: Path) -> None:
    clock = Clock()
    ours, theirs = BeatLeases(LocalFolder(tmp_path)), BeatLeases(LocalFolder(tmp_path), ttl=30, clock=clock)
    lease = ours.attempt("k")
    assert lease
    (file,) = (tmp_path / "leases").iterdir()
    for jump in (0, 2_000_000_000, -86400):  # the file's time says nothing, wherever a clock jumped to
        os.utime(file, (abs(jump), abs(jump)))
        assert theirs.attempt("k") is None
    clock.now = 29.0
    assert lease.beat()
    assert theirs.attempt("k") is None  # it changed: 30 seconds from now
    clock.now = 58.9
    assert theirs.attempt("k") is None
    clock.now = 59.1
    taken = theirs.attempt("k")
    assert taken
    assert not lease.beat()  # the old holder sees that it lost it,
    lease.release()  # and does not give back what is another's
    assert taken.mine()
    taken.release()
    assert not list((tmp_path / "leases").iterdir())


@pytest.mark.parametrize("torn", [b"", b'{"tok'])
def test_a_torn_lease_expires_like_any_other(tmp_path: Path, torn: bytes) -> None:
    clock = Clock()
    leases = BeatLeases(LocalFolder(tmp_path), clock=clock)
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "k.json").write_bytes(torn)
    assert leases.attempt("k") is None
    clock.now = 31.0
    assert leases.attempt("k")


def test_a_lease_beats_while_its_stage_trains(tmp_path: Path) -> None:
    leases = BeatLeases(LocalFolder(tmp_path), ttl=0.5, beat=0.1)
    other = BeatLeases(LocalFolder(tmp_path), ttl=0.5)
    seen: list[object] = []

    def train() -> Trained:
        for _ in range(10):
            time.sleep(0.1)
            seen.append(other.attempt(stage_key().key))
        return trained()

    StageStore(tmp_path, leases=leases).stage(stage_key(), train)
    assert seen == [None] * 10
    assert other.attempt(stage_key().key)
