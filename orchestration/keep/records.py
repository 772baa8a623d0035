"""What a sweep has measured so far, as the Parquet files of a RUN: accuracy, stages, steps and trials.

They are rewritten whole, by rename, now and then and at the end; a RUN is readable at any moment. What ended since
the last time, and everything should one of them be damaged, comes from `journal`, a line for each ended trial.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from mcit_core.methods import reference_experiment
from mcit_core.metrics import summarise
from orchestration.keep.journal import Journal, read_journal
from orchestration.keep.tables import (
    ACCURACY_SCHEMA,
    STAGES_SCHEMA,
    STEPS_SCHEMA,
    read_rows,
    trials_schema,
    write_table,
)
from orchestration.plan.spec import SweepSpec
from orchestration.plan.trials import Trial, tuner_settings

Matrix = list[list[float | None]]

#: between two writings of the Parquet files: seconds, and multiples of what the last one took
PAUSE_SECONDS, PAUSE_SHARE = 5.0, 20.0
JOURNAL = "journal"
METRICS = tuple(summarise([[0.0]]))


@dataclass
class TrialRecord:
    """A trial's results as they come in; `stages` are stage results as mappings, the untouched model's first."""

    trial: Trial
    status: str = "UNFINISHED"
    error: str | None = None
    stages: list[dict[str, Any]] = field(default_factory=list)

    def matrix(self, split: str, column: str = "accuracy") -> Matrix:
        """[stages so far][tasks]; None where a cell was not measured."""
        return [self._row(stage, split, column) for stage in self.stages if stage["stage"] >= 0]

    def untouched(self, split: str, column: str = "accuracy") -> list[float | None] | None:
        return next((self._row(stage, split, column) for stage in self.stages if stage["stage"] < 0), None)

    def _row(self, stage: dict[str, Any], split: str, column: str) -> list[float | None]:
        cells = {cell["task"]: cell[column] for cell in stage["accuracy"] if cell["split"] == split}
        return [cells.get(task) for task in self.trial.experiment.order]

    @property
    def seconds(self) -> float:
        """Of training and evaluation, as they were measured where they ran (also for what came from the store)."""
        return sum(
            stage["metrics"].get(name, 0.0) for stage in self.stages for name in ("seconds/train", "seconds/evaluate")
        )


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

    def direct_of(self, record: TrialRecord, split: str) -> list[float | None] | None:
        """Accuracy of each task trained alone, in the order of `record`; None where no such reference has finished."""
        other = self._direct_record(record)
        if other is None or other.status != "FINISHED":
            return None
        matrix = other.matrix(split)
        alone = {task: matrix[i][i] for i, task in enumerate(other.trial.experiment.order)}
        return [alone[task] for task in record.trial.experiment.order]

    def mark(self, record: TrialRecord) -> tuple[str, int, bool]:
        """Changes whenever what is known of a trial does, the reference that it is compared with included."""
        other = self._direct_record(record)
        return record.status, len(record.stages), other is not None and other.status == "FINISHED"

    def metrics(self, record: TrialRecord, split: str = "test") -> dict[str, float | None]:
        """The final metrics of a trial, each None where undefined. What trains no sequence (direct, multitask,
        zero_shot) has average_accuracy alone, the mean of each task's accuracy; direct's is what it learned as well."""
        values: dict[str, float | None] = dict.fromkeys(METRICS)
        untouched, matrix = record.untouched(split), record.matrix(split)
        if record.status != "FINISHED":
            return values
        protocol = record.trial.experiment.protocol
        if protocol != "sequence":
            if protocol == "direct":
                cells: list[float | None] | None = [row[i] for i, row in enumerate(matrix)]
            else:
                cells = matrix[-1] if matrix else untouched
            known = [cell for cell in cells or [] if cell is not None]
            values["average_accuracy"] = sum(known) / len(known) if known and len(known) == len(cells or []) else None
            if protocol == "direct":
                values["learning_accuracy"] = values["average_accuracy"]
            return values
        return {**values, **summarise(matrix, untouched, self.direct_of(record, split))}

    def metrics_at(self, record: TrialRecord, stage: int) -> dict[str, float | None]:
        """The test metrics as they stood after `stage`: those of the first stages and tasks alone."""
        t = stage + 1
        matrix = [row[:t] for row in record.matrix("test")[:t]]
        untouched, direct = record.untouched("test"), self.direct_of(record, "test")
        return summarise(matrix, untouched[:t] if untouched else None, direct[:t] if direct else None)

    def trial_row(self, record: TrialRecord) -> dict[str, Any]:
        trial = record.trial
        last = record.stages[-1]["metrics"] if record.stages else {}
        finished = record.status == "FINISHED"
        sequence = finished and trial.experiment.protocol == "sequence"
        trains = trial.experiment.protocol != "zero_shot"
        row = {
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
        content = summarise(record.matrix("test", "content_accuracy")) if sequence else {}
        for name in ("average_accuracy", "forgetting"):
            row[f"content_{name}"] = content.get(name)
        for name in ("pretrained_retention", "trained_parameters", "memory_bytes"):
            row[name] = last.get(name) if finished else None
        trained = [stage for stage in record.stages if stage["stage"] >= 0]
        row["stages_trained"] = sum(not stage["reused"] for stage in trained)
        row["stages_reused"] = sum(bool(stage["reused"]) for stage in trained)
        return row

    def ended(self, record: TrialRecord) -> None:
        """Write down that a trial has ended: in the journal at once, in the Parquet files within some seconds of the
        next trial's end, so that the writing of a whole sweep stays linear in its trials."""
        self._journal.append(
            {
                "trial": record.trial.id,
                "status": record.status,
                "error": record.error,
                "stages": record.stages,
            }
        )
        if time.monotonic() >= self._write_after:
            self.write()

    def read(self) -> list[str]:
        """Take over what the RUN says. Returns what was wrong with its Parquet files, in words; the journal then
        stands in for them. Raises FileNotFoundError where neither says anything."""
        problems = []
        found: dict[str, dict[str, Any]] = {}
        try:
            found = self._read_tables()
        except FileNotFoundError as error:
            problems.append(f"{error.filename or self.run} is missing")
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            problems.append(f"a Parquet file of {self.run} is damaged ({' '.join(str(error).split())[:200]})")
        found |= {entry["trial"]: entry for entry in read_journal(self.run / JOURNAL)}
        if not found:
            raise FileNotFoundError(
                f"{self.run} has no results that can be read ({'; '.join(problems) or 'no trial'}); "
                "run its sweep again, finished stages are kept"
            )
        for name, entry in found.items():
            if name in self.records:  # a trial may have left the sweep since
                record = self.records[name]
                record.status, record.error, record.stages = entry["status"], entry["error"], entry["stages"]
        return problems

    def _read_tables(self) -> dict[str, dict[str, Any]]:
        """trial -> its status, error and stages, as the Parquet files have them."""
        trials = {
            row["trial"]: {"status": row["status"], "error": row["error"], "stages": []}
            for row in read_rows(self.run / "trials.parquet")
        }
        stages: dict[tuple[str, int], dict[str, Any]] = {}
        for row in read_rows(self.run / "stages.parquet"):
            key = (row["trial"], row["stage"])
            if key not in stages:
                stages[key] = {
                    "stage": row["stage"],
                    "task": row["task"],
                    "accuracy": [],
                    "metrics": {},
                    "traces": {},
                    "reused": False,
                }
                trials[row["trial"]]["stages"].append(stages[key])
            stages[key]["metrics"][row["name"]] = row["value"]
        for row in read_rows(self.run / "accuracy.parquet"):
            cell = {name: row[name] for name in ("task", "split", "accuracy", "content_accuracy", "n")}
            stages[row["trial"], row["stage"]]["accuracy"].append(cell)
        steps = self.run / "steps.parquet"
        for row in read_rows(steps) if steps.exists() else []:  # a RUN of an earlier version has none
            stages[row["trial"], row["stage"]]["traces"].setdefault(row["name"], []).append(row["value"])
        return trials

    def write(self) -> None:
        """Write accuracy.parquet, stages.parquet, steps.parquet and trials.parquet."""
        begun = time.monotonic()
        accuracy, stages = [], []
        steps: list[tuple[str, int, int, str, float | None]] = []
        for record in self.records.values():
            trial = record.trial
            for stage in record.stages:
                for cell in stage["accuracy"]:
                    accuracy.append(
                        {
                            "trial": trial.id,
                            "method": trial.method,
                            "seed": trial.experiment.seed,
                            "order": trial.order,
                            "stage": stage["stage"],
                            "stage_task": stage["task"],
                            **cell,
                        }
                    )
                for name, value in stage["metrics"].items():
                    stages.append(
                        {
                            "trial": trial.id,
                            "stage": stage["stage"],
                            "task": stage["task"],
                            "name": name,
                            "value": value,
                        }
                    )
                for name, values in stage.get("traces", {}).items():
                    steps += [(trial.id, stage["stage"], step, name, value) for step, value in enumerate(values)]
        columns = list(zip(*steps, strict=True)) if steps else [()] * len(STEPS_SCHEMA)
        write_table(self.run / "steps.parquet", pa.table(list(map(list, columns)), STEPS_SCHEMA))
        write_table(self.run / "accuracy.parquet", pa.Table.from_pylist(accuracy, ACCURACY_SCHEMA))
        write_table(self.run / "stages.parquet", pa.Table.from_pylist(stages, STAGES_SCHEMA))
        rows = [self.trial_row(record) for record in self.records.values()]
        write_table(self.run / "trials.parquet", pa.Table.from_pylist(rows, trials_schema(rows, self.spec)))
        done = time.monotonic()
        self._write_after = done + max(PAUSE_SECONDS, PAUSE_SHARE * (done - begun))
