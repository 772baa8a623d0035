"""A stage store on an S3 server: few requests, exact leases, outages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest

from orchestration.keep import object_folder
from orchestration.keep.files import StorageError, UnreachableError
from orchestration.keep.leases import BeatLeases
from orchestration.keep.opening import open_folder
from orchestration.keep.stage_store import BusyError, StageStore
from orchestration.run.trainable import store_at
from tests.support.object_store import CREDENTIALS, ObjectStore
from tests.support.storing import evaluation, never, stage_key, state, trained


def test_four_processes_train_six_stages_once_each(object_store: ObjectStore) -> None:
    uri = object_store.uri(object_store.bucket())
    code = f"""
import time
from tests.support.storing import *
from orchestration.keep.stage_store import StageStore
store = StageStore({uri!r})
for name in "abcdef":
    def train():
        print(name, flush=True)
        time.sleep(0.2)
        return trained(float(ord(name)))
    assert store.stage(stage_key(name), train)[0].equals(state(float(ord(name))))
"""
    workers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = "".join(worker.communicate()[0] for worker in workers)
    assert [worker.returncode for worker in workers] == [0] * 4
    assert sorted(said.split()) == list("abcdef")
    assert [name for name in object_store.requests if name.endswith("/")] == []  # no markers of folders


def test_what_a_stage_and_a_beat_cost(object_store: ObjectStore) -> None:
    uri = object_store.uri(object_store.bucket())
    store = StageStore(uri)
    assert store.folder.exact
    del object_store.requests[:]
    store.put_stage(stage_key(), *trained())
    assert [request.split()[0] for request in object_store.requests] == ["PUT", "PUT"]
    del object_store.requests[:]
    assert store.stage(stage_key(), never)[0].equals(state())
    assert [request.split()[0] for request in object_store.requests] == ["GET", "GET"]
    del object_store.requests[:]
    lease = BeatLeases(store.folder).attempt("k")
    assert lease
    assert len(object_store.requests) == 1
    assert lease.beat()
    assert len(object_store.requests) == 2
    lease.release()
    assert len(object_store.requests) == 3
    del object_store.requests[:]
    store.stage(stage_key("b"), trained)  # look, lease, look, state, record, give back
    assert [request.split()[0] for request in object_store.requests] == ["GET", "PUT", "GET", "PUT", "PUT", "POST"]


def test_a_state_that_a_dead_worker_left_is_no_stage(object_store: ObjectStore) -> None:
    store = StageStore(object_store.uri(object_store.bucket()))
    key = stage_key()
    store.folder.write(f"{key.key[:2]}/{key.key}/state.safetensors", b"half")
    store.put_stage(key, *trained())
    assert store.stage(key, never)[0].equals(state())


def test_a_lease_expires_and_passes_to_one_alone(object_store: ObjectStore) -> None:
    folder = open_folder(object_store.uri(object_store.bucket()))
    now = [0.0]
    ours, *theirs = (BeatLeases(folder, clock=lambda: now[0]) for _ in range(3))
    lease = ours.attempt("k")
    assert lease
    assert [other.attempt("k") for other in theirs] == [None, None]
    now[0] = 31.0
    # both see that it is over, and write under the condition that it is still as they saw it
    seen = [other.folder.read_version("leases/k.json") for other in theirs]
    taken = [other.attempt("k") for other in theirs]
    assert [bool(found) for found in taken] == [True, False]
    assert seen[1] is not None
    assert folder.replace("leases/k.json", b"{}", seen[1][1]) is None
    assert not lease.beat()
    lease.release()
    assert taken[0] is not None
    assert taken[0].mine()


def test_a_worker_takes_over_from_a_dead_one_though_it_waits_for_none(object_store: ObjectStore) -> None:
    """Each time a trial starts its store is asked for anew, and remembers how long the lease has not changed."""
    uri = object_store.uri(object_store.bucket())
    dead = BeatLeases(open_folder(uri)).attempt(stage_key().key)
    assert dead
    leases = store_at(uri).leases
    assert isinstance(leases, BeatLeases)
    leases.ttl = 0.5
    with pytest.raises(BusyError):
        store_at(uri).stage(stage_key(), never)
    time.sleep(0.6)
    assert store_at(uri).stage(stage_key(), trained)[2] is False


def test_a_beat_whose_answer_was_lost_loses_no_lease(object_store: ObjectStore) -> None:
    folder = open_folder(object_store.uri(object_store.bucket()))
    leases = BeatLeases(folder)
    lease = leases.attempt("k")
    assert lease
    before = lease._version
    assert lease.beat()
    lease._version = before  # as where the answer did not come
    assert lease.beat()
    assert lease.beat()
    assert leases.attempt("k") is None


def test_a_server_that_refuses_conditions_is_noticed_too(object_store: ObjectStore) -> None:
    object_store.refuses = True
    uri = object_store.uri(object_store.bucket())
    assert not open_folder(uri).exact
    store = StageStore(uri)
    store.stage(stage_key(), trained)
    assert store.stage(stage_key(), never)[0].equals(state())


def test_a_server_that_is_gone_for_a_moment_is_asked_again(object_store: ObjectStore) -> None:
    store = StageStore(object_store.uri(object_store.bucket()))
    object_store.answers = False
    back = threading.Timer(3.0, setattr, (object_store, "answers", True))
    back.start()
    store.stage(stage_key(), trained)
    assert store.stage(stage_key(), never)[0].equals(state())
    back.join()


def test_a_server_that_stays_away_is_infrastructure(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_folder, "PATIENCE", timedelta(seconds=1))
    store = StageStore(object_store.uri(object_store.bucket()))
    object_store.answers = False
    begun = time.monotonic()
    with pytest.raises(UnreachableError, match=r"does not answer.*Check the connection"):
        store.stage(stage_key(), never)
    assert time.monotonic() - begun < 30


def test_what_can_not_be_used_is_told_with_its_remedy(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = StageStore(object_store.uri("not-there"))
    for use in (lambda: nowhere.stage(stage_key(), never), nowhere.entries, nowhere.folder.exists):
        with pytest.raises(StorageError, match=r"s3://not-there/stages.*: no such bucket; make it"):
            use()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_PROFILE", "not-there")
    with pytest.raises(ValueError, match="AWS profile"):
        open_folder(object_store.uri("bucket"))
    for uri, why in (
        ("ftp://host/stages", "ftp:// is none of s3, gs, az"),
        ("s3:///stages", "names no bucket"),
        ("s3://bucket/stages?endpoint=x", "endpoint: expected scheme, endpoint_override"),
        ("gs://bucket/stages?region=x", "region: expected nothing"),
    ):
        with pytest.raises(ValueError, match=why):
            open_folder(uri)


def test_a_store_that_honours_no_conditions_is_noticed(object_store: ObjectStore) -> None:
    uri = object_store.uri(object_store.bucket())
    assert open_folder(uri).exact
    object_store.conditions = False
    assert not open_folder(uri).exact


def test_use_is_noted_once_an_object_is_a_day_old(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = object_store.uri(object_store.bucket())
    store, key = StageStore(uri), stage_key()
    store.put_stage(key, *trained())
    store.put_evaluation("e" * 64, evaluation(), key.key)
    before = {entry.name: entry.changed for entry in store.folder.files()}
    assert len(before) == 3
    store.get_stage(key.key)
    assert {entry.name: entry.changed for entry in store.folder.files()} == before
    monkeypatch.setattr(object_folder, "NOTED_AFTER", -1.0)
    time.sleep(1.1)  # times are whole seconds
    store.get_stage(key.key)
    after = {entry.name: entry.changed for entry in store.folder.files()}
    assert after.keys() == before.keys()
    assert max(after.values()) > max(before.values())
    store.delete(key.key)
    assert store.folder.files() == []


def test_credentials_are_in_nothing_that_is_said(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CREDENTIALS:
        assert name in os.environ
    monkeypatch.setattr(object_folder, "PATIENCE", timedelta(seconds=1))
    store = StageStore(object_store.uri(object_store.bucket()))
    object_store.answers = False
    with pytest.raises(StorageError) as told:
        store.stage(stage_key(), never)
    assert not re.search("the-user|the-password", f"{told.value} {told.value.__cause__}")
