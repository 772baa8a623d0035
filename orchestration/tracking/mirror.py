"""MLflow as a view of a RUN folder: one parent run for it, one child run for each of its trials.

Everything may be called again and again, also after a call that a crash or a dead server cut short at any point. Only
what a run lacks is logged; a run that says something else than it should is deleted and made anew.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import platform
import posixpath
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from mcit_core.config import flatten
from mcit_core.stages.digest import digest
from orchestration.keep.files import without_userinfo
from orchestration.keep.provenance import Provenance
from orchestration.tracking.database import database_of, prepare
from orchestration.tracking.server import Client, Run

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
class Content:
    """What a trial's run should hold. `tags` are refreshed by themselves; everything else is in `digest`."""

    points: list[Point]
    params: dict[str, str]
    tags: dict[str, str]
    status: str

    @property
    def digest(self) -> str:
        return digest([self.points, self.params, self.status])


#: characters of a run's description at most; MLflow keeps 8,000 of a tag
NOTE = 5000


class Mirror:
    """Writes the RUN folder `run`, called `name`, to the MLflow server at `uri`; `provenance` becomes tags of every
    run. Every method raises what the server raises."""

    def __init__(self, uri: str, name: str, run: Path, provenance: Provenance) -> None:
        self.uri, self.name, self.run, self.provenance = uri, name, run, provenance
        self.parent = ""  # the id of the parent run, once connected
        self.children: dict[str, Run] = {}  # trial -> its run as last seen
        self._opened: Client | None = None
        self._experiment = ""

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
        if database is not None and self.uri == default_uri(self.run.parent):
            prepare(database, lambda uri: MlflowClient(uri).search_experiments())
        client: Client = MlflowClient(self.uri)
        return client

    def connect(self) -> None:
        """Find or make the experiment and the parent run, and see which runs of trials there are."""
        if self.parent:
            return
        client = self._opened = self._open()
        name = self.name
        found = client.get_experiment_by_name(name)
        if found is None:
            place = None
            if self.uri.startswith("sqlite:"):
                place = (self.run.parent / "mlartifacts" / name).resolve().as_uri()
            self._experiment = client.create_experiment(name, artifact_location=place)
        else:
            self._experiment = found.experiment_id
        folder = str(self.run.resolve())
        identity = str(self.provenance.get("run_id", folder))
        tags = {"mcit.run": identity, "mcit.kind": "sweep", "mlflow.runName": name, "folder": folder, **self.tags()}
        sweeps = self._search("sweep")
        parents = [run for run in sweeps if run.data.tags.get("mcit.run") == identity]
        if "run_id" not in self.provenance and not parents:  # its identity was lost: the newest that lay here
            parents = [run for run in sweeps if run.data.tags.get("folder") == folder][-1:]
            tags["mcit.run"] = parents[0].data.tags["mcit.run"] if parents else identity
        if parents:
            parent = self._only(parents)
            self.set_tags(parent, tags)
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
        self.children = {trial: self._only(runs) for trial, runs in of_trial.items()}
        self.parent = parent.info.run_id

    def forget(self) -> None:
        """Look again at the next call: the server may have lost what it had, or have been replaced."""
        self.parent = ""

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

    def tags(self) -> dict[str, str]:
        flat = flatten(
            {
                key: self.provenance[key]
                for key in ("commit", "dirty", "code", "versions", "data")
                if key in self.provenance
            }
        )
        return {
            "sweep": self.name,
            "host": platform.node(),
            **{mlflow_name(key): str(value) for key, value in flat.items()},
        }

    def set_tags(self, run: Run, tags: dict[str, str]) -> None:
        """Refresh the tags of a run that is otherwise as it should be."""
        from mlflow.entities import RunTag

        changed = [RunTag(name, value) for name, value in tags.items() if run.data.tags.get(name) != value]
        if changed:
            self._client.log_batch(run.info.run_id, tags=changed)

    def log(self, trial: str, content: Content, write_artefacts: Callable[[Path], None]) -> None:
        """Make a trial's run hold `content`, and what `write_artefacts` puts into a folder."""
        run = self.children.get(trial)
        if run is not None:
            if "error" in run.data.tags and "error" not in content.tags:
                self._client.delete_tag(run.info.run_id, "error")
            if run.data.tags.get(CONTENT) == content.digest and run.info.status == content.status:
                self.set_tags(run, content.tags)
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
            write_artefacts(Path(folder))
            self._client.log_artifacts(run.info.run_id, folder)
        self._client.set_terminated(run.info.run_id, content.status)
        self._client.set_tag(run.info.run_id, CONTENT, content.digest)
        self.children[trial] = self._client.get_run(run.info.run_id)

    def _stored(self, run: Run) -> Counter[tuple[str, int, float | str]]:
        return Counter(
            _as_stored((name, metric.step, metric.value))
            for name in run.data.metrics
            for metric in self._client.get_metric_history(run.info.run_id, name)
        )

    def _log(self, run: Run, content: Content, points: list[Point]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        # a time that does not change makes a repeated request harmless: the same point is the same row
        begun = run.info.start_time
        metrics = [Metric(name, value, begun + step, step) for name, step, value in points]
        params = [Param(name, value) for name, value in content.params.items() if name not in run.data.params]
        tags = [RunTag(name, value) for name, value in content.tags.items()]
        # servers take 1,000 entries a request, of which 100 params and 100 tags
        for batch in zip_longest(_chunks(metrics, 800), _chunks(params, 100), _chunks(tags, 100), fillvalue=()):
            self._client.log_batch(run.info.run_id, *batch)

    def _end_running(self, runs: Iterable[Run]) -> None:
        for run in runs:
            if run.info.status == "RUNNING":
                self._client.set_terminated(run.info.run_id, "KILLED")

    def end(self, status: str, failed: int, note: str = "") -> None:
        """End the parent, and every child that a killed sweep left running. note: its description, in Markdown."""
        self._end_running([run for run in self._search("trial") if _parent_of(run) == self.parent])
        folder = self.run
        for path in (folder / "report.html", folder / "sweep.yaml", folder / "tables.csv"):
            if path.exists():
                self._client.log_artifact(self.parent, str(path))
        self._client.set_tag(self.parent, "trials_failed", str(failed))
        if note:
            self._client.set_tag(self.parent, "mlflow.note.content", note[:NOTE])
        self._client.set_terminated(self.parent, status)


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


def unreachable(uri: str, error: Exception, again: str = "`python -m orchestration.track RUN`") -> str:
    """Why MLflow is not up to date, in a line, with what to do about it where that is known."""
    shown = without_userinfo(uri)
    reason = (str(error) or repr(error)).splitlines()[0].replace(uri, shown)
    database = database_of(uri)
    if database is not None:
        return (
            f"MLflow's database {database} cannot be used: {reason}. Once it is mended, or renamed so that a new one "
            f"is made, {again} brings everything"
        )
    no_answer = any(words in str(error) for words in ("API request", "Connection", "timed out"))
    return f"MLflow at {shown} {'cannot be reached' if no_answer else 'answers with an error'}: {reason}"
