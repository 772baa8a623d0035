"""The stage store: entries whole or absent, leases, and looking after it."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from pyarrow import fs

from mcit_core.digest import digest
from mcit_core.methods import build_experiment
from mcit_core.stages import StageKey, stage_chain
from mcit_core.state import StageState
from orchestration import upkeep
from orchestration.files import Folder, StorageError, write_atomic
from orchestration.leases import Leases
from orchestration.store import StageStore, Trained

FORMATS = Path(__file__).parent / "formats"
MEASURED = {"metrics": {"loss/last": 0.1 + 0.2, "seconds/train": 1.0}, "traces": {"loss": [0.5, 0.3]}}


def stage_key(name: str = "a", parent: str | None = None) -> StageKey:
    made_from = {"parent": parent, "task": name, "fields": {"seed": 0}}
    return StageKey(digest(made_from), name, made_from)


def state(value: float = 1.0) -> StageState:
    return StageState({"weights": torch.full((3, 2), value), "usage": torch.arange(4)})


def trained(value: float = 1.0) -> Trained:
    return state(value), MEASURED


def never() -> Trained:
    raise AssertionError("trained again")


@pytest.fixture(params=["folder", "file_uri", "object_store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[object, fs.FileSystem | None]:
    """Where a store may be: the object store here renames no folder and keeps no time of use."""
    if request.param == "folder":
        return tmp_path, None
    if request.param == "file_uri":
        return f"file://{tmp_path}", None
    (tmp_path / "bucket").mkdir()
    return "stages", fs.SubTreeFileSystem(str(tmp_path / "bucket"), fs.LocalFileSystem())


def test_a_stage_comes_back_bit_equal_wherever_the_store_is(place) -> None:
    store = StageStore(*place)
    key = stage_key()
    assert store.get_stage(key.key) is None
    first = store.stage(key, trained)
    again = StageStore(*place).stage(key, never)
    assert (first[2], again[2]) == (False, True)
    assert again[0].equals(state())
    assert again[1] == MEASURED
    store.put_evaluation("e" * 64, {"accuracy": [0.5], "chosen": None})
    assert store.get_evaluation("e" * 64) == {"accuracy": [0.5], "chosen": None}
    assert not store.folder.files("leases")
    assert not [entry for entry in store.folder.files() if entry.name.rpartition("/")[2].startswith(".")]


def test_a_uri_of_another_file_system_is_opened() -> None:
    folder = Folder("mock:///bucket/runs")
    assert not folder.local
    folder.write("a/b", b"1")
    folder.write("a/b", b"2")
    assert folder.read("a/b") == b"2"
    assert [entry.name for entry in folder.files()] == ["a/b"]
    assert folder.read("a/c") is None


def test_the_record_lists_what_a_key_was_made_from(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    key = stage_key("b", parent="0" * 64)
    store.stage(key, trained)
    record = json.loads((tmp_path / key.key[:2] / key.key / "record.json").read_text())
    assert record["made_from"] == key.made_from
    assert digest(record["made_from"]) == key.key


def test_half_an_entry_is_no_entry(place) -> None:
    store = StageStore(*place)
    key = stage_key()
    store.folder.write(f"{key.key[:2]}/{key.key}/state.safetensors", b"half")
    assert store.get_stage(key.key) is None
    assert store.stage(key, trained)[2] is False
    assert store.stage(key, never)[0].equals(state())


@pytest.mark.parametrize("name", ["state.safetensors", "record.json"])
@pytest.mark.parametrize("harm", ["truncated", "flipped", "gone"])
def test_a_damaged_entry_is_reported_set_aside_and_made_again(place, name: str, harm: str) -> None:
    store = StageStore(*place)
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
        store.put_evaluation(key.key, {"accuracy": [i / 7], "chosen": [[i]]})
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
                evaluation = other.get_evaluation(key.key)
                detected += evaluation is None
                assert evaluation in (None, {"accuracy": [i / 7], "chosen": [[i]]})
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
    assert found[1] == (MEASURED["metrics"] if version == 1 else MEASURED)  # in version 1 it was flat
    assert store.get_evaluation("e" * 64) == {"accuracy": [0.5], "chosen": None}


class Harm:
    """The k-th write, fsync, rename or open of the store's own code fails; `crash` ends everything after it too."""

    def __init__(self, k: int, code: int, crash: bool = False) -> None:
        self.left, self.code, self.crash, self.calls = k, code, crash, 0

    def __call__(self, real):
        def instead(*args, **kwargs):
            self.calls += 1
            if self.calls == self.left or (self.crash and 0 < self.left < self.calls):
                raise OSError(self.code, os.strerror(self.code), str(args[0]))
            return real(*args, **kwargs)

        return instead

    def into(self, patch: pytest.MonkeyPatch) -> None:
        for name in ("fsync", "replace", "open", "utime"):
            patch.setattr(os, name, self(getattr(os, name)))
        for name in ("open", "read_bytes", "mkdir", "unlink"):
            patch.setattr(Path, name, self(getattr(Path, name)))


def small_sweep(root: Path) -> list[tuple[StageState, dict[str, float]]]:
    """Two chains of two stages with a common first one, an evaluation each; a stage is a sum over its parents."""
    store = StageStore(root, leases=Leases(Folder(root), ttl=0.0))
    out = []
    for chain in ("ab", "ax"):
        parent, before = None, 0.0
        for name in chain:
            key = stage_key(name, parent)

            def train(value: float = before + ord(name)) -> Trained:
                return state(value), {"metrics": {"loss/last": value / 3}}

            left, measured, _ = store.stage(key, train)
            if store.get_evaluation(key.key) is None:
                store.put_evaluation(key.key, {"accuracy": [measured["metrics"]["loss/last"]]})
            out.append((left, store.get_evaluation(key.key) or {}))
            parent, before = key.key, float(left.tensors["weights"][0, 0])
    return out


@pytest.mark.parametrize("crash", [False, True])
def test_after_a_failure_at_any_file_operation_the_same_command_ends_with_the_same_bits(
    tmp_path: Path, crash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestration.store.POLL", 0.01)
    wanted = small_sweep(tmp_path / "calm")
    with pytest.MonkeyPatch.context() as patch:
        counting = Harm(-1, 0)
        counting.into(patch)
        small_sweep(tmp_path / "counted")
    assert counting.calls > 100
    for k in range(1, counting.calls + 1):
        root = tmp_path / f"k{k}"
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Harm(k, (errno.ENOSPC, errno.EIO, errno.EROFS)[k % 3], crash).into(patch)
            with suppress(OSError):
                small_sweep(root)
        again = small_sweep(root)
        assert all(a[0].equals(b[0]) and a[1] == b[1] for a, b in zip(wanted, again, strict=True)), k
        assert not list(root.rglob("damaged/*")), k
        shutil.rmtree(root)


def test_a_full_disk_gives_one_clear_error_and_goes_on_once_there_is_space(tmp_path: Path) -> None:
    """A file-size limit stands in for the full disk."""
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_store import *
store = StageStore({str(tmp_path)!r})
store.stage(stage_key("a"), trained)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
big = StageState({{"weights": torch.ones(5000)}})
try:
    store.stage(stage_key("b"), lambda: (big, MEASURED))
except StorageError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.stage(stage_key("a"), never)
assert store.stage(stage_key("b"), lambda: (big, MEASURED))[2] is False
assert store.stage(stage_key("b"), never)[0].equals(big)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no space left" in done.stdout
    assert str(tmp_path) in done.stdout
    assert "gc" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert not (tmp_path / "damaged").exists()


def test_a_store_that_cannot_be_written_still_gives_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    StageStore(tmp_path).stage(stage_key(), trained)

    def refused(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    # tests may run as root, for whom no mode is read-only
    for where, name in ((os, "replace"), (os, "utime"), (os, "mkdir")):
        monkeypatch.setattr(where, name, refused)
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda p, mode="r", *a, **k: real(p, mode, *a, **k) if "r" in mode else refused())
    store = StageStore(tmp_path)
    assert store.stage(stage_key(), never)[0].equals(state())
    with pytest.raises(StorageError, match=r"cannot be written to.*choose another --storage"):
        store.stage(stage_key("b"), never)  # refused before anything is trained


def test_two_processes_train_a_stage_once(tmp_path: Path) -> None:
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_store import *
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
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_store import *
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
    worker.wait()
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


def sweep_store(tmp_path: Path) -> tuple[StageStore, dict[str, list[StageKey]]]:
    """A store with the stages of sequences under two orders and two pool sizes, and the sweep file of the first."""
    store = StageStore(tmp_path / "stages")
    chains: dict[str, list[StageKey]] = {}
    for name, order, size in (
        ("ab", "attribute ground", 6),
        ("ba", "ground attribute", 6),
        ("big", "attribute ground", 8),
    ):
        settings = {"pool.size": size, "pool.top_k": 2, "train.steps": 3}
        experiment = build_experiment("mini", "mini", "fwd_prompt", tuple(order.split()), 0, settings)
        chains[name] = stage_chain(experiment, {"code": "c" * 64, "torch": "2"}, dict.fromkeys(order.split(), "d" * 64))
        for key in chains[name]:
            store.stage(key, trained)
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / "sweep.yaml").write_text(
        "{name: ab, benchmark: mini, tasks: [attribute, ground], model: mini, method: fwd_prompt,"
        " base: {pool.size: 6, pool.top_k: 2, train.steps: 3}}"
    )
    return store, chains


def upkeep_said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = upkeep.main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_explain_says_why_stages_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, chains = sweep_store(tmp_path)
    storage = ("--storage", str(tmp_path))
    first, second = chains["ab"]
    code, said = upkeep_said(capsys, "explain", first.key[:10], chains["big"][0].key[:10], *storage)
    assert code == 0
    assert said.splitlines() == ["the stages differ in pool.size: 6 against 8"]
    _, said = upkeep_said(capsys, "explain", second.key[:10], chains["big"][1].key, *storage)
    assert said.count("pool.size: 6 against 8") == 2
    assert "the stages before" in said
    _, said = upkeep_said(capsys, "explain", first.key, second.key, *storage)
    assert "the task: attribute against ground" in said
    assert f"the first starts from the pre-trained model, the other from stage {first.key[:12]}" in said
    assert upkeep_said(capsys, "explain", first.key, first.key, *storage)[1] == "they are one and the same stage\n"
    code, said = upkeep_said(capsys, "explain", "zzz", first.key, *storage)
    assert code == 2
    assert "'zzz'" in said


def test_list_and_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, chains = sweep_store(tmp_path)
    storage = ("--storage", str(tmp_path))
    code, said = upkeep_said(capsys, "list", *storage)
    assert code == 0
    assert all(key.key[:12] in said for chain in chains.values() for key in chain)
    assert "6 stages" in said
    assert upkeep_said(capsys, "verify", *storage)[0] == 0
    store.folder.write(f"{chains['ab'][0].key[:2]}/{chains['ab'][0].key}/state.safetensors", b"torn")
    code, said = upkeep_said(capsys, "verify", *storage)
    assert code == 1
    assert "6 stages and 0 evaluations read, 1 damaged" in said
    assert upkeep_said(capsys, "verify", *storage)[0] == 0
    assert upkeep_said(capsys, "list", "--storage", str(tmp_path / "no"))[0] == 2


def test_gc_spares_what_a_run_needs_and_what_is_leased(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, chains = sweep_store(tmp_path)
    storage = ("--storage", str(tmp_path))
    keep = ("--keep", str(tmp_path / "ab"))
    before = set(store.entries())
    code, said = upkeep_said(capsys, "gc", *keep, "--dry-run", *storage)
    assert code == 0
    assert "4 stages" in said
    assert set(store.entries()) == before
    lease = store.leases.attempt("f" * 64, chains["big"][1].key)  # a third stage after `big` is being trained
    assert lease
    upkeep_said(capsys, "gc", *keep, *storage)
    assert set(store.entries()) == {key.key for name in ("ab", "big") for key in chains[name]}
    lease.release()
    upkeep_said(capsys, "gc", *keep, *storage)
    assert set(store.entries()) == {key.key for key in chains["ab"]}


def test_gc_deletes_the_longest_unused_first_and_children_before_parents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, chains = sweep_store(tmp_path)
    for when, name in ((100, "ba"), (200, "ab"), (300, "big")):
        for key in chains[name]:
            for file in (tmp_path / "stages" / key.key[:2] / key.key).iterdir():
                os.utime(file, (when, when))
    store.get_stage(chains["ba"][0].key)  # used just now
    size = sum(entry.size for files in store.entries().values() for entry in files) // 6
    upkeep_said(capsys, "gc", "--max-size", str(5 * size + 100), "--storage", str(tmp_path))
    assert chains["ba"][1].key not in store.entries()
    assert len(store.entries()) == 5
    upkeep_said(capsys, "gc", "--max-size", str(4 * size + 100), "--storage", str(tmp_path))
    assert chains["ab"][1].key not in store.entries()
    assert chains["ab"][0].key in store.entries()
    with pytest.raises(SystemExit):
        upkeep.main(["gc", "--storage", str(tmp_path)])


def test_write_atomic_leaves_the_old_file_where_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "no")))
    with pytest.raises(OSError, match="no"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
