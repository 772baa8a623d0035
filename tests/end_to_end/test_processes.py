"""Trials of two processes on one machine, through the sweep's own command: the numbers of one, and what is lost with a
process."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from orchestration.keep.stage_store import StageStore
from tests.support.processes import LOW, METHODS, TWO, apart, run, states
from tests.support.sweeping import Sweep

pytestmark = pytest.mark.slow

#: of a step's loss, of an entry of a tuned tensor, and test rows of a cell's hundred; docs/gpu.md has what was measured
LOSS, TENSORS, ROWS = 1e-3, 5e-3, 2
SWEEP = """\
name: tiny
benchmark: tiny
tasks: [attribute, ground]
model: tiny
method: sequential
base: {tuner: noting, train.steps: 300, train.batch_size: 9, pool.size: 4, pool.top_k: 2}
axes: {AXES}
resources: {processes: 2}
"""


def test_two_processes_have_the_numbers_of_one(tmp_path: Path) -> None:
    one, two = run(tmp_path, "one", LOW), run(tmp_path, "two", LOW, TWO)
    store = StageStore(tmp_path / "runs" / "stages")
    found = apart(one, two, store, (states(store, 1), states(store, 2)))
    assert found.keys() == set(METHODS)
    for method, far in found.items():
        assert far.loss < LOSS, (method, far)
        assert far.tensors < TENSORS, (method, far)
        assert far.accuracy <= ROWS / 100, (method, far)


def sweep_in(folder: Path, axes: str) -> Sweep:
    sweep = Sweep(folder)
    sweep.file.write_text(SWEEP.replace("AXES", axes))
    return sweep


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    sweep = sweep_in(tmp_path_factory.mktemp("whole"), "pool.reuse: [share]")
    sweep.begin().end()
    return sweep


def title(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_text(errors="replace").replace("\0", " ")


@pytest.mark.parametrize("first", [False, True])
def test_a_killed_process_costs_its_trial_the_stage_and_nothing_else(whole: Sweep, tmp_path: Path, first: bool) -> None:
    """Whether it is the worker itself or the other one."""
    sweep = sweep_in(tmp_path, "pool.reuse: [share]").begin()
    sweep.wait_for(4)  # both processes have begun the second stage
    time.sleep(0.5)  # and are at its steps
    titles = {process: title(process) for process in sweep.begun[2:]}
    (killed,) = (process for process, name in titles.items() if first == ("Member" not in name))
    os.kill(killed, signal.SIGKILL)
    sweep.end()
    assert len(whole.begun) == 4
    assert len(sweep.begun) == 6  # the second stage twice, by two processes each time
    assert not {*sweep.begun[4:]} & {*sweep.begun[:4]}  # no process of the broken team goes on
    for name in ("accuracy", "stages", "steps"):
        assert sweep.table(name) == whole.table(name)
    assert [row["status"] for row in sweep.table("trials")] == ["FINISHED"]
    assert all(not Path(f"/proc/{process}").exists() for process in sweep.begun)


def test_a_process_that_cannot_join_says_why(tmp_path: Path) -> None:
    sweep = sweep_in(tmp_path, "pool.reuse: [share]")
    said = sweep.begin(0.0, MCIT_TEST_NO_NETWORK="1").end(code=1)
    (row,) = sweep.table("trials")
    assert row["status"] == "FAILED", said
    assert "ValueError: no network <on purpose>" in str(row["error"])


def test_what_one_process_raises_is_its_trials(tmp_path: Path) -> None:
    """A fault of one process's node is tried again; an error of the trial ends it, and the next one trains."""
    sweep = sweep_in(tmp_path, "tuner: [failing, noting]")
    sweep.file.write_text(sweep.file.read_text().replace("tuner: noting, ", ""))
    said = sweep.begin(0.0, MCIT_TEST_STALE=str(tmp_path / "stale")).end(code=1)
    by_tuner = {row["tuner"]: row for row in sweep.table("trials")}
    assert by_tuner["failing"]["status"] == "FAILED", said
    assert "RuntimeError: this tuner fails <on purpose>" in str(by_tuner["failing"]["error"])
    assert by_tuner["noting"]["status"] == "FINISHED"
    assert (tmp_path / "stale").exists()  # one process raised it
    # the broken team's other process has begun the stage, or was ended before that
    assert len(sweep.begun) in (5, 6)
    assert len({*sweep.begun[-4:]}) == 2
    assert not {*sweep.begun[-4:]} & {*sweep.begun[:-4]}
