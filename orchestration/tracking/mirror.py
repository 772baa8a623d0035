"""MLflow as a view of a RUN folder: one parent run for it, one child run for each of its trials.

Everything may be called again and again, also after a call that a crash or a dead server cut short at any point. Only
what a run lacks is logged; a run of a trial that says something else than it should is deleted and made anew. The
parent stays for ever, with what others have logged in it.
"""

from __future__ import annotations

import importlib
import logging
import os
import platform
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from mcit_core.config import flatten
from orchestration.keep.files import without_userinfo
from orchestration.keep.provenance import Provenance
from orchestration.tracking.content import Content, Data, Known, Point, as_stored, known, mlflow_name
from orchestration.tracking.database import database_of, prepare
from orchestration.tracking.server import Client, Monitor

#: tag of a child run, written last: the digest of everything logged in it
CONTENT = "mcit.content"
PARENT = "mlflow.parentRunId"
#: the stock client tries a dead server for 246 s before it says so
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
#: characters of a run's description at most; MLflow keeps 8,000 of a tag
NOTE = 5000

Batch = tuple[list[object], list[object], list[object]]


def load_client() -> None:
    """Import MLflow's client. On the main thread before Ray Tune does, which imports it there too: on two threads at
    once they can wait for one another, or see half of it."""
    importlib.import_module("mlflow.tracking")


def default_uri(storage: Path) -> str:
    return f"sqlite:///{(storage / 'mlflow.db').resolve()}"


class Mirror:
    """Writes the RUN folder `run`, called `name`, to the MLflow server at `uri`; `provenance` becomes tags of every
    run. Every method raises what the server raises."""

    def __init__(self, uri: str, name: str, run: Path, provenance: Provenance) -> None:
        self.uri, self.name, self.run, self.provenance = uri, name, run, provenance
        self.parent = ""  # the id of the parent run, once connected
        self.children: dict[str, Known] = {}  # by trial
        self._parent: Known | None = None
        self._opened: Client | None = None
        self.experiment = ""  # its id, once connected
        self._monitor: Monitor | None = None
        self._no_datasets = False

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

    def connect(self, begun: int | None = None) -> None:
        """Find or make the experiment and the parent run, and see which runs of trials there are. begun: when the
        sweep did, in milliseconds since 1970, where that is known."""
        if self.parent:
            return
        client = self._opened = self._open()
        found = client.get_experiment_by_name(self.name)
        self.experiment = found.experiment_id if found else self._make_experiment()
        folder = str(self.run.resolve())
        sweeps = self._search("sweep")
        parents, identity = self._parents(sweeps, folder)
        names = {"mcit.run": identity, "mcit.kind": "sweep", "mlflow.runName": self.name, "folder": folder}
        if parents:
            parent = parents[0]
            self.set_tags(parent, {**names, **self.tags()})
        else:
            parent = self._create({**names, **self.tags()}, begun)
        self._run_again(parent)
        trials = self._search("trial")
        self.children = self._adopt(trials, [run.id for run in parents], parent)
        for spare in parents[1:]:
            client.delete_run(spare.id)
        # who holds the RUN's lock is alone in its folder: a killed sweep that lay here before would run for ever
        here = {"folder": folder, "host": platform.node()}
        for run in sweeps:
            if run not in parents and here.items() <= run.tags.items():
                self._end_running([run, *(trial for trial in trials if trial.parent == run.id)])
        self.parent, self._parent = parent.id, parent

    def _make_experiment(self) -> str:
        place = None
        if self.uri.startswith("sqlite:"):
            place = (self.run.parent / "mlartifacts" / self.name).resolve().as_uri()
        return self._client.create_experiment(self.name, artifact_location=place)

    def _parents(self, sweeps: Sequence[Known], folder: str) -> tuple[list[Known], str]:
        """The parents that this RUN has, and its identity. There are several where a server made one and could not say
        so, or where a crash came while one was taking another's place."""
        identity = str(self.provenance.get("run_id", folder))
        parents = [run for run in sweeps if run.tags.get("mcit.run") == identity]
        if "run_id" not in self.provenance and not parents:  # its identity was lost: the newest that lay here
            parents = [run for run in sweeps if run.tags.get("folder") == folder][-1:]
            identity = parents[0].tags["mcit.run"] if parents else identity
        return parents, identity

    def _adopt(self, trials: Sequence[Known], parents: Sequence[str], parent: Known) -> dict[str, Known]:
        """The children of these parents, now all of the one, by trial: the oldest of each; the others are what a server
        left that made a run but could not say so."""
        found: dict[str, Known] = {}
        for run in trials:
            if run.parent not in parents:
                continue
            if run.tags["mcit.trial"] in found:
                self._client.delete_run(run.id)
                continue
            self.set_tags(run, {PARENT: parent.id})
            found[run.tags["mcit.trial"]] = run
        return found

    def forget(self) -> None:
        """Look again at the next call: the server may have lost what it had, or have been replaced."""
        self.parent = ""
        self._unwatch()

    def _search(self, kind: str) -> list[Known]:
        """The experiment's runs of a kind, the oldest first."""
        found: list[Known] = []
        token: str | None = None
        while True:
            page = self._client.search_runs(
                [self.experiment], f"tags.`mcit.kind` = '{kind}'", max_results=500, page_token=token
            )
            found += map(known, page)
            token = page.token
            if not token:
                return sorted(found, key=lambda run: (run.begun, run.id))

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

    def set_tags(self, run: Known, tags: dict[str, str]) -> None:
        """Refresh the tags of a run that is otherwise as it should be."""
        self._log(run, Content([], {}, tags, run.status))

    def _create(self, tags: dict[str, str], begun: int | None) -> Known:
        made = known(self._client.create_run(self.experiment, begun, tags))
        made.points = Counter()
        return made

    def _run_again(self, run: Known) -> None:
        if run.status != "RUNNING":
            self._client.update_run(run.id, status="RUNNING")
            run.status = "RUNNING"

    def log(self, trial: str, content: Content, write_artefacts: Callable[[Path], None]) -> None:
        """Make a trial's run hold `content`, and once it has ended what `write_artefacts` puts into a folder."""
        run = self.children.get(trial)
        if run is not None and self._is_wrong(run, content):
            self._client.delete_run(run.id)
            del self.children[trial]
            run = None
        if run is None:
            run = self.children[trial] = self._create(content.tags, content.begun)
        for name in ("error", "times"):
            if name not in content.tags:
                self._untag(run, name)
        if run.tags.get(CONTENT) == content.digest:
            self.set_tags(run, content.tags)
            if run.status != content.status:
                self._end(run, content)
            return
        self._untag(run, CONTENT)
        self._read(run, content.data)
        if content.status == "RUNNING":
            self._run_again(run)
            self._log(run, content)
            return
        with tempfile.TemporaryDirectory() as folder:
            write_artefacts(Path(folder))
            self._client.log_artifacts(run.id, folder)
        self._log(run, content, content.digest)
        self._end(run, content)

    def _end(self, run: Known, content: Content) -> None:
        self._client.set_terminated(run.id, content.status, content.ended)
        run.status, run.points = content.status, None

    def _is_wrong(self, run: Known, content: Content) -> bool:
        """Whether a run says what it should not, which nothing but its deletion takes back."""
        if content.exact and content.begun is not None and run.begun > content.begun:
            return True  # the start is the time of logging, as of an earlier version
        read = {data.name: data.digest for data in content.data}
        if any(read.get(name, digest) != digest for name, digest in run.data):
            return True
        return run.tags.get(CONTENT) != content.digest and self._contradicts(run, content)

    def _contradicts(self, run: Known, content: Content) -> bool:
        if run.points is None:
            self._look(run, run.metrics)
        return not (content.agrees(run.points or Counter()) and run.params.items() <= content.params.items())

    def _look(self, run: Known, names: Collection[str]) -> None:
        """See which points of some metrics a run has."""
        run.points = Counter(
            as_stored(Point(name, metric.step, metric.value))
            for name in sorted(run.metrics & {*names})
            for metric in self._client.get_metric_history(run.id, name)
        )

    def _untag(self, run: Known, name: str) -> None:
        if run.tags.pop(name, None) is not None:
            self._client.delete_tag(run.id, name)

    def _log(self, run: Known, content: Content, mark: str | None = None) -> None:
        """Log what a run lacks of the points, params and tags, `mark` as its CONTENT with the last of it."""
        from mlflow.entities import Metric, Param, RunTag

        there = run.points or Counter()
        points = [point for point in content.points if not there[as_stored(point)]]
        # a time that does not change makes a repeated request harmless: the same point is the same row
        metrics = [Metric(p.name, p.value, run.begun + p.step if p.at is None else p.at, p.step) for p in points]
        params = [Param(name, value) for name, value in content.params.items() if name not in run.params]
        tags = [RunTag(name, value) for name, value in content.tags.items() if run.tags.get(name) != value]
        parts = _batches(metrics, params, tags)
        if mark is not None:
            *parts, (metrics, params, tags) = parts or [([], [], [])]
            parts.append((metrics, params, [*tags, RunTag(CONTENT, mark)]))
        for part in parts:
            self._client.log_batch(run.id, *part)
        run.tags |= content.tags | ({} if mark is None else {CONTENT: mark})
        run.params |= {sys.intern(name): sys.intern(value) for name, value in content.params.items()}
        run.metrics |= {sys.intern(point.name) for point in points}
        if run.points is not None:
            run.points.update(map(as_stored, points))

    def _read(self, run: Known, data: Sequence[Data]) -> None:
        """Say what data a run reads."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        new = [one for one in data if (one.name, one.digest) not in run.data]
        inputs = [
            DatasetInput(
                Dataset(one.name, one.digest, "benchmark", one.source, profile=one.profile),
                [InputTag("mlflow.data.context", one.context)],
            )
            for one in new
        ]
        if not inputs or self._no_datasets:
            return
        try:
            self._client.log_inputs(run.id, inputs)
        except Exception as error:
            if getattr(error, "error_code", "") != "ENDPOINT_NOT_FOUND":
                raise
            self._no_datasets = True  # a server that knows none; all else goes on
            return
        run.data |= {(one.name, one.digest) for one in new}

    def _end_running(self, runs: Iterable[Known]) -> None:
        for run in runs:
            if run.status == "RUNNING":
                self._client.set_terminated(run.id, "KILLED")

    def watch(self) -> None:
        """Log what this process's machine does in the parent, from now until it ends."""
        if self._monitor is None:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            try:
                monitor = SystemMetricsMonitor(self.parent, resume_logging=True, tracking_uri=self.uri)
                monitor.start()
            except Exception as error:  # it is an extra: nothing else may wait for it
                warnings.warn(f"the machine's figures are not logged: {error}", stacklevel=2)
                return
            self._monitor = monitor

    def _unwatch(self) -> None:
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None

    def end(self, content: Content, failed: int, note: str = "") -> None:
        """End the parent, which holds `content`, and every child that a killed sweep left running. note: its
        description, in Markdown."""
        self._unwatch()
        self._end_running([run for run in self._search("trial") if run.parent == self.parent])
        assert self._parent is not None
        parent = self._parent
        # what others log in it is theirs, so that it is never made anew: a mean that has changed stands beside the one
        # before, at its own time
        self._look(parent, {point.name for point in content.points})
        if content.status != "KILLED":
            for name in [name for name in parent.tags if name.startswith("chosen") and name not in content.tags]:
                self._untag(parent, name)
        self._read(parent, content.data)
        for path in (self.run / "report.html", self.run / "sweep.yaml", self.run / "tables.csv"):
            if path.exists():
                self._client.log_artifact(parent.id, str(path))
        self._log(parent, content)
        told = {"mlflow.note.content": note[:NOTE]} if note else {}
        self.set_tags(parent, {**content.tags, "trials_failed": str(failed), **told})
        self._end(parent, content)


def _batches(metrics: list[object], params: list[object], tags: list[object]) -> list[Batch]:
    """Servers take 1,000 entries a request, of which 100 params and 100 tags; room for one tag more is left."""
    none: list[object] = []
    return [*zip_longest(_chunks(metrics, 800), _chunks(params, 100), _chunks(tags, 99), fillvalue=none)]


def _chunks(items: list[object], size: int) -> Iterable[list[object]]:
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
