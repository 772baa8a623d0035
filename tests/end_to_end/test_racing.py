"""Successive halving, whole sweeps on real Ray."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from statistics import fmean

from tests.support.sweeping import Sweep, mlflow_runs, without_counts


def racing(folder: Path, steps: str = "[1, 30, 60]") -> Sweep:
    """Three settings whose accuracies are far apart after one stage, without a rule yet."""
    sweep = Sweep(folder)
    # with all of the model's own rows: with the few of model tiny two settings come out equal
    text = sweep.file.read_text().replace("train.steps: 2, ", "").replace("model: tiny", "model: mini")
    sweep.file.write_text(text.replace("pool.reuse: [share, penalise, freeze]", f"train.steps: {steps}"))
    return sweep


def test_a_worker_that_dies_while_it_has_nothing_to_do(tmp_path: Path) -> None:
    """Two of three trials wait at the rung, and one worker; both workers are wanted again after it."""
    sweep = racing(tmp_path)
    sweep.file.write_text(sweep.file.read_text().replace("[direct]", "[]") + "halving: {min_stages: 1}\n")
    go_on = tmp_path / "go_on"
    third = sweep.begin(MCIT_TEST_HOLD=f"{go_on}:3").wait_for(3)
    (idle,) = set(sweep.begun) - {third}
    limit = time.monotonic() + 60
    while len(list(sweep.storage.glob("stages/*/*/record.json"))) < 2:
        assert time.monotonic() < limit
        time.sleep(0.05)
    time.sleep(1.0)  # for the driver to hear of it
    assert len(sweep.begun) == 3
    os.kill(idle, signal.SIGKILL)
    go_on.touch()
    sweep.end()
    # of the two that pass the first rung one more is stopped at the second, where rounding does not make them equal
    assert {row["status"] for row in sweep.table("trials")} == {"FINISHED", "STOPPED"}


def test_a_sweep_stops_all_but_the_best_setting(tmp_path: Path) -> None:
    sweep = racing(tmp_path, steps="[1, 5, 20]")
    text = sweep.file.read_text()
    sweep.file.write_text(text + "halving: {min_stages: 1, reduction: 3}\n")
    said = sweep.begin().end()
    assert mlflow_runs(sweep) == []
    trials, accuracy = sweep.table("trials"), sweep.table("accuracy")
    status = {str(row["trial"]): row["status"] for row in trials}
    assert sorted(status.values()) == 4 * ["FINISHED"] + 2 * ["STOPPED"]  # three are references
    assert {row["error"] for row in trials} == {None, "stopped by halving after 1 of 3 stages"}
    assert said.count("stopped by halving") == 2
    trained = len(sweep.begun)
    assert trained == 11  # direct's three stages three times (the first is shared), and the winner's last two
    assert "Ray: starting" not in sweep.begin().end()  # the RUN shows all of it
    assert len(sweep.begun) == trained
    assert without_counts(sweep.table("trials")) == without_counts(trials)
    # without the rule, the same sweep goes on from what there is
    sweep.file.write_text(text)
    sweep.begin().end()
    assert len(sweep.begun) == trained + 4
    whole = sweep.table("accuracy")
    last = {name: 0 if status[name] == "STOPPED" else 2 for name in status}
    assert accuracy == [row for row in whole if int(str(row["stage"])) <= last[str(row["trial"])]]
    reached = {
        str(row["trial"]): fmean(
            float(str(cell["accuracy"]))
            for cell in whole
            if cell["trial"] == row["trial"]
            and cell["stage"] == 0
            and cell["split"] == "validation"
            and cell["task"] == str(row["order"]).split(">")[0]
        )
        for row in trials
        if row["method"] != "direct"
    }
    (winner,) = (name for name in reached if status[name] == "FINISHED")
    assert reached[winner] == max(reached.values())
