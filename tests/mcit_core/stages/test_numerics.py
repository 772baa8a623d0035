"""What changes the bits of a machine's results is in the key."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from mcit_core.stages.numerics import numerics

PROGRAM = """
import json, torch
from mcit_core.stages.numerics import numerics
print(json.dumps(numerics(torch.device("cpu"))))
"""


def told(**environment: str) -> dict[str, str]:
    command, every = [sys.executable, "-c", PROGRAM], {**os.environ, **environment}
    done = subprocess.run(command, env=every, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_other_instructions_are_told() -> None:
    other = told(ATEN_CPU_CAPABILITY="default", ONEDNN_MAX_CPU_ISA="SSE41")
    assert other["cpu"] != told()["cpu"]
    assert other["ONEDNN_MAX_CPU_ISA"] == "SSE41"


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "")
    before = numerics(torch.device("cpu"))
    assert "MKL_CBWR" not in before
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert numerics(torch.device("cpu")) == {**before, "MKL_CBWR": "COMPATIBLE"}
