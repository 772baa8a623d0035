"""Ctrl-C before the first trial."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

#: its features take long
SWEEP = """\
name: stopped
benchmark: mini
tasks: [attribute]
model: mini
method: sequential
base: {train.steps: 1}
"""


def test_ctrl_c_while_features_are_built(tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    command = [sys.executable, "-m", "orchestration.sweep", str(path), "--storage", str(storage)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(600):
            if (storage / "features").exists():
                break
            time.sleep(0.1)
        assert (storage / "features").exists()
        os.kill(running.pid, signal.SIGINT)
        _, errors = running.communicate(timeout=100)
    finally:
        running.kill()
    assert running.returncode == 130, errors
    assert "Traceback" not in errors
    assert len(errors.splitlines()) == 1
    assert "the same command goes on" in errors
    assert not (storage / "stopped" / "sweep.yaml").exists()  # it was the features that were interrupted
