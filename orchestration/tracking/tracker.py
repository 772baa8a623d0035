"""What MLflow shows of a sweep's records, however often sweep or trial resume (see `orchestration.tracking.mirror`).

`Tracker.sync` brings MLflow up to what the records say and may be called at any time. The sweep never waits for it (see
`background`).
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Collection
from functools import partial
from pathlib import Path

from mcit_core.config import UNTRAINED, flatten
from mcit_core.stages.digest import digest
from mcit_core.stages.results import UNTOUCHED
from orchestration.keep.provenance import Provenance
from orchestration.keep.records import Records
from orchestration.keep.tables import OUTDATED
from orchestration.keep.trial_record import TrialRecord
from orchestration.plan.spec import SweepSpec
from orchestration.plan.trials import Trial
from orchestration.results.reading import read_results
from orchestration.results.words import format_value, short_axis_names
from orchestration.tracking.artefacts import write_artefacts
from orchestration.tracking.content import Content, Point, mlflow_name
from orchestration.tracking.data import data_of, tasks_of
from orchestration.tracking.mirror import Mirror, default_uri
from orchestration.tracking.summary import Summary, summarise_results
from orchestration.tracking.times import TrialTimes, moment, times_of

#: written at the stage they belong to; usage and drift per prompt stay in stages.parquet
STAGE_PREFIXES = ("subspace/", "seconds/", "loss/", "pool/", "pretrained_retention", "ema/")


def tracking_uri(spec: SweepSpec, storage: Path) -> str:
    """Where a sweep is tracked: the file's choice, MLflow's own variable, or the storage's database."""
    return spec.mlflow or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(storage)


def wants_system_metrics(spec: SweepSpec) -> bool:
    """Whether what the driver's machine does is logged in the sweep's run: the file's choice, or MLflow's own
    variable."""
    told = os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "").strip().lower()
    return spec.system_metrics or told in ("true", "1")


class Tracker:
    """Writes `records` to the MLflow server at `uri`; `provenance` becomes tags of every run. watch: log what this
    process's machine does in the sweep's run, until the final sync."""

    def __init__(self, uri: str, records: Records, provenance: Provenance, watch: bool = False) -> None:
        self.records, self.provenance, self.watch = records, provenance, watch
        self.mirror = Mirror(uri, records.spec.name, records.run, provenance)
        self._done: dict[str, tuple[str, int, bool]] = {}  # trial -> the mark of the record that was written
        self._aside: set[str] = set()  # trials whose runs say that they do not count
        self._since = moment(provenance, "started") or time.time()

    def sync(self, final: bool = False, only: Collection[str] | None = None) -> None:
        """Log what MLflow lacks of every trial that has begun, or of these alone; `final` ends the parent too. Raises
        what the server raises."""
        records = self.records.records
        # others are compared with a reference
        every = only is None or any(
            records[trial].trial.method == "direct" and records[trial].status == "FINISHED" for trial in only
        )
        try:
            self.mirror.connect(self._begun())
            if self.watch and not final:
                self.mirror.watch()
            for trial in list(records if every or only is None else only):
                record = self.records.seen(records[trial])
                mark = self.records.mark(record)
                begun = record.status != "UNFINISHED" or record.times.begun is not None
                if begun and record.status != OUTDATED and self._done.get(trial) != mark:
                    self._log_trial(record)
                    self._done[trial] = mark
            for trial, status in self.records.set_aside().items() if every else ():
                if trial in self.mirror.children and trial not in self._aside:
                    self.mirror.set_tags(self.mirror.children[trial], {"status": status})
                    self._aside.add(trial)
            if final:
                self._end()
        except Exception:
            self.mirror.forget()
            self._done.clear()
            raise

    def _begun(self) -> int:
        """When the sweep did, also where an earlier command began it."""
        times = (record.times.begun for record in self.records.records.values())
        return round(1000 * min([self._since, *(begun for begun in times if begun is not None)]))

    def _ended(self) -> int | None:
        """When the sweep did, None where the RUN does not say. A command that finds every trial finished prolongs
        nothing."""
        times = [record.times.ended for record in self.records.records.values()]
        last = max((at for at in times if at is not None), default=None)
        finished = moment(self.provenance, "finished")
        if finished is None or (last is not None and not self._since <= last <= finished):
            return None if last is None else round(1000 * last)
        return round(1000 * finished)

    def _end(self) -> None:
        statuses = Counter(record.status for record in self.records.records.values())
        ended = "KILLED" if statuses["UNFINISHED"] else "FAILED" if statuses["FAILED"] else "FINISHED"
        summary, at = self._summary(), self._ended()
        if ended == "KILLED":  # no means of what will have more trials
            summary = Summary(note=summary.note)
        content = Content(
            [point._replace(at=at) for point in summary.points],
            {},
            summary.chosen,
            ended,
            ended=at,
            data=tasks_of((record.trial for record in self.records.records.values()), self.provenance),
        )
        note = "\n\n".join(filter(None, [summary.note, summary.legend]))
        self.mirror.end(content, statuses["FAILED"], note)

    def _summary(self) -> Summary:
        try:
            return summarise_results(read_results(self.records.run))
        except ValueError:  # a damaged file of the RUN is told elsewhere
            return Summary()

    def _settings(self, trial: Trial) -> dict[str, str]:
        """The swept values that apply to a trial, by the last part of their names."""
        spec = self.records.spec
        short = short_axis_names(name for name in spec.axes if name != "method")
        settings = {short[name]: value for name, value in trial.settings.items() if name in short and value is not None}
        told = {name: format_value(value) for name, value in settings.items()}
        if len(spec.orders) > 1 and trial.experiment.order in spec.orders:
            told["order"] = str(1 + spec.orders.index(trial.experiment.order))
        return told

    def _name(self, trial: Trial) -> str:
        """What a person reads: "fwd_prompt task_energy=0.95 order=2 seed=1"."""
        told = [f"{name}={value}" for name, value in self._settings(trial).items()]
        return " ".join([trial.method, *told, f"seed={trial.experiment.seed}"])

    def _params(self, trial: Trial) -> dict[str, str]:
        """What trials differ in as axis.NAME, so that MLflow offers it first where runs are compared; then what the
        experiment has beside that."""
        spec = self.records.spec
        varied = self._settings(trial)
        varied |= {"method": trial.method} if "method" in spec.axes or spec.references else {}
        varied |= {"seed": str(trial.experiment.seed)} if len(spec.seeds) > 1 else {}
        told = {*spec.axes, *({"method", "order", "seed"} & varied.keys())}
        params = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in flatten(trial.experiment.model_dump(mode="json")).items()
            if not any(name == path or name.startswith(f"{path}.") for path in told)
        }
        params |= {f"axis.{name}": value for name, value in varied.items()}
        return {mlflow_name(name): value for name, value in params.items()}

    def _content(self, record: TrialRecord) -> Content:
        trial, times = record.trial, times_of(record, self._since)
        tags = {
            "mlflow.parentRunId": self.mirror.parent,
            "mcit.kind": "trial",
            "mcit.trial": trial.id,
            "mlflow.runName": self._name(trial),
            "method": trial.method,
            "order": trial.order,
            "seed": str(trial.experiment.seed),
            "experiment_digest": digest(trial.experiment.model_dump(mode="json")),
            "status": record.status,
            **({"error": record.error[:4900]} if record.error else {}),
            **({} if times.recorded else {"times": "the duration is measured; when it ran was not written down"}),
            **self.mirror.tags(),
        }
        # MLflow has no word for a trial that was stopped as planned; the tag `status` says it
        status = {"FINISHED": "FINISHED", "STOPPED": "FINISHED", "UNFINISHED": "RUNNING"}.get(record.status, "FAILED")
        return Content(
            sorted(self._points(record, times), key=lambda point: point[:2]),
            self._params(trial),
            tags,
            status,
            times.begun,
            times.ended,
            times.recorded,
            data_of(trial, self.provenance),
        )

    def _log_trial(self, record: TrialRecord) -> None:
        self.mirror.log(record.trial.id, self._content(record), partial(write_artefacts, record=record))

    def _points(self, record: TrialRecord, times: TrialTimes) -> list[Point]:
        """Per stage; per training step, counted through the sequence; then, once it has ended, the final scalars that
        no stage has, at the last stage."""
        points: list[Point] = []
        before = 0  # training steps of earlier stages
        for stage, at in zip(record.stages, times.stages, strict=False):
            step = max(0, stage.stage)
            if stage.stage == UNTOUCHED and record.trial.experiment.protocol not in UNTRAINED:
                continue
            values = {f"accuracy/{cell.task}": cell.accuracy for cell in stage.accuracy if cell.split == "test"}
            values |= {name: value for name, value in stage.metrics.items() if name.startswith(STAGE_PREFIXES)}
            for name, trace in stage.traces.items():
                points += [
                    Point(name, before + i, value, at.of_step(i, len(trace)))
                    for i, value in enumerate(trace)
                    if value is not None
                ]
            before += len(stage.traces.get("loss", ()))
            if record.trial.experiment.protocol == "sequence":
                found = self.records.metrics_at(record, stage.stage)
                values |= {name: value for name, value in found.items() if value is not None}
            points += [Point(name, step, value, at.done) for name, value in values.items()]
        if record.status != "UNFINISHED":
            points += self._final(record, {point.name for point in points}, times.ended)
        return [point._replace(name=mlflow_name(point.name)) for point in points]

    def _final(self, record: TrialRecord, known: Collection[str], at: int) -> list[Point]:
        last = max((stage.stage for stage in record.stages), default=0)
        return [
            Point(name, max(0, last), value, at)
            for name, value in self.records.trial_row(record).items()
            if isinstance(value, float) and name not in known and name not in self.records.spec.axes
        ]
