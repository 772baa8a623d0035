"""What a sweep has measured so far, as the Parquet files of a RUN: accuracy, stages, steps and trials.

They are rewritten whole, by rename, now and then and at the end; a RUN is readable at any moment. What ended since
the last time, and everything should one of them be damaged, comes from `journal`, a line for each ended trial.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from pydantic import TypeAdapter

from mcit_core.config import ALONE, UNTRAINED
from mcit_core.methods import reference_experiment
from mcit_core.metrics import CATALOGUE, FORMULAS, METRICS, summarise, summarise_protocol
from mcit_core.stages.results import UNTOUCHED, Column, Matrix, StageResult, matrix, untouched
from orchestration.keep.journal import Journal, read_journal
from orchestration.keep.tables import (
    ACCURACY_SCHEMA,
    PARTIAL,
    STAGES_SCHEMA,
    STEPS_SCHEMA,
    Row,
    read_rows,
    stage_results,
    text_in,
    trials_schema,
    write_table,
)
from orchestration.plan.spec import SweepSpec
from orchestration.plan.trials import Trial, tuner_settings

#: between two writings of the Parquet files: seconds, and multiples of what the last one took
PAUSE_SECONDS, PAUSE_SHARE = 5.0, 20.0
JOURNAL = "journal"


@dataclass(frozen=True)
class StoredTrial:
    """What a RUN says of a trial."""

    trial: str
    status: str
    error: str | None
    stages: list[StageResult]


_STORED = TypeAdapter(StoredTrial)


@dataclass
class TrialRecord:
    """A trial's results as they come in; the untouched model's are the first of `stages`."""

    trial: Trial
    status: str = "UNFINISHED"
    error: str | None = None
    stages: list[StageResult] = field(default_factory=list)

    def matrix(self, split: str, column: Column = "accuracy") -> Matrix:
        """[stages so far][tasks]; None where a cell was not measured."""
        return matrix(self.stages, self.trial.experiment.order, split, column)

    def untouched(self, split: str, column: Column = "accuracy") -> list[float | None] | None:
        return untouched(self.stages, self.trial.experiment.order, split, column)

    @property
    def trained(self) -> list[StageResult]:
        """The stages without the untouched model."""
        return [stage for stage in self.stages if stage.stage != UNTOUCHED]

    @property
    def seconds(self) -> float:
        """Of training and evaluation, as they were measured where they ran (also for what came from the store)."""
        return sum(
            stage.metrics.get(name, 0.0) for stage in self.stages for name in ("seconds/train", "seconds/evaluate")
        )


def _last_metrics(record: TrialRecord) -> dict[str, float]:
    """What the last stage measured. Where tasks are learned each by itself no stage stands for all of them: what is
    kept of the pre-trained skills is then the mean."""
    last = record.stages[-1].metrics if record.stages else {}
    if record.trial.experiment.protocol in ALONE:
        kept = [stage.metrics.get("pretrained_retention") for stage in record.trained]
        known = [value for value in kept if value is not None]
        if known and len(known) == len(kept):
            return {**last, "pretrained_retention": sum(known) / len(known)}
    return last


class Records:
    """All trials of a sweep and the RUN folder they are written to."""

    def __init__(self, run: Path, spec: SweepSpec, trials: list[Trial]) -> None:
        self.run, self.spec = run, spec
        self.records = {trial.id: TrialRecord(trial) for trial in trials}
        self._journal = Journal(run / JOURNAL)
        self._write_after = 0.0  # on the monotonic clock
        self._by_experiment = {record.trial.experiment.model_dump_json(): record for record in self.records.values()}
        self._direct: dict[str, TrialRecord | None] = {}  # trial -> the reference that trains its tasks alone

    def _direct_record(self, record: TrialRecord) -> TrialRecord | None:
        name = record.trial.id
        if name not in self._direct:
            wanted = reference_experiment(record.trial.experiment, "direct", self.spec.tasks)
            self._direct[name] = self._by_experiment.get(wanted.model_dump_json())
        return self._direct[name]

    def direct_of(self, record: TrialRecord, split: str, column: Column = "accuracy") -> list[float | None] | None:
        """Accuracy of each task trained alone, in the order of `record`; None where no such reference has finished."""
        other = self._direct_record(record)
        if other is None or other.status != "FINISHED":
            return None
        matrix = other.matrix(split, column)
        alone = {task: matrix[i][i] for i, task in enumerate(other.trial.experiment.order)}
        return [alone[task] for task in record.trial.experiment.order]

    def mark(self, record: TrialRecord) -> tuple[str, int, bool]:
        """Changes whenever what is known of a trial does, the reference that it is compared with included."""
        other = self._direct_record(record)
        return record.status, len(record.stages), other is not None and other.status == "FINISHED"

    def metrics(self, record: TrialRecord, split: str = "test") -> dict[str, float | None]:
        """The final metrics of a trial, each None where undefined. What trains no sequence (direct, multitask,
        zero_shot) has average_accuracy alone, the mean of each task's accuracy; direct's is what it learned as well."""
        if record.status != "FINISHED":
            return dict.fromkeys(METRICS)
        untouched, matrix = record.untouched(split), record.matrix(split)
        protocol = record.trial.experiment.protocol
        return summarise_protocol(protocol, matrix, untouched, self.direct_of(record, split))

    def metrics_at(self, record: TrialRecord, stage: int) -> dict[str, float | None]:
        """The test metrics as they stood after `stage`: those of the first stages and tasks alone."""
        t = stage + 1
        matrix = [row[:t] for row in record.matrix("test")[:t]]
        untouched, direct = record.untouched("test"), self.direct_of(record, "test")
        return summarise(matrix, untouched[:t] if untouched else None, direct[:t] if direct else None)

    def trial_row(self, record: TrialRecord) -> Row:
        trial = record.trial
        last = _last_metrics(record)
        finished = record.status == "FINISHED"
        trains = trial.experiment.protocol not in UNTRAINED
        row: Row = {
            "trial": trial.id,
            "method": trial.method,
            "tuner": trial.experiment.tuner if trains else None,
            "tuner_settings": tuner_settings(trial.experiment, self.spec.axes) if trains else None,
            "seed": trial.experiment.seed,
            "order": trial.order,
            "status": record.status,
            "error": record.error,
            "seconds": record.seconds,
        }
        row |= {path: trial.settings.get(path) for path in self.spec.axes if path not in row}
        row |= self.metrics(record)
        row |= {f"validation/{name}": value for name, value in self.metrics(record, "validation").items()}
        row |= self._content_metrics(record)
        row |= {
            name: last.get(name) if finished else None for name, metric in CATALOGUE.items() if metric.formula is None
        }
        row |= {f"{PARTIAL}{name}": value for name, value in self._so_far(record).items()}
        row["stages_trained"] = sum(not stage.reused for stage in record.trained)
        row["stages_reused"] = sum(stage.reused for stage in record.trained)
        return row

    def _so_far(self, record: TrialRecord) -> dict[str, float | None]:
        """Of a sequence that has no end yet, the metrics as they stand after the last stage that it has."""
        if record.status == "FINISHED" or record.trial.experiment.protocol != "sequence" or not record.trained:
            return dict.fromkeys(METRICS)
        return self.metrics_at(record, record.trained[-1].stage)

    def _content_metrics(self, record: TrialRecord) -> dict[str, float | None]:
        """The metrics over content accuracy, each None where undefined."""
        if record.status != "FINISHED" or record.trial.experiment.protocol != "sequence":
            return dict.fromkeys(FORMULAS["content_accuracy"])
        column: Column = "content_accuracy"
        untouched, direct = record.untouched("test", column), self.direct_of(record, "test", column)
        return summarise(record.matrix("test", column), untouched, direct, column)

    def ended(self, record: TrialRecord) -> None:
        """Write down that a trial has ended: in the journal at once, in the Parquet files within some seconds of the
        next trial's end, so that the writing of a whole sweep stays linear in its trials."""
        self._journal.append(
            {
                "trial": record.trial.id,
                "status": record.status,
                "error": record.error,
                "stages": [stage.to_json() for stage in record.stages],
            }
        )
        if time.monotonic() >= self._write_after:
            self.write()

    def read(self) -> list[str]:
        """Take over what the RUN says. Returns what was wrong with its Parquet files, in words; the journal then
        stands in for them. Raises FileNotFoundError where neither says anything."""
        problems = []
        found: dict[str, StoredTrial] = {}
        try:
            found = self._read_tables()
        except FileNotFoundError as error:
            problems.append(f"{error.filename or self.run} is missing")
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            problems.append(f"a Parquet file of {self.run} is damaged ({' '.join(str(error).split())[:200]})")
        entries = [_STORED.validate_python(line) for line in read_journal(self.run / JOURNAL)]
        found |= {entry.trial: entry for entry in entries}
        if not found:
            raise FileNotFoundError(
                f"{self.run} has no results that can be read ({'; '.join(problems) or 'no trial'}); "
                "run its sweep again, finished stages are kept"
            )
        for name, entry in found.items():
            if name in self.records:  # a trial may have left the sweep since
                record = self.records[name]
                record.status, record.error, record.stages = entry.status, entry.error, entry.stages
        return problems

    def _read_tables(self) -> dict[str, StoredTrial]:
        """trial -> what the Parquet files say of it."""
        trials, steps = read_rows(self.run / "trials.parquet"), self.run / "steps.parquet"
        found = stage_results(
            read_rows(self.run / "accuracy.parquet"),
            read_rows(self.run / "stages.parquet"),
            read_rows(steps) if steps.exists() else [],  # a RUN of an earlier version has none
        )
        if not all(stage.metrics and stage.accuracy for stages in found.values() for stage in stages):
            raise ValueError("a stage is not in all of them")  # a crash came between the writing of two files
        entries = {}
        for row in trials:
            name = text_in(row, "trial")
            entries[name] = StoredTrial(
                name, text_in(row, "status"), text_in(row, "error") or None, found.pop(name, [])
            )
        if found:
            raise ValueError(f"trials.parquet lacks {next(iter(found))}")
        return entries

    def write(self) -> None:
        """Write accuracy.parquet, stages.parquet, steps.parquet and trials.parquet."""
        begun = time.monotonic()
        accuracy: list[Row] = []
        stages: list[Row] = []
        steps: list[tuple[str, int, int, str, float | None]] = []
        for record in self.records.values():
            trial = record.trial
            for stage in record.stages:
                place: Row = {"trial": trial.id, "stage": stage.stage}
                about: Row = {"method": trial.method, "seed": trial.experiment.seed, "order": trial.order}
                accuracy += [{**place, **about, "stage_task": stage.task, **vars(cell)} for cell in stage.accuracy]
                stages += [
                    {**place, "task": stage.task, "name": name, "value": value} for name, value in stage.metrics.items()
                ]
                for name, values in stage.traces.items():
                    steps += [(trial.id, stage.stage, step, name, value) for step, value in enumerate(values)]
        columns = list(zip(*steps, strict=True)) if steps else [()] * len(STEPS_SCHEMA)
        write_table(self.run / "steps.parquet", pa.table(list(map(list, columns)), STEPS_SCHEMA))
        write_table(self.run / "accuracy.parquet", pa.Table.from_pylist(accuracy, ACCURACY_SCHEMA))
        write_table(self.run / "stages.parquet", pa.Table.from_pylist(stages, STAGES_SCHEMA))
        rows = [self.trial_row(record) for record in self.records.values()]
        write_table(self.run / "trials.parquet", pa.Table.from_pylist(rows, trials_schema(rows, self.spec)))
        done = time.monotonic()
        self._write_after = done + max(PAUSE_SECONDS, PAUSE_SHARE * (done - begun))
