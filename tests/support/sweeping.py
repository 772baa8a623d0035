"""A small sweep whose command runs in a process of its own and is killed here and there, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pyarrow.parquet as pq

SWEEP = """\
name: tiny
benchmark: tiny
tasks: [attribute, ground, bars]
model: tiny
method: sequential
base: {tuner: noting, train.steps: 2, train.batch_size: 8, pool.size: 4, pool.top_k: 2}
axes:
  pool.reuse: [share, penalise, freeze]
references: [direct]
resources: {workers: 2}
"""
#: reuse means nothing in a first stage, which direct shares too
STAGES, DISTINCT, WORKERS = 12, 9, 2


class Sweep:
    """The command in a process of its own; its workers note every stage that they begin to train."""

    #: a feature cache that is there already; None for one in the sweep's own storage
    features: ClassVar[Path | None] = None

    def __init__(self, folder: Path, name: str = "tiny") -> None:
        folder.mkdir(exist_ok=True)
        self.storage, self.notes = folder / "runs", folder / "notes"
        if self.features is not None and not self.storage.exists():
            self.storage.mkdir()
            (self.storage / "features").symlink_to(self.features)
        self.name, self.file = name, folder / f"{name}.yaml"
        self.file.write_text(SWEEP.replace("name: tiny", f"name: {name}"))
        self.notes.touch()
        self.process: subprocess.Popen[str] | None = None
        #: what its processes listened on while it ran, where somebody looked
        self.listening: dict[str, str] = {}

    def begin(self, sleep: float = 0.0, *options: str, **environment: str) -> Sweep:
        command = [sys.executable, "-m", "orchestration.sweep", str(self.file), "--storage", str(self.storage)]
        self.process = subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a process group of its own, for signals to all of it
            env={**os.environ, "MCIT_TEST_NOTES": str(self.notes), "MCIT_TEST_SLEEP": str(sleep), **environment},
        )
        return self

    def end(self, code: int = 0) -> str:
        assert self.process
        said, _ = self.process.communicate(timeout=500)
        assert self.process.returncode == code, said
        return said

    @property
    def begun(self) -> list[int]:
        return [int(line) for line in self.notes.read_text().split()]

    def wait_for(self, count: int) -> int:
        """Until so many stages have been begun; returns the process that began the last of them."""
        assert self.process
        limit = time.monotonic() + 300
        while len(self.begun) < count:
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < limit
            time.sleep(0.05)
        return self.begun[-1]

    def table(self, name: str) -> list[dict[str, object]]:
        rows = pq.read_table(self.storage / self.name / f"{name}.parquet").to_pylist()
        if name == "stages":
            rows = [row for row in rows if not row["name"].startswith("seconds")]
        timeless = [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]
        return sorted(timeless, key=lambda row: repr(list(row.items())[:5]))


def without_counts(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{k: v for k, v in row.items() if k not in ("stages_trained", "stages_reused")} for row in rows]


def mlflow_runs(sweep: Sweep) -> list[str]:
    """What is wrong with the MLflow runs of a finished sweep: one finished run a trial, no point twice."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{sweep.storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    if experiment is None:
        return ["MLflow has no experiment"]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    children = [run for run in runs if run.data.tags.get("mcit.kind") == "trial"]
    # a RUN that lost all that it was known by, before it had a result, is another one
    lost = {
        run.info.run_id for run in runs if run.data.tags.get("mcit.kind") == "sweep" and run.info.status == "KILLED"
    }
    lost -= {run.data.tags["mlflow.parentRunId"] for run in children}
    wrong = [
        f"{run.data.tags.get('mcit.kind')} {run.info.run_id} is {run.info.status}"
        for run in runs
        if run.info.status != "FINISHED" and run.info.run_id not in lost
    ]
    if sorted(run.data.tags["mcit.trial"] for run in children) != sorted(
        str(t["trial"]) for t in sweep.table("trials")
    ):
        wrong.append("not one run a trial")
    for run in children:
        points = [point.step for point in client.get_metric_history(run.info.run_id, "average_accuracy")]
        if len(points) != len(set(points)):
            wrong.append(f"run {run.info.run_id} has points twice")
    return wrong


def listening(mark: str) -> dict[str, str]:
    """Listening TCP addresses (hexadecimal, as Linux has them) -> the process, of all whose environment has `mark`."""
    sockets: dict[str, str] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_text(errors="replace"):
                found = [os.readlink(file) for file in (process / "fd").iterdir()]
                sockets |= dict.fromkeys(found, (process / "cmdline").read_text()[:60])
        except OSError:
            continue  # it has ended, or is not ours
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return {
        words[1]: sockets[f"socket:[{words[9]}]"]
        for words in lines
        if words[3] == "0A" and f"socket:[{words[9]}]" in sockets
    }
