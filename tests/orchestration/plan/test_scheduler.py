"""Which trial runs when: the decisions alone, then on real Ray with a worker that is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from orchestration.plan.scheduler import BACK_OFF, StageScheduler
from orchestration.plan.stage_tree import StageTree
from tests.support.sweeping import DISTINCT, STAGES, Sweep, without_counts


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
    made = StageScheduler(tree, clock=Clock())
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


def test_two_commands_on_one_store_train_a_stage_once(undisturbed: Sweep, tmp_path: Path) -> None:
    first, second = Sweep(tmp_path, "first").begin(sleep=0.5), Sweep(tmp_path, "second").begin(sleep=0.5)
    first.end()
    second.end()
    assert len(first.begun) == DISTINCT  # the notes of both
    assert first.table("accuracy") == second.table("accuracy") == undisturbed.table("accuracy")


def test_out_of_memory_is_told_and_not_tried_again(tmp_path: Path) -> None:
    """Ray's memory monitor ends every worker, as it does where the machine's memory runs out."""
    sweep = Sweep(tmp_path).begin(RAY_memory_usage_threshold="0.001", RAY_memory_monitor_refresh_ms="100")
    sweep.end(code=1)
    trials = sweep.table("trials")
    assert {row["status"] for row in trials} == {"FAILED"}
    for row in trials:
        assert str(row["error"]).startswith("out of memory")
        assert str(row["error"]).count("Failure #") == 1


def listening(mark: str) -> dict[str, str]:
    """Listening TCP addresses (hexadecimal, as Linux has them) -> the process, of all whose environment has `mark`."""
    sockets: dict[str, str] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_text(errors="replace"):
                found = [os.readlink(file) for file in (process / "fd").iterdir()]
                sockets |= dict.fromkeys(found, (process / "cmdline").read_text()[:60])
        except OSError:
            continue  # it has ended, or is not ours
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return {
        words[1]: sockets[f"socket:[{words[9]}]"]
        for words in lines
        if words[3] == "0A" and f"socket:[{words[9]}]" in sockets
    }


def test_ray_listens_on_the_loopback_alone(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path).begin(sleep=0.5)
    sweep.wait_for(1)
    found = listening(str(tmp_path))
    sweep.end()
    assert found
    loopback = ("0100007F:", "0000000000000000FFFF00000100007F:", "00000000000000000000000001000000:")
    assert {address: who for address, who in found.items() if not address.startswith(loopback)} == {}
