from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.places import reach_plugin

# a shell's background jobs ignore SIGINT, and so would every command that the tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
reach_plugin()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="session")
def bench(features: Path) -> Iterator[object]:
    """The embedded model on the tiny benchmark, with a feature cache."""
    from mcit_core.data.workbench import Workbench

    return Workbench("tiny", "mini", "cpu", features)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> object:
    """The small sweep of `sweeping`, run to its end."""
    from tests.support.sweeping import Sweep

    sweep = Sweep(tmp_path_factory.mktemp("undisturbed")).begin()
    sweep.end()
    return sweep
