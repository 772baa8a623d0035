"""Which trial runs when: the decisions alone, then on real Ray with a worker that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestration.plan import StageTree
from orchestration.scheduler import BACK_OFF, StageScheduler


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def scheduler(**chains: str) -> StageScheduler:
    """Trials by name, their stages as letters; equal beginnings are shared, a trial whose name begins with d is one of
    separate first stages."""
    tree = StageTree({}, {}, {})
    for trial, letters in chains.items():
        alone = trial.startswith("d")
        keys = [letters[i] if alone else letters[: i + 1] for i in range(len(letters))]
        tree.chains[trial] = keys
        for i, key in enumerate(keys):
            tree.steps[key] = 1
            tree.parents[key] = None if alone or i == 0 else keys[i - 1]
    made = StageScheduler(tree, Clock())
    for trial in chains:
        made.add(trial)
    return made


def start(stages: StageScheduler) -> str | None:
    trial = stages.choose()
    assert trial == stages.choose()  # choosing alone changes nothing
    if trial is not None:
        stages.start(trial)
    return trial


def test_no_two_workers_get_one_stage() -> None:
    stages = scheduler(t1="abc", t2="abd", t3="xy")
    assert start(stages) == "t1"  # a is before four stages, x before two
    assert start(stages) == "t3"  # t2 waits for a
    assert start(stages) is None
    assert stages.finish("t1", 0)  # goes on with ab
    assert start(stages) is None
    assert stages.finish("t1", 1)
    assert start(stages) == "t2"
    assert stages.finish("t2", 0)  # a and ab come from the store
    assert stages.finish("t2", 1)
    stages.end("t3")
    for trial in ("t1", "t2"):
        assert stages.finish(trial, 2)
        stages.end(trial)
    assert start(stages) is None
    assert stages.places == {}


def test_a_trial_gives_up_its_worker_where_its_next_stage_is_trained_elsewhere() -> None:
    stages = scheduler(d1="ab", t1="bc")
    assert start(stages) == "t1"
    assert start(stages) == "d1"
    assert not stages.finish("d1", 0)  # b is being trained by t1
    assert start(stages) is None
    assert stages.finish("t1", 0)
    assert start(stages) == "d1"


def test_the_stage_that_most_work_waits_for_comes_first() -> None:
    stages = scheduler(t1="ab", t2="xyz", t3="xyw", t4="qrst")
    # x: 4 stages wait; q: 4, with more work of its own; a: 2
    assert [start(stages) for _ in range(4)] == ["t4", "t2", "t1", None]


def test_a_lost_worker_s_stage_is_free_again_after_a_while() -> None:
    stages = scheduler(t1="ab", t2="xy")
    assert start(stages) == "t1"
    stages.lose("t1")
    assert start(stages) == "t2"
    assert start(stages) is None
    stages.clock.now = BACK_OFF
    assert start(stages) == "t1"
    stages.lose("t1")
    stages.clock.now = 2.5 * BACK_OFF
    assert start(stages) is None  # twice as long
    stages.clock.now = 3 * BACK_OFF
    assert start(stages) == "t1"


def test_a_failed_trial_frees_its_stage() -> None:
    stages = scheduler(t1="ab", t2="ac")
    assert start(stages) == "t1"
    assert start(stages) is None
    stages.end("t1")
    assert start(stages) == "t2"


def test_trials_with_nothing_to_train_run_too() -> None:
    stages = scheduler(t0="", t1="a", t2="a")
    assert start(stages) == "t1"
    assert start(stages) == "t0"
    stages.end("t0")
    assert stages.finish("t1", 0)
    stages.end("t1")
    assert start(stages) == "t2"


SWEEP = """\
name: tiny
benchmark: tiny
tasks: [attribute, ground, bars]
model: mini
method: sequential
base: {tuner: noting, train.steps: 2, train.batch_size: 8, pool.size: 4, pool.top_k: 2}
axes:
  pool.reuse: [share, penalise, freeze]
references: [direct]
resources: {workers: 2}
"""
#: reuse means nothing in a first stage, which direct shares too
STAGES, DISTINCT = 12, 9


class Sweep:
    """The command in a process of its own; its workers note every stage that they begin to train."""

    def __init__(self, folder: Path) -> None:
        self.storage, self.notes = folder / "runs", folder / "notes"
        self.file = folder / "sweep.yaml"
        self.file.write_text(SWEEP)
        self.notes.touch()
        self.process: subprocess.Popen[str] | None = None

    def begin(self, sleep: float = 0.0) -> Sweep:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orchestration.sweep", str(self.file), "--storage", str(self.storage)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "MCIT_TEST_NOTES": str(self.notes), "MCIT_TEST_SLEEP": str(sleep)},
        )
        return self

    def end(self) -> str:
        assert self.process
        said, _ = self.process.communicate(timeout=500)
        assert self.process.returncode == 0, said
        return said

    @property
    def begun(self) -> list[int]:
        return [int(line) for line in self.notes.read_text().split()]

    def wait_for(self, count: int) -> int:
        """Until so many stages have been begun; returns the process that began the last of them."""
        assert self.process
        limit = time.monotonic() + 300
        while len(self.begun) < count:
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < limit
            time.sleep(0.05)
        return self.begun[-1]

    def table(self, name: str) -> list[dict[str, object]]:
        rows = pq.read_table(self.storage / "tiny" / f"{name}.parquet").to_pylist()
        if name == "stages":
            rows = [row for row in rows if not row["name"].startswith("seconds")]
        timeless = [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]
        return sorted(timeless, key=lambda row: repr(list(row.items())[:5]))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    sweep = Sweep(tmp_path_factory.mktemp("undisturbed")).begin()
    sweep.end()
    return sweep


def without_counts(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{k: v for k, v in row.items() if k not in ("stages_trained", "stages_reused")} for row in rows]


def test_every_distinct_stage_is_trained_once(undisturbed: Sweep) -> None:
    trials = undisturbed.table("trials")
    assert len(undisturbed.begun) == DISTINCT
    assert sum(int(str(row["stages_trained"])) for row in trials) == DISTINCT
    assert sum(int(str(row["stages_reused"])) for row in trials) == STAGES - DISTINCT
    assert len(set(undisturbed.begun)) == 2  # both workers, and each loaded once


def test_a_killed_worker_costs_its_stage_alone(undisturbed: Sweep, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path).begin(sleep=1.0)
    for count in (2, 6):
        os.kill(sweep.wait_for(count), signal.SIGKILL)
    sweep.end()
    assert len(sweep.begun) == DISTINCT + 2
    for name in ("accuracy", "stages"):
        assert sweep.table(name) == undisturbed.table(name)
    assert without_counts(sweep.table("trials")) == without_counts(undisturbed.table("trials"))


def test_the_same_command_again_trains_nothing(undisturbed: Sweep) -> None:
    before = undisturbed.table("accuracy")
    undisturbed.begin().end()
    assert len(undisturbed.begun) == DISTINCT
    assert undisturbed.table("accuracy") == before
    assert all(row["stages_trained"] == 0 for row in undisturbed.table("trials"))
