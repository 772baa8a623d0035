"""MLflow as a view of a RUN: one parent run a sweep, one child run a trial, however often either resumes.

`Tracker.sync` brings MLflow up to what the records say and may be called at any time, again and again, also after a
call that a crash or a dead server cut short at any point. Only what a run lacks is logged; a run that says something
else than the records is deleted and made anew. The sweep never waits for it (see `background`).
"""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
import platform
import posixpath
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from mcit_core.config import UNTRAINED, flatten
from mcit_core.stages.digest import digest
from mcit_core.stages.results import UNTOUCHED
from orchestration.keep.files import without_userinfo
from orchestration.keep.provenance import Provenance
from orchestration.keep.records import Records, TrialRecord
from orchestration.keep.tables import OUTDATED
from orchestration.plan.spec import SweepSpec
from orchestration.tracking.artefacts import write_artefacts
from orchestration.tracking.database import database_of, prepare
from orchestration.tracking.server import Client, Run

#: written at the stage they belong to; usage and drift per prompt stay in stages.parquet
STAGE_PREFIXES = ("subspace/", "seconds/", "loss/", "pool/", "pretrained_retention", "ema/")
#: characters of a name
LONGEST = 250
#: tag of a child run, written last: the digest of everything logged in it
CONTENT = "mcit.content"
#: the stock client tries a dead server for 246 s before it says so
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}

Point = tuple[str, int, float]
Item = TypeVar("Item")


def load_client() -> None:
    """Import MLflow's client. On the main thread before Ray Tune does, which imports it there too: on two threads at
    once they can wait for one another, or see half of it."""
    importlib.import_module("mlflow.tracking")


def default_uri(storage: Path) -> str:
    return f"sqlite:///{(storage / 'mlflow.db').resolve()}"


def tracking_uri(spec: SweepSpec, storage: Path) -> str:
    """Where a sweep is tracked: the file's choice, MLflow's own variable, or the storage's database."""
    return spec.mlflow or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(storage)


def mlflow_name(name: str) -> str:
    """The name of a metric, parameter or tag as MLflow takes it: with _ for what it forbids, 250 characters at most."""
    allowed = re.sub(r"[^/\w.\- :]", "_", name)
    unique = posixpath.normpath(allowed) == allowed != "." and not allowed.startswith(("/", ".."))
    if not unique:  # MLflow reads it as a path
        allowed = allowed.replace("/", "_").replace("..", "__").lstrip(".") or "_"
    if len(allowed) > LONGEST:
        allowed = f"{allowed[: LONGEST - 9]}_{digest(name)[:8]}"
    return allowed


@dataclass(frozen=True)
class _Content:
    """What a trial's run should hold. `tags` are refreshed by themselves; everything else is in `digest`."""

    points: list[Point]
    params: dict[str, str]
    tags: dict[str, str]
    status: str

    @property
    def digest(self) -> str:
        return digest([self.points, self.params, self.status])


class Tracker:
    """Writes `records` to the MLflow server at `uri`; `provenance` becomes tags of every run."""

    def __init__(self, uri: str, records: Records, provenance: Provenance) -> None:
        self.uri, self.records, self.provenance = uri, records, provenance
        self._opened: Client | None = None
        self._experiment = ""
        self._parent = ""
        self._children: dict[str, Run] = {}  # trial -> its run as last seen
        self._done: dict[str, tuple[str, int, bool]] = {}  # trial -> the mark of the record that was written
        self._aside: set[str] = set()  # trials whose runs say that they do not count

    def sync(self, final: bool = False, only: Collection[str] | None = None) -> None:
        """Log every ended trial that MLflow does not have as it is, or of these alone; `final` ends the parent too.
        Raises what the server raises."""
        records = self.records.records
        # others are compared with a reference
        every = only is None or any(records[trial].trial.method == "direct" for trial in only)
        try:
            self._connect()
            for trial in list(records if every or only is None else only):
                record = self.records.seen(records[trial])
                mark = self.records.mark(record)
                if record.status not in ("UNFINISHED", OUTDATED) and self._done.get(trial) != mark:
                    self._log_trial(record)
                    self._done[trial] = mark
            for trial, status in self.records.set_aside().items() if every else ():
                if trial in self._children and trial not in self._aside:
                    self._set_tags(self._children[trial], {"status": status})
                    self._aside.add(trial)
            if final:
                self._end()
        except Exception:
            self._parent = ""  # the next call looks again: the server may have lost what it had, or have been replaced
            self._done.clear()
            raise

    @property
    def _client(self) -> Client:
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def _open(self) -> Client:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        for chatty in ("mlflow", "alembic"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        database = database_of(self.uri)
        # another database is somebody else's
        if database is not None and self.uri == default_uri(self.records.run.parent):
            prepare(database, lambda uri: MlflowClient(uri).search_experiments())
        client: Client = MlflowClient(self.uri)
        return client

    def _connect(self) -> None:
        """Find or make the experiment and the parent run, and see which runs of trials there are."""
        if self._parent:
            return
        client = self._opened = self._open()
        name = self.records.spec.name
        found = client.get_experiment_by_name(name)
        if found is None:
            place = None
            if self.uri.startswith("sqlite:"):
                place = (self.records.run.parent / "mlartifacts" / name).resolve().as_uri()
            self._experiment = client.create_experiment(name, artifact_location=place)
        else:
            self._experiment = found.experiment_id
        folder = str(self.records.run.resolve())
        identity = str(self.provenance.get("run_id", folder))
        tags = {"mcit.run": identity, "mcit.kind": "sweep", "mlflow.runName": name, "folder": folder, **self._tags()}
        sweeps = self._search("sweep")
        parents = [run for run in sweeps if run.data.tags.get("mcit.run") == identity]
        if "run_id" not in self.provenance and not parents:  # its identity was lost: the newest that lay here
            parents = [run for run in sweeps if run.data.tags.get("folder") == folder][-1:]
            tags["mcit.run"] = parents[0].data.tags["mcit.run"] if parents else identity
        if parents:
            parent = self._only(parents)
            self._set_tags(parent, tags)
        else:
            parent = client.create_run(self._experiment, tags=tags)
        if parent.info.status != "RUNNING":
            client.update_run(parent.info.run_id, status="RUNNING")
        of_trial: dict[str, list[Run]] = {}
        trials = self._search("trial")
        for run in trials:
            if _parent_of(run) == parent.info.run_id:
                of_trial.setdefault(run.data.tags["mcit.trial"], []).append(run)
        # who holds the RUN's lock is alone in its folder: a killed sweep that lay here before would run for ever
        here = {"folder": folder, "host": platform.node()}
        for run in sweeps:
            if run.info.run_id != parent.info.run_id and here.items() <= run.data.tags.items():
                self._end_running([run, *(trial for trial in trials if _parent_of(trial) == run.info.run_id)])
        self._children = {trial: self._only(runs) for trial, runs in of_trial.items()}
        self._parent = parent.info.run_id

    def _search(self, kind: str) -> list[Run]:
        """The experiment's runs of a kind, the oldest first."""
        found: list[Run] = []
        token: str | None = None
        while True:
            page = self._client.search_runs(
                [self._experiment], f"tags.`mcit.kind` = '{kind}'", max_results=500, page_token=token
            )
            found += page
            token = page.token
            if not token:
                return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))

    def _only(self, runs: list[Run]) -> Run:
        """The oldest; the others are what a server left that made a run but could not say so."""
        for run in runs[1:]:
            self._client.delete_run(run.info.run_id)
        return runs[0]

    def _tags(self) -> dict[str, str]:
        flat = flatten(
            {
                key: self.provenance[key]
                for key in ("commit", "dirty", "code", "versions", "data")
                if key in self.provenance
            }
        )
        return {
            "sweep": self.records.spec.name,
            "host": platform.node(),
            **{mlflow_name(key): str(value) for key, value in flat.items()},
        }

    def _set_tags(self, run: Run, tags: dict[str, str]) -> None:
        """Refresh the tags of a run that is otherwise as it should be."""
        from mlflow.entities import RunTag

        changed = [RunTag(name, value) for name, value in tags.items() if run.data.tags.get(name) != value]
        if changed:
            self._client.log_batch(run.info.run_id, tags=changed)

    def _content(self, record: TrialRecord) -> _Content:
        trial = record.trial
        experiment = trial.experiment.model_dump(mode="json")
        tags = {
            "mlflow.parentRunId": self._parent,
            "mcit.kind": "trial",
            "mcit.trial": trial.id,
            "mlflow.runName": trial.id,
            "method": trial.method,
            "order": trial.order,
            "seed": str(trial.experiment.seed),
            "experiment_digest": digest(experiment),
            "status": record.status,
            **({"error": record.error[:4900]} if record.error else {}),
            **self._tags(),
        }
        params = {
            mlflow_name(name): value if isinstance(value, str) else json.dumps(value)
            for name, value in flatten(experiment).items()
        }
        # MLflow has no word for a trial that was stopped as planned; the tag `status` says it
        status = "FINISHED" if record.status in ("FINISHED", "STOPPED") else "FAILED"
        return _Content(sorted(self._points(record), key=lambda point: point[:2]), params, tags, status)

    def _log_trial(self, record: TrialRecord) -> None:
        content = self._content(record)
        run = self._children.get(record.trial.id)
        if run is not None:
            if "error" in run.data.tags and "error" not in content.tags:
                self._client.delete_tag(run.info.run_id, "error")
            if run.data.tags.get(CONTENT) == content.digest and run.info.status == content.status:
                self._set_tags(run, content.tags)
                return
        stored = self._stored(run) if run is not None else Counter()
        wanted = Counter(_as_stored(point) for point in content.points)
        if run is not None and (stored - wanted or not run.data.params.items() <= content.params.items()):
            self._client.delete_run(run.info.run_id)
            run, stored = None, Counter()
        if run is None:
            run = self._client.create_run(self._experiment, tags=content.tags)
        elif CONTENT in run.data.tags:
            self._client.delete_tag(run.info.run_id, CONTENT)
        self._log(run, content, [point for point in content.points if not stored[_as_stored(point)]])
        with tempfile.TemporaryDirectory() as folder:
            write_artefacts(Path(folder), record)
            self._client.log_artifacts(run.info.run_id, folder)
        self._client.set_terminated(run.info.run_id, content.status)
        self._client.set_tag(run.info.run_id, CONTENT, content.digest)
        self._children[record.trial.id] = self._client.get_run(run.info.run_id)

    def _stored(self, run: Run) -> Counter[tuple[str, int, float | str]]:
        return Counter(
            _as_stored((name, metric.step, metric.value))
            for name in run.data.metrics
            for metric in self._client.get_metric_history(run.info.run_id, name)
        )

    def _log(self, run: Run, content: _Content, points: list[Point]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        # a time that does not change makes a repeated request harmless: the same point is the same row
        begun = run.info.start_time
        metrics = [Metric(name, value, begun + step, step) for name, step, value in points]
        params = [Param(name, value) for name, value in content.params.items() if name not in run.data.params]
        tags = [RunTag(name, value) for name, value in content.tags.items()]
        # servers take 1,000 entries a request, of which 100 params and 100 tags
        for batch in zip_longest(_chunks(metrics, 800), _chunks(params, 100), _chunks(tags, 100), fillvalue=()):
            self._client.log_batch(run.info.run_id, *batch)

    def _points(self, record: TrialRecord) -> list[Point]:
        """(name, step, value): per stage; per training step, counted through the sequence; then the final scalars that
        no stage has, at the last stage."""
        points: list[Point] = []
        before = 0  # training steps of earlier stages
        for stage in record.stages:
            step = max(0, stage.stage)
            if stage.stage == UNTOUCHED and record.trial.experiment.protocol not in UNTRAINED:
                continue
            points += [
                (f"accuracy/{cell.task}", step, cell.accuracy) for cell in stage.accuracy if cell.split == "test"
            ]
            points += [(name, step, value) for name, value in stage.metrics.items() if name.startswith(STAGE_PREFIXES)]
            for name, values in stage.traces.items():
                points += [(name, before + i, value) for i, value in enumerate(values) if value is not None]
            before += len(stage.traces.get("loss", ()))
            if record.trial.experiment.protocol == "sequence":
                points += [
                    (name, step, value)
                    for name, value in self.records.metrics_at(record, stage.stage).items()
                    if value is not None
                ]
        known = {name for name, _, _ in points}
        last = max((stage.stage for stage in record.stages), default=0)
        points += [
            (name, max(0, last), value)
            for name, value in self.records.trial_row(record).items()
            if isinstance(value, float) and name not in known and name not in self.records.spec.axes
        ]
        return [(mlflow_name(name), step, value) for name, step, value in points]

    def _end_running(self, runs: Iterable[Run]) -> None:
        for run in runs:
            if run.info.status == "RUNNING":
                self._client.set_terminated(run.info.run_id, "KILLED")

    def _end(self) -> None:
        """End the parent, and every child that a killed sweep left running."""
        self._end_running([run for run in self._search("trial") if _parent_of(run) == self._parent])
        folder = self.records.run
        for path in (folder / "report.html", folder / "sweep.yaml", folder / "tables.csv"):
            if path.exists():
                self._client.log_artifact(self._parent, str(path))
        statuses = [record.status for record in self.records.records.values()]
        self._client.set_tag(self._parent, "trials_failed", str(statuses.count("FAILED")))
        ended = "KILLED" if "UNFINISHED" in statuses else "FAILED" if "FAILED" in statuses else "FINISHED"
        self._client.set_terminated(self._parent, ended)


def _parent_of(run: Run) -> str | None:
    found: str | None = run.data.tags.get("mlflow.parentRunId")
    return found


def _as_stored(point: Point) -> tuple[str, int, float | str]:
    """A point as it compares with what a store gives back: NaN equals NaN, and infinity has become the largest
    float."""
    name, step, value = point
    if math.isinf(value):
        value = math.copysign(sys.float_info.max, value)
    return name, step, "nan" if math.isnan(value) else value


def _chunks(items: list[Item], size: int) -> Iterable[list[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def unreachable(uri: str, error: Exception) -> str:
    """Why MLflow is not up to date, in a line, with what to do about it where that is known."""
    shown = without_userinfo(uri)
    reason = (str(error) or repr(error)).splitlines()[0].replace(uri, shown)
    database = database_of(uri)
    if database is not None:
        return (
            f"MLflow's database {database} cannot be used: {reason}. Once it is mended, or renamed so that a new one "
            "is made, `python -m orchestration.track RUN` brings everything"
        )
    no_answer = any(words in str(error) for words in ("API request", "Connection", "timed out"))
    return f"MLflow at {shown} {'cannot be reached' if no_answer else 'answers with an error'}: {reason}"
