"""A node of a two-node Ray cluster is killed outright while it trains."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.nodes import TwoNodes
from tests.support.places import ROOT
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


def test_a_storage_that_a_node_does_not_reach_is_refused(tmp_path: Path) -> None:
    """A path that is another folder in every process stands for one that is another on every machine."""
    code = """
import ray, sys
from pathlib import Path
from mcit_core.yaml_document import SpecError
from orchestration.run.shared_storage import check_shared
ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
assert check_shared(Path.cwd())
try:
    check_shared(Path("/proc/self/cwd"))
except SpecError as error:
    print(error)
"""
    with TwoNodes() as nodes:
        done = subprocess.run(
            [sys.executable, "-c", code, nodes.address],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "not every node reaches this folder" in done.stdout
    assert done.stdout.count("No such file or directory") == 2, done.stdout
    assert not list((tmp_path / ".scratch").iterdir())
