"""Live progress of a sweep: trials done, running and failed, stages done of all, time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable

from rich.console import Console
from rich.live import Live
from rich.text import Text

from mcit_core.stages.results import UNTOUCHED, StageResult
from orchestration.keep.files import StorageError
from orchestration.keep.records import Records
from orchestration.plan.stage_tree import stage_tree

#: seconds between two lines where there is no terminal
LINE_SECONDS = 60.0


class Progress:
    """Takes what comes back from the workers into `records`; `on_trial_end` is called after each trial's end."""

    def __init__(self, console: Console, records: Records, on_trial_end: Callable[[], None]) -> None:
        self.console, self.records, self.on_trial_end = console, records, on_trial_end
        #: by the plan's keys, so that a stage that several trials share is work to be done once
        self.tree = stage_tree([record.trial for record in records.records.values()])
        self.total = sum(map(len, self.tree.chains.values()))
        self.done = self.reused = sum(len(record.trained) for record in records.records.values())
        self._left = dict(self.tree.steps)
        for record in records.records.values():
            self._take_off(record.trial.id, record.trained)
        #: how many trials that have not ended need a stage
        self._needed = Counter(
            key
            for name, record in records.records.items()
            if record.status == "UNFINISHED"
            for key in self.tree.chains[name]
        )
        self._trained = 0.0  # steps, in this command
        self._begun: float | None = None  # when the first worker had something to do
        self.running: set[str] = set()
        self._told, self._line_after = "", time.monotonic() + LINE_SECONDS
        self._live = Live(self._line(), console=console, refresh_per_second=2, transient=True)

    def _take_off(self, trial: str, results: Iterable[StageResult]) -> None:
        for result in results:
            if result.stage != UNTOUCHED:
                self._left.pop(self.tree.chains[trial][result.stage], None)

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def _line(self) -> Text:
        statuses = Counter(record.status for record in self.records.records.values())
        failed = statuses["FAILED"]
        stopped = f", {statuses['STOPPED']} stopped" if statuses["STOPPED"] else ""
        stages = f"stages {self.done} of {self.total} ({self.reused} from the store)"
        return Text(
            f"trials {statuses['FINISHED']} done, {len(self.running)} running, {failed} failed{stopped} of "
            f"{statuses.total()} | {stages} | {self._time_left()}",
            style="red" if failed else "",
        )

    def _time_left(self) -> str:
        """From the steps that are left, each shared one once, at the pace of those that this command has trained."""
        if not self._trained or self._begun is None:
            return "-"
        seconds = (time.monotonic() - self._begun) / self._trained * sum(self._left.values())
        return f"{seconds:.0f} s left" if seconds < 90 else f"{seconds / 60:.0f} min left"

    def started(self, trial: str) -> None:
        self.running.add(trial)
        self._begun = self._begun or time.monotonic()
        self._refresh()

    def stages(self, trial: str, results: list[StageResult], key: str) -> None:
        record = self.records.records[trial]
        record.key = key
        record.stages.extend(results)
        trained = [result for result in results if result.stage != UNTOUCHED]
        self.done += len(trained)
        self.reused += sum(result.reused for result in trained)
        self._trained += sum(self.tree.steps[self.tree.chains[trial][r.stage]] for r in trained if not r.reused)
        self._take_off(trial, trained)
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
        for key in self.tree.chains[trial]:
            self._needed[key] -= 1
            if not self._needed[key]:
                self._left.pop(key, None)
        try:
            self.records.ended(self.records.records[trial])
        except StorageError as error:  # Tune would go on without a word; it is tried again at the next end
            if str(error) != self._told:
                self.console.print(str(error), style="red", markup=False)
            self._told = str(error)
        self.on_trial_end()
        self._line_after = 0.0
        self._refresh()

    def _refresh(self) -> None:
        """A terminal's line anew; elsewhere a line at every trial's end, and once a minute."""
        if self.console.is_terminal:
            self._live.update(self._line())
        elif time.monotonic() >= self._line_after:
            self._line_after = time.monotonic() + LINE_SECONDS
            self.console.print(self._line())
