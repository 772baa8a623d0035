"""docs/tutorial.md, step by step as it is written: small in every run of the tests, in full size among the slow ones.

Commands of other pages that want a whole RUN are run on the tutorial's.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestration import mcit
from tests.support import public_data
from tests.support.pages import blocks, commands
from tests.support.places import ROOT
from tests.support.sweeping import Sweep

TUTORIAL = ROOT / "docs" / "tutorial.md"
#: what is not done here: the environment is there, and the server has a test of its own
LEFT_OUT = ("mkdir ", "cd ", "python3 -m venv ", ". ", "pip install ", "mlflow ui ")
#: what makes it small, as in the text -> here
SMALL = {
    "train.steps: 40": "train.steps: 1",
    "evaluation.rows: 100": "evaluation.rows: 8",
    "seeds: [0, 1, 2]": "seeds: [0]",
    "seeds=[0, 1, 2, 3, 4]": "seeds=[0]",  # nothing is left to train, and Ray not started again
    "benchmark: mini ": "benchmark: tiny ",  # few rows of it, in the tests' own cache
    "model: mini ": "model: tiny ",
    "--max forgetting=0.05": "--max forgetting=1",
}


def run(command: str, folder: Path) -> str:
    """What a command prints: a sweep in a process of its own, the others in this one. It must end well."""
    words = shlex.split(command)
    module, words = (mcit.COMMANDS[words[1]][0], words[2:]) if words[0] == "mcit" else (words[2], words[3:])
    if module != "orchestration.sweep":
        printed = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
            patch.chdir(folder)
            patch.setattr(sys, "argv", [module, *words])
            code = importlib.import_module(module).main()
        assert not code, f"{command}\n{printed.getvalue()}"
        return printed.getvalue()
    done = subprocess.run(
        [sys.executable, "-m", module, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Done:
    folder: Path
    said: dict[str, str]  # command -> what it printed


def follow(folder: Path, changes: dict[str, str]) -> Done:
    """Writes the page's files and runs its commands, in the order of the page."""
    if changes and Sweep.features is not None:
        (folder / "runs").mkdir()
        (folder / "runs" / "features").symlink_to(Sweep.features)
    said: dict[str, str] = {}
    for block in blocks(TUTORIAL):
        text = block.text
        for there, here in changes.items():
            text = text.replace(there, here)
        if block.title and block.title != "chosen.yaml":  # which `mcit best` writes
            (folder / block.title).write_text(text)
        for command in commands(text) if block.language == "bash" else ():
            if not command.startswith(LEFT_OUT):
                said[command] = run(command, folder)
    return Done(folder, said)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return follow(tmp_path_factory.mktemp("first"), SMALL)


def check(done: Done, seeds: int, added: int) -> None:
    """What the page says of each step, whatever the numbers."""
    planned, trained, asked, _chosen, ran, more = done.said.values()
    assert "nothing was trained" in planned
    assert "reuse freeze" in trained
    assert "report.html" in trained
    assert "average_accuracy" in asked
    assert f"{2 * seeds + 2 * seeds + 1} of {2 * (seeds + added) * 2 + 1} trials have finished before" in more
    rows = pq.read_table(done.folder / "runs" / "first" / "trials.parquet").to_pylist()
    assert {row["status"] for row in rows} == {"FINISHED"}
    (twin,) = (row for row in rows if row["pool.reuse"] == told(done)["pool.reuse"] and row["seed"] == 0)
    metrics = json.loads((done.folder / "chosen" / "metrics.json").read_text())
    assert metrics["average_accuracy"] == pytest.approx(twin["average_accuracy"], abs=1e-9)  # to the last digit
    assert metrics["forgetting"] == pytest.approx(twin["forgetting"], abs=1e-9)
    assert f"{100 * metrics['average_accuracy']:.1f} %" in ran


def told(done: Done) -> dict[str, str]:
    """The top level of chosen.yaml, as text."""
    return dict(re.findall(r"^([\w.]+): (.+)$", (done.folder / "chosen.yaml").read_text(), re.MULTILINE))


def test_the_tutorial_is_followed_in_small(small: Done) -> None:
    check(small, seeds=1, added=0)


def test_commands_of_other_pages_on_its_run(small: Done) -> None:
    stages = [path.name for path in (small.folder / "runs" / "stages").glob("??/*") if len(path.name) == 64]
    one, other = sorted(stages)[:2]
    for command in (
        "mcit track runs/first",
        "mcit store list --storage runs",
        "python -m orchestration.store list --storage runs",
        f"python -m orchestration.store explain {one[:12]} {other[:12]} --storage runs",
        "python -m orchestration.store verify --storage runs",
        "python -m orchestration.store gc --keep runs/first --max-size 5GB --storage runs",
    ):
        assert run(command, small.folder)
    assert one[:4] in run("mcit store list --storage runs", small.folder)


@pytest.mark.slow
def test_a_folder_of_ones_own_is_trained_as_docs_data_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's mine.yaml on small data, for one seed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    public_data.llava_json(tmp_path / "mine", train=80)
    (text,) = (block.text for block in blocks(ROOT / "docs" / "data.md", "yaml") if block.title == "mine.yaml")
    (tmp_path / "mine.yaml").write_text(text.replace("seeds: [0, 1, 2]", "seeds: [0]").replace(", direct]", "]"))
    assert "Wrong: nothing" in run("python -m mcit_core.benchmarks.check mine", tmp_path)
    (command,) = (
        one
        for block in blocks(ROOT / "docs" / "data.md", "bash")
        for one in commands(block.text)
        if one.startswith("mcit sweep mine.yaml")
    )
    run(command, tmp_path)
    assert (tmp_path / "runs" / "try" / "report.html").exists()


@pytest.mark.slow
def test_the_tutorial_is_followed_word_by_word(tmp_path: Path) -> None:
    done = follow(tmp_path, {})
    check(done, seeds=3, added=2)
    (written,) = (block.text for block in blocks(TUTORIAL) if block.title == "chosen.yaml")
    assert (tmp_path / "chosen.yaml").read_text() == written


@pytest.mark.slow
def test_mlflows_page_starts(small: Done) -> None:
    (command,) = (
        one for block in blocks(TUTORIAL, "bash") for one in commands(block.text) if one.startswith("mlflow ui ")
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", *shlex.split(command), "--port", str(port)]
    server = subprocess.Popen(words, cwd=small.folder, start_new_session=True)
    try:
        limit = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                    assert answer.status == 200
                    break
            except urllib.error.URLError:
                assert time.monotonic() < limit
                assert server.poll() is None
                time.sleep(1)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)
