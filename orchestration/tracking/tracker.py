"""What MLflow shows of a sweep's records, however often sweep or trial resume (see `orchestration.tracking.mirror`).

`Tracker.sync` brings MLflow up to what the records say and may be called at any time. The sweep never waits for it (see
`background`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from functools import partial
from pathlib import Path

from mcit_core.config import UNTRAINED, flatten
from mcit_core.stages.digest import digest
from mcit_core.stages.results import UNTOUCHED
from orchestration.keep.provenance import Provenance
from orchestration.keep.records import Records, TrialRecord
from orchestration.keep.tables import OUTDATED
from orchestration.plan.spec import SweepSpec
from orchestration.plan.trials import Trial
from orchestration.results.answer import answer, as_markdown
from orchestration.results.reading import read_results
from orchestration.results.words import format_value, short_axis_names
from orchestration.tracking.artefacts import write_artefacts
from orchestration.tracking.mirror import Content, Mirror, Point, default_uri, mlflow_name

#: written at the stage they belong to; usage and drift per prompt stay in stages.parquet
STAGE_PREFIXES = ("subspace/", "seconds/", "loss/", "pool/", "pretrained_retention", "ema/")


def tracking_uri(spec: SweepSpec, storage: Path) -> str:
    """Where a sweep is tracked: the file's choice, MLflow's own variable, or the storage's database."""
    return spec.mlflow or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(storage)


class Tracker:
    """Writes `records` to the MLflow server at `uri`; `provenance` becomes tags of every run."""

    def __init__(self, uri: str, records: Records, provenance: Provenance) -> None:
        self.records = records
        self.mirror = Mirror(uri, records.spec.name, records.run, provenance)
        self._done: dict[str, tuple[str, int, bool]] = {}  # trial -> the mark of the record that was written
        self._aside: set[str] = set()  # trials whose runs say that they do not count

    def sync(self, final: bool = False, only: Collection[str] | None = None) -> None:
        """Log every ended trial that MLflow does not have as it is, or of these alone; `final` ends the parent too.
        Raises what the server raises."""
        records = self.records.records
        # others are compared with a reference
        every = only is None or any(records[trial].trial.method == "direct" for trial in only)
        try:
            self.mirror.connect()
            for trial in list(records if every or only is None else only):
                record = self.records.seen(records[trial])
                mark = self.records.mark(record)
                if record.status not in ("UNFINISHED", OUTDATED) and self._done.get(trial) != mark:
                    self._log_trial(record)
                    self._done[trial] = mark
            for trial, status in self.records.set_aside().items() if every else ():
                if trial in self.mirror.children and trial not in self._aside:
                    self.mirror.set_tags(self.mirror.children[trial], {"status": status})
                    self._aside.add(trial)
            if final:
                statuses = [record.status for record in records.values()]
                ended = "KILLED" if "UNFINISHED" in statuses else "FAILED" if "FAILED" in statuses else "FINISHED"
                self.mirror.end(ended, statuses.count("FAILED"), self._note())
        except Exception:
            self.mirror.forget()
            self._done.clear()
            raise

    def _note(self) -> str:
        """The answer, as the parent's description."""
        try:
            return as_markdown(answer(read_results(self.records.run)))
        except ValueError:  # a damaged file of the RUN is told elsewhere
            return ""

    def _name(self, trial: Trial) -> str:
        """What a person reads: "fwd_prompt task_energy=0.95 order=2 seed=1"."""
        spec = self.records.spec
        short = short_axis_names(name for name in spec.axes if name != "method")
        settings = {short[name]: value for name, value in trial.settings.items() if name in short and value is not None}
        parts = [trial.method, *(f"{name}={format_value(value)}" for name, value in settings.items())]
        if len(spec.orders) > 1 and trial.experiment.order in spec.orders:
            parts.append(f"order={1 + spec.orders.index(trial.experiment.order)}")
        return " ".join([*parts, f"seed={trial.experiment.seed}"])

    def _content(self, record: TrialRecord) -> Content:
        trial = record.trial
        experiment = trial.experiment.model_dump(mode="json")
        tags = {
            "mlflow.parentRunId": self.mirror.parent,
            "mcit.kind": "trial",
            "mcit.trial": trial.id,
            "mlflow.runName": self._name(trial),
            "method": trial.method,
            "order": trial.order,
            "seed": str(trial.experiment.seed),
            "experiment_digest": digest(experiment),
            "status": record.status,
            **({"error": record.error[:4900]} if record.error else {}),
            **self.mirror.tags(),
        }
        params = {
            mlflow_name(name): value if isinstance(value, str) else json.dumps(value)
            for name, value in flatten(experiment).items()
        }
        # MLflow has no word for a trial that was stopped as planned; the tag `status` says it
        status = "FINISHED" if record.status in ("FINISHED", "STOPPED") else "FAILED"
        return Content(sorted(self._points(record), key=lambda point: point[:2]), params, tags, status)

    def _log_trial(self, record: TrialRecord) -> None:
        self.mirror.log(record.trial.id, self._content(record), partial(write_artefacts, record=record))

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
