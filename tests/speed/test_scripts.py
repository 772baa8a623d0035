"""That what measures still runs; what it measures is in no test."""

from __future__ import annotations

import subprocess
import sys

import pytest

SMALLEST = {
    "step": "--steps 2",
    "evaluation": "--steps 2 --rows 10 --turns 1",
    "sharing": "",
    "scheduling": "--trials 10",
    "scale": "--trials 20",
    "driver": "--trials 3",
    "tracking": "--trials 3",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_it_runs(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    command = [sys.executable, "-m", f"tests.speed.{name}", *SMALLEST[name].split()]
    if name == "step":
        command += ["--features", str(tmp_path_factory.getbasetemp() / "features")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()
