"""MLflow as a view of a RUN: one parent run a sweep, one child run a trial, however often either resumes.

`Tracker.sync` brings MLflow up to what the records say and may be called at any time, again and again: runs are found
by tag, and only what a run does not have yet is logged. The sweep never waits for it.
"""

from __future__ import annotations

import json
import logging
import platform
import queue
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from mcit_core.config import flatten
from mcit_core.digest import digest
from orchestration.records import Records, TrialRecord

#: written at the stage they belong to; usage and drift per prompt stay in stages.parquet
STAGE_PREFIXES = ("subspace/", "seconds/", "loss/", "pool/", "pretrained_retention", "ema/")


def default_uri(storage: Path) -> str:
    return f"sqlite:///{(storage / 'mlflow.db').resolve()}"


class Tracker:
    """Writes `records` to the MLflow server at `uri`; `provenance` becomes tags of every run."""

    def __init__(self, uri: str, records: Records, provenance: dict[str, Any]) -> None:
        self.uri, self.records, self.provenance = uri, records, provenance
        self._client: Any = None
        self._experiment = ""
        self._parent = ""
        self._children: dict[str, str] = {}
        self._done: dict[str, str] = {}  # trial -> digest of what has been written

    def sync(self, final: bool = False) -> None:
        """Log every ended trial that MLflow does not have yet. Raises what the server raises."""
        self._connect()
        for record in list(self.records.records.values()):
            if record.status == "UNFINISHED":
                continue
            row = self.records.trial_row(record)
            mark = digest([row, len(record.stages)])
            if self._done.get(record.trial.id) != mark:
                self._log_trial(record, row)
                self._done[record.trial.id] = mark
        if final:
            self._end_parent()

    def _connect(self) -> None:
        if self._parent:
            return
        from mlflow.tracking import MlflowClient

        for chatty in ("mlflow", "alembic"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        client = MlflowClient(self.uri)
        name = self.records.spec.name
        found = client.get_experiment_by_name(name)
        if found is None:
            place = None
            if self.uri.startswith("sqlite:"):
                place = (self.records.run.parent / "mlartifacts" / name).resolve().as_uri()
            self._experiment = client.create_experiment(name, artifact_location=place)
        else:
            self._experiment = found.experiment_id
        run = str(self.records.run.resolve())
        tags = {"mcit.run": run, "mcit.kind": "sweep", "mlflow.runName": name, **self._tags()}
        self._client = client
        self._parent = self._find(f"tags.`mcit.kind` = 'sweep' and tags.`mcit.run` = '{run}'", tags)
        client.update_run(self._parent, status="RUNNING")

    def _tags(self) -> dict[str, str]:
        flat = flatten(
            {key: self.provenance[key] for key in ("commit", "dirty", "versions", "data") if key in self.provenance}
        )
        return {
            "sweep": self.records.spec.name,
            "host": platform.node(),
            **{key: str(value) for key, value in flat.items()},
        }

    def _find(self, condition: str, tags: dict[str, str]) -> str:
        """The run that `condition` finds, or a new one with `tags`."""
        found = self._client.search_runs([self._experiment], condition, max_results=1)
        if found:
            return str(found[0].info.run_id)
        return str(self._client.create_run(self._experiment, tags=tags).info.run_id)

    def _log_trial(self, record: TrialRecord, row: dict[str, Any]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        trial = record.trial
        tags = {
            "mlflow.parentRunId": self._parent,
            "mcit.kind": "trial",
            "mcit.trial": trial.id,
            "mlflow.runName": trial.id,
            "method": trial.method,
            "order": trial.order,
            "seed": str(trial.experiment.seed),
            "experiment_digest": digest(trial.experiment.model_dump(mode="json")),
            **self._tags(),
        }
        condition = f"tags.`mcit.trial` = '{trial.id}' and tags.`mlflow.parentRunId` = '{self._parent}'"
        run = self._children.setdefault(trial.id, self._find(condition, tags))
        data = self._client.get_run(run).data
        now = int(time.time() * 1000)
        metrics = [
            Metric(name, value, now, step)
            for name, step, value in self._points(record, row)
            if name not in data.metrics
        ]
        fields = flatten(trial.experiment.model_dump(mode="json"))
        params = [Param(name, _text(value)) for name, value in fields.items() if name not in data.params]
        marks = [RunTag("status", record.status), *([RunTag("error", record.error[:4900])] if record.error else [])]
        for start in range(0, max(1, len(metrics)), 900):  # servers take 1,000 points a batch
            self._client.log_batch(
                run, metrics[start : start + 900], params[:100] if not start else (), marks if not start else ()
            )
        self._artefacts(run, record)
        self._client.set_terminated(run, "FINISHED" if record.status == "FINISHED" else "FAILED")

    def _points(self, record: TrialRecord, row: dict[str, Any]) -> list[tuple[str, int, float]]:
        """(name, step, value): per stage, then the final scalars that no stage has, at the last step."""
        points: list[tuple[str, int, float]] = []
        for stage in record.stages:
            step = max(0, stage["stage"])
            if stage["stage"] < 0 and record.trial.experiment.protocol != "zero_shot":
                continue
            points += [
                (f"accuracy/{cell['task']}", step, cell["accuracy"])
                for cell in stage["accuracy"]
                if cell["split"] == "test"
            ]
            points += [
                (name, step, value) for name, value in stage["metrics"].items() if name.startswith(STAGE_PREFIXES)
            ]
            if record.trial.experiment.protocol == "sequence":
                points += [
                    (name, step, value)
                    for name, value in self.records.metrics_at(record, stage["stage"]).items()
                    if value is not None
                ]
        known = {name for name, _, _ in points}
        last = max((stage["stage"] for stage in record.stages), default=0)
        points += [
            (name, max(0, last), value)
            for name, value in row.items()
            if isinstance(value, float) and name not in known and name not in self.records.spec.axes
        ]
        return points

    def _artefacts(self, run: str, record: TrialRecord) -> None:
        order = record.trial.experiment.order
        lines = ["stage," + ",".join(order)]
        for name, cells in zip(
            ("untouched", *order), [record.untouched("test") or [], *record.matrix("test")], strict=False
        ):
            lines.append(",".join([name, *("" if cell is None else f"{cell:.6f}" for cell in cells)]))
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "accuracy_matrix.csv").write_text("\n".join(lines) + "\n")
            (Path(folder) / "experiment.yaml").write_text(
                yaml.safe_dump(record.trial.experiment.model_dump(mode="json"), sort_keys=False)
            )
            _matrix_picture(Path(folder) / "accuracy_matrix.png", record)
            self._client.log_artifacts(run, folder)

    def _end_parent(self) -> None:
        run = self.records.run
        for path in (run / "report.html", run / "sweep.yaml", run / "tables.csv"):
            if path.exists():
                self._client.log_artifact(self._parent, str(path))
        statuses = [record.status for record in self.records.records.values()]
        self._client.set_tag(self._parent, "trials_failed", str(statuses.count("FAILED")))
        ended = "KILLED" if "UNFINISHED" in statuses else "FAILED" if "FAILED" in statuses else "FINISHED"
        self._client.set_terminated(self._parent, ended)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _matrix_picture(path: Path, record: TrialRecord) -> None:
    from matplotlib.figure import Figure

    matrix, order = record.matrix("test"), record.trial.experiment.order
    if not matrix:
        return
    figure = Figure(figsize=(1 + len(order), 1 + len(matrix)), layout="constrained")
    axis = figure.subplots()
    axis.imshow(
        [[float("nan") if cell is None else cell for cell in row] for row in matrix], vmin=0, vmax=1, cmap="viridis"
    )
    for i, row in enumerate(matrix):
        for j, cell in enumerate(row):
            if cell is not None:
                axis.text(j, i, f"{100 * cell:.0f}", ha="center", va="center", color="white" if cell < 0.6 else "black")
    axis.set_xticks(range(len(order)), order, rotation=30, ha="right")
    axis.set_yticks(range(len(matrix)), [f"after {task}" for task in order[: len(matrix)]])
    figure.savefig(path, dpi=90)


class BackgroundTracker:
    """Runs `sync` on a thread of its own, so that a slow or dead server delays nothing; it is complained of once."""

    def __init__(self, tracker: Tracker, complain: Callable[[str], None]) -> None:
        self.tracker, self.complain = tracker, complain
        self.failed = False
        self._requests: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True, name="mlflow")
        self._thread.start()

    def _work(self) -> None:
        while True:
            final = self._requests.get()
            while not self._requests.empty():
                final = self._requests.get() or final
            try:
                self.tracker.sync(final)
                self.failed = False
            except Exception as error:  # whatever a tracking server does must not reach the sweep
                told, self.failed = self.failed, True
                if not told:
                    reason = (str(error) or repr(error)).splitlines()[0]
                    self.complain(f"MLflow at {self.tracker.uri} cannot be reached: {reason}")
            if final:
                return

    def request(self) -> None:
        self._requests.put(False)

    def finish(self, seconds: float = 60) -> bool:
        """The last sync. False where it failed or did not end in time; the RUN's Parquet then has everything."""
        self._requests.put(True)
        self._thread.join(seconds)
        return not self._thread.is_alive() and not self.failed
