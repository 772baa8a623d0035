"""Leases: who trains which stage, among processes that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestration.keep.files import Folder
from orchestration.keep.leases import Leases
from orchestration.keep.stage_store import StageStore, Trained
from tests.support.storing import stage_key, trained


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
    leases = Leases(Folder(tmp_path))
    assert leases.attempt(stage_key().key) is None
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    begun = time.monotonic()
    assert StageStore(tmp_path).stage(stage_key(), trained)[2] is False
    assert time.monotonic() - begun < 5


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_lease_expires_by_the_waiting_side_s_own_clock_alone(tmp_path: Path) -> None:
    clock = Clock()
    ours, theirs = Leases(Folder(tmp_path)), Leases(Folder(tmp_path), ttl=30, clock=clock)
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
    leases = Leases(Folder(tmp_path), clock=clock)
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "k.json").write_bytes(torn)
    assert leases.attempt("k") is None
    clock.now = 31.0
    assert leases.attempt("k")


def test_a_lease_beats_while_its_stage_trains(tmp_path: Path) -> None:
    leases = Leases(Folder(tmp_path), ttl=0.5, beat=0.1)
    other = Leases(Folder(tmp_path), ttl=0.5)
    seen: list[object] = []

    def train() -> Trained:
        for _ in range(10):
            time.sleep(0.1)
            seen.append(other.attempt(stage_key().key))
        return trained()

    StageStore(tmp_path, leases=leases).stage(stage_key(), train)
    assert seen == [None] * 10
    assert other.attempt(stage_key().key)
