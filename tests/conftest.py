from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.support.object_store import CREDENTIALS, ObjectStore
from tests.support.places import reach_plugin
from tests.support.sweeping import Sweep, listening

# a shell's background jobs ignore SIGINT, and so would every command that the tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
reach_plugin()


#: with `-n 2`, each of these is one chain in one process, since its tests start Ray or share a sweep
CHAINS = {
    "undisturbed": ("tests/chaos/", "tests/end_to_end/test_stages.py"),
    "sweeps": ("tests/end_to_end/",),
}


class Chains(LoadScopeScheduling):
    """The chains first, as the largest; every other test goes where there is room. (Groups by mark, `--dist loadgroup`,
    do nothing on pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        return next((name for name, places in CHAINS.items() if nodeid.startswith(places)), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Chains:
    return Chains(config, log)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one feature cache of a session: of `bench`, and of every `Sweep`, whichever process comes first to a part."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "features"
    folder.mkdir(exist_ok=True)
    Sweep.features = folder
    return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator[ObjectStore]:
    server = ObjectStore()
    yield server
    server.stop()


@pytest.fixture
def object_store(s3_server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """The S3 server of a session, in order, and the credentials for it in the environment."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    s3_server.answers = s3_server.conditions = True
    s3_server.refuses = False
    return s3_server


@pytest.fixture(scope="session")
def bench(features: Path) -> object:
    """The embedded model on the tiny benchmark, both with few rows, and a feature cache."""
    from mcit_core.data.workbench import Workbench

    return Workbench("tiny", "tiny", "cpu", features)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """The small sweep of `sweeping`, run to its end."""
    folder = tmp_path_factory.mktemp("undisturbed")
    sweep = Sweep(folder).begin()
    sweep.wait_for(1)
    sweep.listening = listening(str(folder))
    sweep.end()
    return sweep
