"""README's way to a cluster: a fresh account, a token, two nodes, `ray job submit`, stages in an object store."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.object_store import ObjectStore
from tests.support.places import ROOT
from tests.support.sweeping import DISTINCT, Sweep

RAY = str(Path(sys.executable).with_name("ray"))


def free_ports(count: int) -> list[str]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [str(one.getsockname()[1]) for one in taken]
    for one in taken:
        one.close()
    return found


class TokenCluster:
    """Two nodes of a cluster with token authentication, under an account of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder / "ray"
        home = folder / "home"
        home.mkdir()
        port, self.dashboard, *agents = free_ports(4)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            **environment,
            "HOME": str(home),
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self.ports = port, *agents

    def start(self) -> None:
        port, *agents = self.ports
        self.ray("get-auth-token", "--generate")
        here = ("--node-ip-address", "127.0.0.1", "--num-cpus", "1", "--object-store-memory", str(80 * 2**20))
        head = ("--head", "--port", port, "--dashboard-host", "127.0.0.1", "--dashboard-port", self.dashboard)
        self.ray("start", *head, "--temp-dir", str(self.folder), "--dashboard-agent-listen-port", agents[0], *here)
        self.ray("start", "--address", f"127.0.0.1:{port}", "--dashboard-agent-listen-port", agents[1], *here)

    def ray(self, *words: str, timeout: float = 300) -> str:
        done = subprocess.run(
            [RAY, *words], env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def submit(self, *words: str) -> str:
        return self.ray("job", "submit", "--address", f"http://127.0.0.1:{self.dashboard}", "--", *words, timeout=900)

    def end(self) -> None:
        end_all_of(self.environment["HOME"])


def end_all_of(home: str) -> None:
    """End every process of an account with its children, which may have written over their environment; `ray stop`
    would end everybody's."""
    parents: dict[int, int] = {}
    mine: set[int] = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            number = int(process.name)
            parents[number] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if f"HOME={home}\0" in (process / "environ").read_text(errors="replace"):
                mine.add(number)
    while more := {number for number, parent in parents.items() if parent in mine} - mine:
        mine |= more
    for number in mine - {os.getpid()}:
        with suppress(OSError):
            os.kill(number, signal.SIGKILL)


@pytest.fixture
def cluster(
    tmp_path_factory: pytest.TempPathFactory, object_store: ObjectStore
) -> Iterator[tuple[TokenCluster, Sweep]]:
    sweep = Sweep(tmp_path_factory.mktemp("cluster"))
    folder = Path(tempfile.mkdtemp(prefix="mcit-", dir="/tmp"))  # the names of sockets may not be long
    made = TokenCluster(folder, {"MCIT_TEST_NOTES": str(sweep.notes), "MCIT_TEST_SLEEP": "5.0"})
    try:
        made.start()
        yield made, sweep
    finally:
        made.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_job_on_two_nodes_gives_the_same_bits(
    undisturbed: Sweep, cluster: tuple[TokenCluster, Sweep], object_store: ObjectStore
) -> None:
    nodes, sweep = cluster
    stages = ("--stages", object_store.uri(object_store.bucket()))
    words = ("python", "-m", "orchestration.sweep", str(sweep.file), "--storage", str(sweep.storage), *stages)
    said = nodes.submit(*words)
    assert "succeeded" in said
    assert len(sweep.begun) == DISTINCT
    assert len(set(sweep.begun)) == 2  # a stage takes long enough for the other node's worker to load
    assert sweep.table("accuracy") == undisturbed.table("accuracy")
    nodes.submit(*words)
    assert len(sweep.begun) == DISTINCT


@pytest.mark.slow
def test_readme_s_block_works_word_for_word_on_a_fresh_account(tmp_path: Path) -> None:
    """In a network of its own, since its ports are Ray's usual ones; with a sweep of seconds."""
    alone = ["unshare", "--map-root-user", "--net"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no network namespaces here")
    section = (ROOT / "README.md").read_text().split("## On a cluster")[1]
    block = section.split("```bash\n")[1].split("```")[0]
    assert "sweeps/threshold.yaml" in block
    script = f"set -e\nip link set lo up\n{block.replace('sweeps/threshold.yaml', 'sweeps/smoke.yaml')}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    try:
        done = subprocess.run(
            [*alone, "bash", "-c", script],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
    finally:
        end_all_of(str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout + done.stderr
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o077 == 0
    provenance = (tmp_path / "mcit-runs" / "smoke" / "sweep.yaml").read_text().split("provenance:")[1]
    assert "commit: unknown" not in provenance
