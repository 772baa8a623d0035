"""The stage store: an entry is whole or absent, wherever the store is."""

from __future__ import annotations

import json
import random
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

import obstore
import pytest

from mcit_core.stages.digest import digest
from mcit_core.stages.results import Measured
from orchestration.keep.opening import open_folder
from orchestration.keep.stage_store import StageStore, Trained
from tests.support.object_store import ObjectStore
from tests.support.places import FORMATS
from tests.support.storing import MEASURED, evaluation, never, stage_key, state, trained

real_delete = obstore.delete


def strict_delete(store: Any, names: list[str] | str) -> None:
    """As Google and Azure have it: what is gone already is an error."""
    for name in [names] if isinstance(names, str) else names:
        obstore.head(store, name)
        real_delete(store, name)


@pytest.fixture(params=["folder", "file_uri", "s3", "s3_without_conditions", "s3_with_strict_deletion"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a store may be."""
    if request.param == "folder":
        return str(tmp_path)
    if request.param == "file_uri":
        return f"file://{tmp_path}"
    server: ObjectStore = request.getfixturevalue("object_store")
    server.conditions = request.param != "s3_without_conditions"
    if request.param == "s3_with_strict_deletion":
        monkeypatch.setattr(obstore, "delete", strict_delete)
    return server.uri(server.bucket())


def test_a_stage_comes_back_bit_equal_wherever_the_store_is(place: str) -> None:
    store = StageStore(place)
    key = stage_key()
    assert store.get_stage(key.key) is None
    first = store.stage(key, trained)
    again = StageStore(place).stage(key, never)
    assert (first[2], again[2]) == (False, True)
    assert again[0].equals(state())
    assert again[1] == MEASURED
    store.put_evaluation("e" * 64, evaluation())
    assert store.get_evaluation("e" * 64) == evaluation()
    assert not store.folder.files("leases")
    assert not [entry for entry in store.folder.files() if entry.name.rpartition("/")[2].startswith(".")]


def test_a_folder_is_the_same_wherever_it_is(place: str) -> None:
    folder = open_folder(place)
    folder.write("a/b.json", b"1")
    folder.write("a/b.json", b"2")
    assert folder.read("a/b.json") == b"2"
    assert folder.read("a/c.json") is None
    assert folder.read_version("a/c.json") is None
    first = folder.create("a/d e+f>g.json", b"3")
    assert first is not None
    assert folder.create("a/d e+f>g.json", b"4") is None
    assert folder.read_version("a/d e+f>g.json") == (b"3", first)
    second = folder.replace("a/d e+f>g.json", b"5", first)
    assert second is not None
    assert folder.replace("a/d e+f>g.json", b"6", first) is None
    assert folder.replace("a/none.json", b"6", first) is None
    assert folder.read("a/d e+f>g.json") == b"5"
    assert [(entry.name, entry.size) for entry in folder.files()] == [("a/b.json", 1), ("a/d e+f>g.json", 1)]
    assert [entry.name for entry in folder.files("a")] == ["a/b.json", "a/d e+f>g.json"]
    assert folder.files("none") == []
    assert folder.move("a/b.json", "c/b.json")
    assert not folder.move("a/b.json", "c/b.json")
    folder.delete("a")
    folder.delete("a")
    folder.delete("a/none.json")
    assert [entry.name for entry in folder.files()] == ["c/b.json"]


def test_the_record_lists_what_a_key_was_made_from(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    key = stage_key("b", parent="0" * 64)
    store.stage(key, trained)
    record = json.loads((tmp_path / key.key[:2] / key.key / "record.json").read_text())
    assert record["made_from"] == key.made_from
    assert digest(record["made_from"]) == key.key


def test_half_an_entry_is_no_entry(place: str) -> None:
    store = StageStore(place)
    key = stage_key()
    store.folder.write(f"{key.key[:2]}/{key.key}/state.safetensors", b"half")
    assert store.get_stage(key.key) is None
    assert store.stage(key, trained)[2] is False
    assert store.stage(key, never)[0].equals(state())


@pytest.mark.parametrize("name", ["state.safetensors", "record.json"])
@pytest.mark.parametrize("harm", ["truncated", "flipped", "gone"])
def test_a_damaged_entry_is_reported_set_aside_and_made_again(place: str, name: str, harm: str) -> None:
    store = StageStore(place)
    key = stage_key()
    store.stage(key, trained)
    file = f"{key.key[:2]}/{key.key}/{name}"
    data = store.folder.read(file)
    assert data
    if harm == "gone":
        store.folder.delete(file)
    else:
        store.folder.write(file, data[: len(data) // 2] if harm == "truncated" else flip(data, len(data) * 4 + 2))
    if (name, harm) == ("record.json", "gone"):  # an entry without a record is not there: nothing to report
        assert store.get_stage(key.key) is None
    else:
        with pytest.warns(UserWarning, match="damaged"):
            assert store.stage(key, trained)[2] is False
        assert store.folder.files("damaged")
        assert store.stage(key, never)[0].equals(state())


def test_two_workers_meeting_one_damaged_entry_both_go_on(tmp_path: Path) -> None:
    key = stage_key()
    StageStore(tmp_path).stage(key, trained)
    (weights,) = tmp_path.rglob("state.safetensors")
    weights.write_bytes(b"torn")
    made: list[bool] = []
    done: list[bool] = []
    together = threading.Barrier(6)

    def train() -> Trained:
        made.append(True)
        return trained()

    def work() -> None:
        together.wait()
        found = StageStore(tmp_path).stage(key, train)
        done.append(found[0].equals(state()))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert done == [True] * 6
    assert len(made) == 1


def test_who_has_no_lease_sets_nothing_aside(tmp_path: Path) -> None:
    """What it read as damaged may have been made again since."""
    store, key = StageStore(tmp_path), stage_key()
    store.stage(key, trained)
    (weights,) = tmp_path.rglob("state.safetensors")
    weights.write_bytes(b"torn")
    lease = StageStore(tmp_path).leases.attempt(key.key)
    assert lease is not None
    with lease, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.get_stage(key.key) is None
        assert not store.folder.files("damaged")
    with pytest.warns(UserWarning, match="set aside"):
        assert store.get_stage(key.key) is None


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(changed)


def test_no_truncation_or_flipped_bit_changes_a_number(tmp_path: Path) -> None:
    """2,000 random harms over stages and evaluations: each is detected or harmless."""
    rng = random.Random(0)
    store = StageStore(tmp_path / "good")
    keys = [stage_key(name) for name in "abc"]
    for i, key in enumerate(keys):
        store.stage(key, lambda i=i: trained(float(i)))
        store.put_evaluation(key.key, evaluation(i / 7, [[i]]))
    files = [entry.name for entry in store.folder.files()]
    detected = 0
    other = StageStore(tmp_path / "harmed")
    for name in files:
        other.folder.write(name, (tmp_path / "good" / name).read_bytes())
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        for _ in range(2000):
            name = rng.choice(files)
            good = (tmp_path / "good" / name).read_bytes()
            harmed = (
                good[: rng.randrange(len(good))] if rng.random() < 0.5 else flip(good, rng.randrange(8 * len(good)))
            )
            harmed_path = tmp_path / "harmed" / name
            harmed_path.write_bytes(harmed)
            key = next(key for key in keys if key.key in name)
            i = keys.index(key)
            if name.startswith("evaluations"):
                scores = other.get_evaluation(key.key)
                detected += scores is None
                assert scores in (None, evaluation(i / 7, [[i]]))
            else:
                found = other.get_stage(key.key)
                detected += found is None
                assert found is None or (found[0].equals(state(float(i))) and found[1] == MEASURED)
            shutil.rmtree(tmp_path / "harmed" / "damaged", ignore_errors=True)
            for again in files:
                if key.key in again and not (tmp_path / "harmed" / again).exists():
                    (tmp_path / "harmed" / again).write_bytes((tmp_path / "good" / again).read_bytes())
            harmed_path.write_bytes(good)
    assert detected > 1900


@pytest.mark.parametrize("version", [1, 2])
def test_stores_of_every_version_open(version: int, tmp_path: Path) -> None:
    shutil.copytree(FORMATS / f"store-v{version}", tmp_path / "stages")
    store = StageStore(tmp_path / "stages")
    key = stage_key()
    found = store.stage(key, never)
    assert found[0].equals(state())
    assert found[1] == (Measured(MEASURED.metrics) if version == 1 else MEASURED)  # version 1 had no traces
    assert store.get_evaluation("e" * 64) == evaluation()
