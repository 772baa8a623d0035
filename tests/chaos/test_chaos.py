"""One driver killed outright; `python -m tests.chaos --kills 100` kills many things at random moments."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.sweeping import DISTINCT, WORKERS, Sweep, mlflow_runs, without_counts


def test_a_killed_driver_costs_the_stages_in_flight(undisturbed: Sweep, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path).begin(sleep=1.0)
    sweep.wait_for(5)
    assert sweep.process
    sweep.process.kill()
    sweep.process.communicate()
    sweep.begin().end()
    assert DISTINCT <= len(sweep.begun) <= DISTINCT + WORKERS
    for name in ("accuracy", "stages"):
        assert sweep.table(name) == undisturbed.table(name)
    assert without_counts(sweep.table("trials")) == without_counts(undisturbed.table("trials"))
    assert mlflow_runs(sweep) == []


@pytest.mark.parametrize("group", [False, True])
def test_a_stopped_sweep_ends_in_good_order_and_goes_on(tmp_path: Path, group: bool) -> None:
    """A SIGTERM to the whole process group, as of a scheduler, ends Ray's own processes too."""
    sweep = Sweep(tmp_path).begin(sleep=1.0)
    sweep.wait_for(4)
    assert sweep.process
    if group:
        os.killpg(sweep.process.pid, signal.SIGTERM)
    else:
        sweep.process.send_signal(signal.SIGTERM)
    said = sweep.end(code=1)
    assert "SIGTERM: stopping" in said
    assert "0 failed" in said
    assert "unfinished; finished stages are kept" in said
    assert "Traceback" not in said
    sweep.begin().end()
    assert len(sweep.begun) <= DISTINCT + WORKERS
    assert all(row["status"] == "FINISHED" for row in sweep.table("trials"))
