"""A whole small sweep in one process, plan, store, journal and result files, while any file operation fails."""

from __future__ import annotations

import errno
import os
import random
import shutil
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from harm import Harm

from mcit_core.stages.keys import stage_chain
from mcit_core.stages.results import Cell, Measured, StageResult
from mcit_core.yaml_document import SpecError
from orchestration.keep.provenance import run_id, write_sweep
from orchestration.keep.records import Records
from orchestration.keep.stage_store import StageStore, Trained
from orchestration.keep.tables import OUTDATED
from orchestration.plan.sweep_file import load_spec, resolved
from orchestration.plan.trials import make_trials
from tests.support.storing import state

SWEEP = """\
name: tiny
benchmark: tiny
tasks: [attribute, ground]
model: mini
method: sequential
axes: {pool.reuse: [share, freeze]}
"""
TABLES = ("accuracy", "stages", "steps", "trials")


@pytest.fixture(autouse=True)
def _write_at_every_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestration.keep.records.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("orchestration.keep.records.PAUSE_SHARE", 0.0)
    monkeypatch.setattr("orchestration.keep.stage_store.POLL", 0.01)


def row(task: str, value: float) -> Cell:
    return Cell(task, "test", value, value, 7)


def small_sweep(root: Path, file: Path, code: str = "today", again: bool = False) -> None:
    """What `orchestration.sweep` does with a stage that takes no time: a sum over the characters of its key. `again`:
    every trial is gone through, whatever the RUN says of it, as where its sweep is a race."""
    spec = load_spec(file, [])
    trials = make_trials(spec)
    folder = root / spec.name
    folder.mkdir(parents=True, exist_ok=True)
    records = Records(folder, spec, trials)
    records.begin(lambda trial: code, again)
    write_sweep(folder, resolved(spec), run_id(folder))
    store = StageStore(root / "stages")
    for trial in trials:
        record = records.records[trial.id]
        if record.status == "FINISHED":
            continue
        record.key = code
        record.stages.append(StageResult(-1, None, [row(task, 0.0) for task in spec.tasks], {"loss": 0.1}))
        for number, key in enumerate(stage_chain(trial.experiment, {}, {})):

            def train(value: int = int(key.key[:4], 16)) -> Trained:
                return state(value), Measured({"loss/last": value / 3}, {"loss": [value / 7, None]})

            left, measured, reused = store.stage(key, train)
            value = float(left.tensors["weights"][0, 0]) / 65536
            cells = [row(task, value) for task in spec.tasks]
            record.stages.append(StageResult(number, key.task, cells, measured.metrics, measured.traces, reused))
        record.status = "FINISHED"
        records.ended(record)
    records.write()


def tables(root: Path) -> dict[str, list[dict[str, object]]]:
    found = {name: pq.read_table(root / "tiny" / f"{name}.parquet").to_pylist() for name in TABLES}
    for line in found["trials"]:
        for name in ("stages_trained", "stages_reused"):  # of the last invocation
            line.pop(name)
    return found


def read_back(root: Path, file: Path, outdated: bool = False) -> dict[str, list[StageResult]]:
    """The stages of every finished trial, as a resumed command or the tracker would read them; `outdated`: also those
    that other code left."""
    spec = load_spec(file, [])
    records = Records(root / "tiny", spec, make_trials(spec))
    with suppress(FileNotFoundError):
        records.read()
    counted = ("FINISHED", OUTDATED) if outdated else ("FINISHED",)
    done = {name: record.stages for name, record in records.records.items() if record.status in counted}
    return {name: [replace(stage, reused=False) for stage in stages] for name, stages in done.items()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SWEEP)
    return path


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("crash", [False, True])
def test_after_a_failure_at_any_file_operation_the_same_command_ends_with_the_same_results(
    tmp_path: Path, crash: bool, every: int, file: Path
) -> None:
    small_sweep(tmp_path / "calm", file)
    wanted, known = tables(tmp_path / "calm"), read_back(tmp_path / "calm", file)
    assert len(known) == 2
    with pytest.MonkeyPatch.context() as patch:
        counting = Harm(tmp_path, -1, 0)
        counting.into(patch.setattr)
        small_sweep(tmp_path / "counted", file)
    assert counting.calls > 150
    for k in range(1, counting.calls + 1, every):
        root = tmp_path / f"k{k}"
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Harm(tmp_path, k, (errno.ENOSPC, errno.EIO, errno.EROFS)[k % 3], crash).into(patch.setattr)
            with suppress(OSError, SpecError):
                small_sweep(root, file)
        for name, stages in read_back(root, file).items():
            assert stages == known[name], k  # what is there is right
        small_sweep(root, file)
        assert tables(root) == wanted, k
        shutil.rmtree(root)


@pytest.mark.parametrize(("code", "again"), [("today", False), ("today", True), ("tomorrow", False)])
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_a_second_run_that_fails_at_any_file_operation_loses_nothing_finished(
    tmp_path: Path, code: str, again: bool, every: int, file: Path
) -> None:
    calm = tmp_path / "calm"
    small_sweep(calm, file)
    wanted, known = tables(calm), read_back(calm, file)
    shutil.copytree(calm, tmp_path / "counted")
    with pytest.MonkeyPatch.context() as patch:
        counting = Harm(tmp_path, -1, 0)
        counting.into(patch.setattr)
        small_sweep(tmp_path / "counted", file, code, again)
    assert counting.calls > 20
    for k in range(1, counting.calls + 1, every):
        for crash in (False, True):
            root = tmp_path / f"k{k}{crash}"
            shutil.copytree(calm, root)
            with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                Harm(tmp_path, k, (errno.ENOSPC, errno.EIO, errno.EROFS)[k % 3], crash).into(patch.setattr)
                with suppress(OSError, SpecError):
                    small_sweep(root, file, code, again)
            assert read_back(root, file, outdated=True) == known, (k, crash)
            small_sweep(root, file)
            assert tables(root) == wanted, (k, crash)
            shutil.rmtree(root)


def test_a_torn_or_flipped_result_file_never_changes_a_number(tmp_path: Path, file: Path) -> None:
    root = tmp_path / "calm"
    small_sweep(root, file)
    wanted, known = tables(root), read_back(root, file)
    rng = random.Random(0)
    paths = [root / "tiny" / name for name in (*(f"{table}.parquet" for table in TABLES), "journal")]
    whole = {path: path.read_bytes() for path in paths}
    noticed = 0
    for _ in range(300):
        path = rng.choice(paths)
        data = bytearray(whole[path])
        if rng.random() < 0.5:
            data = data[: rng.randrange(len(data))]
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        found = read_back(root, file)
        noticed += found != known
        assert all(stages == known[name] for name, stages in found.items())
        path.write_bytes(whole[path])
    for path in paths:
        path.write_bytes(os.urandom(100))
    assert read_back(root, file) == {}
    small_sweep(root, file)
    assert tables(root) == wanted
