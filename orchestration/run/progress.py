"""Live progress of a sweep: trials done, running and failed, stages done of all, time left."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.text import Text

from mcit_core.stages.results import UNTOUCHED, StageResult
from orchestration.keep.files import StorageError
from orchestration.keep.records import Records


class Progress:
    """Takes what comes back from the workers into `records`; `on_trial_end` is called after each trial's end."""

    def __init__(self, console: Console, records: Records, on_trial_end: Callable[[], None]) -> None:
        self.console, self.records, self.on_trial_end = console, records, on_trial_end
        self.total = sum(record.trial.stages for record in records.records.values())
        self.done = self.reused = sum(len(record.trained) for record in records.records.values())
        self.running: set[str] = set()
        self._told = ""
        self.begun = time.monotonic()
        self._live = Live(self._line(), console=console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def _line(self) -> Text:
        statuses = [record.status for record in self.records.records.values()]
        trained = self.done - self.reused
        left = "-"
        if trained:
            left = f"{(time.monotonic() - self.begun) / trained * (self.total - self.done):.0f} s left"
        failed = statuses.count("FAILED")
        stopped = f", {n} stopped" if (n := statuses.count("STOPPED")) else ""
        return Text(
            f"trials {statuses.count('FINISHED')} done, {len(self.running)} running, {failed} failed{stopped} of "
            f"{len(statuses)} | stages {self.done} of {self.total} ({self.reused} from the store) | {left}",
            style="red" if failed else "",
        )

    def started(self, trial: str) -> None:
        self.running.add(trial)
        self._refresh()

    def stages(self, trial: str, results: list[StageResult], key: str) -> None:
        record = self.records.records[trial]
        record.key = key
        record.stages.extend(results)
        trained = [result for result in results if result.stage != UNTOUCHED]
        self.done += len(trained)
        self.reused += sum(result.reused for result in trained)
        self._refresh()

    def paused(self, trial: str) -> None:
        self.running.discard(trial)
        self._refresh()

    def finished(self, trial: str) -> None:
        self.records.records[trial].status = "FINISHED"
        self._end(trial)

    def stopped(self, trial: str) -> None:
        record = self.records.records[trial]
        stages, has = record.trial.stages, len(record.trained)
        record.status, record.error = "STOPPED", f"stopped by halving after {has} of {stages} stages"
        self.total -= stages - has
        self._end(trial)

    def failed(self, trial: str, error: str) -> None:
        record = self.records.records[trial]
        record.status, record.error = "FAILED", error
        self.console.print(f"{trial} failed: {error.splitlines()[0]}", style="red", markup=False)
        self._end(trial)

    def _end(self, trial: str) -> None:
        self.running.discard(trial)
        try:
            self.records.ended(self.records.records[trial])
        except StorageError as error:  # Tune would go on without a word; it is tried again at the next end
            if str(error) != self._told:
                self.console.print(str(error), style="red", markup=False)
            self._told = str(error)
        self.on_trial_end()
        if not self.console.is_terminal:
            self.console.print(self._line())
        self._refresh()

    def _refresh(self) -> None:
        self._live.update(self._line())
