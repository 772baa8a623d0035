"""What a sweep has measured so far, as the Parquet files of a RUN: accuracy, stages, steps and trials.

They are rewritten whole, by rename, now and then and at the end; a RUN is readable at any moment. What ended since
the last time, and everything should one of them be damaged, comes from `journal`, a line for each ended trial.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from mcit_core.config import UNTRAINED
from mcit_core.methods import reference_experiment
from mcit_core.metrics import CATALOGUE, FORMULAS, METRICS, summarise, summarise_protocol
from mcit_core.stages.digest import digest
from mcit_core.stages.results import Column
from orchestration.keep.files import writing
from orchestration.keep.journal import Journal
from orchestration.keep.stored import JOURNAL, StoredTrial, read_run
from orchestration.keep.tables import (
    NOT_IN_SWEEP,
    OUTDATED,
    PARTIAL,
    Row,
    stage_tables,
    trials_table,
    write_tables,
)
from orchestration.keep.trial_record import TrialRecord, last_metrics, setting_state
from orchestration.plan.spec import SweepSpec
from orchestration.plan.trials import Trial, tuner_settings

#: between two writings of the Parquet files: seconds, and multiples of what the last one took
PAUSE_SECONDS, PAUSE_SHARE = 5.0, 60.0
#: so many trials are made into tables at a time: of ten thousand at once they would be gigabytes
PART = 200
#: statuses of trials that have all their metrics
WHOLE = ("FINISHED", OUTDATED)


#: a row of trials.parquet and the trial whose it is
Shown = tuple[Row, TrialRecord | StoredTrial]


class Records:
    """All trials of a sweep and the RUN folder they are written to."""

    def __init__(self, run: Path, spec: SweepSpec, trials: list[Trial]) -> None:
        self.run, self.spec = run, spec
        self.records = {trial.id: TrialRecord(trial) for trial in trials}
        #: finished trials of the RUN that the sweep file no longer has
        self.left: dict[str, StoredTrial] = {}
        self._journal = Journal(run / JOURNAL)
        self._unwritten: list[StoredTrial] = []  # what has ended and is not in the journal yet
        self._write_after = 0.0  # on the monotonic clock
        self._by_experiment = {record.trial.experiment.model_dump_json(): record for record in self.records.values()}
        self._direct: dict[str, TrialRecord | None] = {}  # trial -> the reference that trains its tasks alone
        self._rows: dict[str, tuple[tuple[object, ...], Row]] = {}  # of trials that have ended, and what of it follows
        self._of_setting: dict[int, list[str]] = {}
        self._sort_in(self.records.values())
        self._key_of: Callable[[Trial], str | None] = lambda trial: None
        self._again = False

    def begin(self, key_of: Callable[[Trial], str | None], again: bool = False) -> list[str]:
        """Take over what the RUN says, before anything is run; `key_of`: what the numbers of a trial follow from today,
        None where that cannot be told here. A finished trial of today's key is finished, unless all are to be gone
        through `again`; whatever else the RUN says of a trial stands until there is something newer. Returns what there
        is to say of it, in words. Raises StorageError."""
        found, problems = read_run(self.run)
        said = [f"{problem}; the journal stands in" for problem in problems] if found else []
        self._key_of, self._again = key_of, again
        for name, record in self.records.items():
            self._take_over(record, found.get(name))
        self.left = {name: stored for name, stored in found.items() if name not in self.records and stored.finished}
        kept = [*(found[name] for name in self.records if name in found), *self.left.values()]
        if kept:
            aside = self.set_aside()
            known = {stored.trial: aside.get(stored.trial, "FINISHED") for stored in kept if stored.finished}
            entries = [replace(stored, status=known.get(stored.trial, stored.status)) for stored in kept]
            with writing(self._journal.path):
                self._journal.begin(entry.to_json() for entry in entries)
        done = sum(record.status == "FINISHED" for record in self.records.values())
        outdated = sum(self._is_outdated(record) for record in self.records.values())
        said += [f"{done} of {len(self.records)} trials have finished before"] if done else []
        said += (
            [f"{outdated} finished by other code, data or versions: kept until they finish anew"] if outdated else []
        )
        said += [f"{len(self.left)} that the sweep file no longer has are kept: {NOT_IN_SWEEP}"] if self.left else []
        return said

    def _take_over(self, record: TrialRecord, stored: StoredTrial | None) -> None:
        record.earlier = stored
        if stored is None or not stored.finished or stored.key is None:
            return
        record.key = self._key_of(record.trial)
        if stored.key == record.key and not self._again:
            record.status, record.stages = "FINISHED", [replace(stage, reused=True) for stage in stored.stages]
            record.times = stored.times
            # it shows nothing of the earlier one any more
            record.earlier = replace(stored, stages=[], row={})
            record.pack()

    def ended_before(self, record: TrialRecord) -> StoredTrial | None:
        """What the RUN says of a trial that has finished or was stopped early; None of another, and where its numbers
        follow from something else today, or an earlier version did not say from what."""
        stored = record.earlier
        if stored is None or stored.status not in ("FINISHED", "STOPPED"):
            return None
        # that of a finished trial was found out as it was looked at
        if stored.stages and (stored.key is None or stored.key != (record.key or self._key_of(record.trial))):
            return None
        return replace(stored, stages=[replace(stage, reused=True) for stage in stored.stages])

    def add(self, trials: Iterable[Trial]) -> list[TrialRecord]:
        """Trials that the sweep has come to have since it began; one that the RUN has had before is taken over. Returns
        the new ones. One that was a reference may turn out to be a setting's own."""
        trials = list(trials)
        for trial in trials:
            known = self.records.get(trial.id)
            if known is not None and known.trial.setting is None and trial.setting is not None:
                known.trial = trial
                self._sort_in([known])
        new = {trial.id: TrialRecord(trial) for trial in trials if trial.id not in self.records}
        for name, record in new.items():
            self._take_over(record, self.left.pop(name, None))
        self._by_experiment |= {record.trial.experiment.model_dump_json(): record for record in new.values()}
        self._sort_in(new.values())
        # in place of the others: MLflow's thread may be going through them
        self.records = {**self.records, **new}
        self._direct = {name: found for name, found in self._direct.items() if found is not None}
        return list(new.values())

    @staticmethod
    def _is_outdated(record: TrialRecord) -> bool:
        stored = record.earlier
        if stored is None or not stored.finished:
            return False
        # an earlier version told no key; where today's cannot be told, nothing says that the result is not of today
        return stored.key is None or (record.key is not None and record.key != stored.key)

    def set_aside(self) -> dict[str, str]:
        """Finished trials that do not count, with their status."""
        found = {name: OUTDATED for name, record in self.records.items() if self.seen(record).status == OUTDATED}
        return found | dict.fromkeys(self.left, NOT_IN_SWEEP)

    def seen(self, record: TrialRecord) -> TrialRecord:
        """What the RUN shows of a trial: an earlier result until there is a newer one, which for one that has finished
        is a finished one."""
        stored = record.earlier
        newer = record.status != "UNFINISHED" or bool(record.stages)
        if stored is None or record.status == "FINISHED" or (newer and not stored.finished):
            return record
        if not self._is_outdated(record):
            status = "FINISHED" if stored.finished else stored.status
            return TrialRecord(record.trial, status, stored.error, stored.stages, stored.key, times=stored.times)
        error = "finished by other code, data or versions; it stands until the trial has finished anew"
        if record.error:
            error += f", which ended with: {record.error}"
        return TrialRecord(record.trial, OUTDATED, error, stored.stages, stored.key, times=stored.times)

    def _direct_record(self, record: TrialRecord) -> TrialRecord | None:
        """The reference that trains its tasks alone, as it is seen; None where there is none that has finished."""
        name, known = record.trial.id, self._direct
        if name not in known:
            wanted = reference_experiment(record.trial.experiment, "direct", self.spec.tasks)
            known[name] = self._by_experiment.get(wanted.model_dump_json())
        found = known[name]
        seen = None if found is None else self.seen(found)
        return seen if seen is not None and seen.status == "FINISHED" else None

    def direct_of(self, record: TrialRecord, split: str, column: Column = "accuracy") -> list[float | None] | None:
        """Accuracy of each task trained alone, in the order of `record`; None where no such reference has finished."""
        other = self._direct_record(record)
        if other is None:
            return None
        matrix = other.matrix(split, column)
        alone = {task: matrix[i][i] for i, task in enumerate(other.trial.experiment.order)}
        return [alone[task] for task in record.trial.experiment.order]

    def mark(self, record: TrialRecord) -> tuple[str, int, bool]:
        """Changes whenever what is known of a trial does, the reference that it is compared with included."""
        return record.status, record.count, self._direct_record(record) is not None

    def metrics(self, record: TrialRecord, split: str = "test") -> dict[str, float | None]:
        """The final metrics of a trial, each None where undefined. What trains no sequence (direct, multitask,
        zero_shot) has average_accuracy alone, the mean of each task's accuracy; direct's is what it learned as well."""
        if record.status not in WHOLE:
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
        """The row of trials.parquet. Its counts of stages are of this command, whatever it shows."""
        if record.status == "UNFINISHED":
            return self._row(record) | self._state(record)
        told = (*self.mark(record), record.key, record.error, record.trial.setting)
        known = self._rows.get(record.trial.id)
        if known is None or known[0] != told:
            known = self._rows[record.trial.id] = (told, self._row(record))
        return known[1] | self._state(record)

    def _row(self, record: TrialRecord) -> Row:
        now, record = record, self.seen(record)
        counts: Row = {
            "stages_trained": sum(not stage.reused for stage in now.trained),
            "stages_reused": sum(stage.reused for stage in now.trained),
        }
        if record.status == OUTDATED and now.earlier is not None and "seconds" in now.earlier.row:
            about: Row = {"status": OUTDATED, "error": record.error, "key": record.key}
            return {**now.earlier.row, **self._about(record.trial), **about, **counts}
        last = last_metrics(record)
        row = self._about(record.trial) | {
            "status": record.status,
            "error": record.error,
            "seconds": record.seconds,
            "key": record.key,
        }
        row |= self.metrics(record)
        row |= {f"validation/{name}": value for name, value in self.metrics(record, "validation").items()}
        row |= self._content_metrics(record)
        row |= {
            name: last.get(name) if record.status in WHOLE else None
            for name, metric in CATALOGUE.items()
            if metric.formula is None
        }
        row |= {f"{PARTIAL}{name}": value for name, value in self._so_far(record).items()}
        return row | counts

    def _sort_in(self, records: Iterable[TrialRecord]) -> None:
        for record in records:
            if record.trial.setting is not None:
                self._of_setting.setdefault(record.trial.setting, []).append(record.trial.id)

    def of_setting(self, number: int) -> list[TrialRecord]:
        """The trials of a setting of a search, without its references."""
        return [self.records[name] for name in self._of_setting.get(number, ())]

    def _state(self, record: TrialRecord) -> Row:
        """How the setting of a trial stands, in a search: complete, pruned or failed; null while it runs."""
        if not self.spec.searched:
            return {}
        number = record.trial.setting
        seen = [] if number is None else [self.seen(one) for one in self.of_setting(number)]
        return {"state": setting_state(seen) if seen else None}

    def _about(self, trial: Trial) -> Row:
        """The columns that say which trial it is."""
        trains = trial.experiment.protocol not in UNTRAINED
        row: Row = {
            "trial": trial.id,
            "method": trial.method,
            "tuner": trial.experiment.tuner if trains else None,
            "tuner_settings": tuner_settings(trial.experiment, self.spec.axes) if trains else None,
            "seed": trial.experiment.seed,
            "order": trial.order,
        }
        row |= {path: trial.settings.get(path) for path in self.spec.axes if path not in row}
        return row | ({"setting": trial.setting, "batch": trial.batch} if self.spec.searched else {})

    def _so_far(self, record: TrialRecord) -> dict[str, float | None]:
        """Of a sequence that has no end yet, the metrics as they stand after the last stage that it has."""
        if record.status in WHOLE or record.trial.experiment.protocol != "sequence" or not record.trained:
            return dict.fromkeys(METRICS)
        return self.metrics_at(record, record.trained[-1].stage)

    def _content_metrics(self, record: TrialRecord) -> dict[str, float | None]:
        """The metrics over content accuracy, each None where undefined."""
        if record.status not in WHOLE or record.trial.experiment.protocol != "sequence":
            return dict.fromkeys(FORMULAS["content_accuracy"])
        column: Column = "content_accuracy"
        untouched, direct = record.untouched("test", column), self.direct_of(record, "test", column)
        return summarise(record.matrix("test", column), untouched, direct, column)

    def ended(self, record: TrialRecord) -> None:
        """Write down that a trial has ended: in the journal at once, in the Parquet files within some seconds of the
        next trial's end, so that the writing of a whole sweep stays linear in its trials. Raises StorageError; what
        could not be written is tried again the next time."""
        if record.status == "FINISHED" or record.earlier is None or not record.earlier.finished:
            self._unwritten.append(self._stored(record))
        self._note()
        record.pack()
        if time.monotonic() >= self._write_after:
            self.write()

    def _note(self) -> None:
        while self._unwritten:
            with writing(self._journal.path):
                self._journal.append(self._unwritten[0].to_json())
            del self._unwritten[0]

    def _stored(self, record: TrialRecord) -> StoredTrial:
        about = self._about(record.trial)
        return StoredTrial(record.trial.id, record.status, record.error, record.stages, record.key, about, record.times)

    def read(self) -> list[str]:
        """Take over what the RUN says as it stands, whatever code it is of. Returns what was wrong with its Parquet
        files, in words; the journal then stands in for them. Raises FileNotFoundError where neither says anything."""
        found, problems = read_run(self.run)
        if not found:
            raise FileNotFoundError(
                f"{self.run} has no results that can be read ({'; '.join(problems) or 'no trial'}); "
                "run its sweep again, finished stages are kept"
            )
        for name, entry in found.items():
            if name in self.records:
                record = self.records[name]
                record.status, record.error = entry.status, entry.error
                record.stages, record.key, record.times = entry.stages, entry.key, entry.times
            elif entry.finished:
                self.left[name] = entry
        return problems

    def write(self) -> None:
        """Write accuracy.parquet, stages.parquet, steps.parquet and trials.parquet, which belong together. Raises
        StorageError."""
        begun = time.monotonic()
        self._note()
        shown: list[Shown] = [(self.trial_row(record), self.seen(record)) for record in self.records.values()]
        for stored in self.left.values():
            counts: Row = {"stages_trained": 0, "stages_reused": 0}
            row = {**stored.row, "trial": stored.trial, "status": NOT_IN_SWEEP, "key": stored.key, **counts}
            shown.append((row, stored))
        rows = [row for row, _ in shown]
        parts = (stage_tables((row, one.stages) for row, one in part) for part in _parts(shown))
        told = ("trial", "status", "key", "seconds", "stages_trained", "stages_reused")
        mark = digest([[row.get(name) for name in told] for row in rows])
        first = {"trials": trials_table(rows, self.spec.values()), **stage_tables([])}
        write_tables(self.run, chain([first], parts), mark)
        done = time.monotonic()
        self._write_after = done + max(PAUSE_SECONDS, PAUSE_SHARE * (done - begun))


def _parts(shown: list[Shown]) -> Iterator[list[Shown]]:
    for begin in range(0, len(shown), PART):
        yield shown[begin : begin + PART]
