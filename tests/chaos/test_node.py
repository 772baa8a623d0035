"""A node of a two-node Ray cluster is killed outright while it trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.nodes import TwoNodes
from tests.support.sweeping import DISTINCT, Sweep, mlflow_runs, without_counts


def test_a_killed_node_costs_the_stage_that_it_trained(
    undisturbed: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = Sweep(tmp_path)
    # workers have the environment of their node, not that of the command
    monkeypatch.setenv("MCIT_TEST_NOTES", str(sweep.notes))
    monkeypatch.setenv("MCIT_TEST_SLEEP", "1.0")
    with TwoNodes() as nodes:
        sweep.begin(0.0, "--address", nodes.address)
        sweep.wait_for(4)
        nodes.kill()
        sweep.end()
        begun = len(sweep.begun)
        sweep.begin().end()  # without an address it starts a Ray of its own, whatever else runs on the machine
    assert len(sweep.begun) == begun
    assert DISTINCT <= len(sweep.begun) <= DISTINCT + 1
    for name in ("accuracy", "stages"):
        assert sweep.table(name) == undisturbed.table(name)
    assert without_counts(sweep.table("trials")) == without_counts(undisturbed.table("trials"))
    assert mlflow_runs(sweep) == []
