"""Disks that are full, closed, or fail at any operation."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from harm import Harm

from mcit_core.stages.results import Evaluation, Measured
from mcit_core.stages.state import StageState
from orchestration.keep.files import StorageError, write_atomic
from orchestration.keep.stage_store import StageStore, Trained
from tests.support.storing import evaluation, never, stage_key, state, trained


def small_sweep(root: Path) -> list[tuple[StageState, Evaluation | None]]:
    """Two chains of two stages with a common first one, an evaluation each; a stage is a sum over its parents."""
    store = StageStore(root)
    out = []
    for chain in ("ab", "ax"):
        parent, before = None, 0.0
        for name in chain:
            key = stage_key(name, parent)

            def train(value: float = before + ord(name)) -> Trained:
                return state(value), Measured({"loss/last": value / 3})

            left, measured, _ = store.stage(key, train)
            if store.get_evaluation(key.key) is None:
                store.put_evaluation(key.key, evaluation(measured.metrics["loss/last"]))
            out.append((left, store.get_evaluation(key.key)))
            parent, before = key.key, float(left.tensors["weights"][0, 0])
    return out


@pytest.mark.parametrize("crash", [False, True])
def test_after_a_failure_at_any_file_operation_the_same_command_ends_with_the_same_bits(
    tmp_path: Path, crash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestration.keep.stage_store.POLL", 0.01)
    wanted = small_sweep(tmp_path / "calm")
    with pytest.MonkeyPatch.context() as patch:
        counting = Harm(tmp_path, -1, 0)
        counting.into(patch.setattr)
        small_sweep(tmp_path / "counted")
    assert counting.calls > 100
    for k in range(1, counting.calls + 1):
        root = tmp_path / f"k{k}"
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Harm(tmp_path, k, (errno.ENOSPC, errno.EIO, errno.EROFS)[k % 3], crash).into(patch.setattr)
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
from tests.support.storing import *
from orchestration.keep.stage_store import StageStore
from orchestration.keep.files import StorageError
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


def test_write_atomic_leaves_the_old_file_where_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "no")))
    with pytest.raises(OSError, match="no"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
