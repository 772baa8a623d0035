"""Live progress of a sweep: a bar of its stages, trials done, running and failed, time left, and of the trials that run
now the stage, the loss and the accuracy so far. Where there is no terminal, a line now and then."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from statistics import fmean

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mcit_core.stages.results import UNTOUCHED, StageResult
from orchestration.keep.files import StorageError, UnreachableError
from orchestration.keep.records import Records
from orchestration.keep.trial_record import TrialRecord
from orchestration.plan.stage_tree import stage_tree
from orchestration.plan.trials import Trial

#: seconds between two lines where there is no terminal
LINE_SECONDS = 60.0
#: so many of the trials that run now are shown
SHOWN = 8
#: a sweep is given up after so many trials in a row whose stage store did not answer, with no stage trained between
#: them: each has been tried again for minutes
UNANSWERED = 3


class Progress:
    """Takes what comes back from the workers into `records`; `on_news` is called with each trial that begins, has a
    stage more, or ends."""

    def __init__(self, console: Console, records: Records, on_news: Callable[[str], None]) -> None:
        self.console, self.records, self.on_news = console, records, on_news
        #: by the plan's keys, so that a stage that several trials share is work to be done once
        self.tree = stage_tree([])
        # counts that are kept and not made anew: of ten thousand trials each event would look at all
        self._statuses: Counter[str] = Counter()
        self.total = self.done = self.reused = 0
        self._left: dict[str, int] = {}
        self._steps_left = 0
        #: how many trials that have not ended need a stage
        self._needed: Counter[str] = Counter()
        self._count(records.records.values())
        self._trained = 0.0  # steps, in this command
        self._begun: float | None = None  # when the first worker had something to do
        self._unanswered = 0
        #: why the sweep was given up
        self.hopeless = ""
        self.running: dict[str, None] = {}  # in the order in which they began
        self._told, self._line_after = "", time.monotonic() + LINE_SECONDS
        self._live = Live(get_renderable=self._view, console=console, refresh_per_second=2, transient=True)
        self._over = threading.Event()

    def added(self, trials: list[Trial]) -> None:
        """The sweep has come to have more trials."""
        self._count(self.records.add(trials))

    def _count(self, records: Iterable[TrialRecord]) -> None:
        for record in records:
            trial, has = record.trial, record.trained
            for key in self.tree.add(trial):
                self._left[key] = self.tree.steps[key]
                self._steps_left += self.tree.steps[key]
            self._statuses[record.status] += 1
            self.total += len(self.tree.chains[trial.id])
            self.done += len(has)
            self.reused += len(has)
            self._take_off(trial.id, has)
            if record.status == "UNFINISHED":
                self._needed.update(self.tree.chains[trial.id])

    def _take_off(self, trial: str, results: Iterable[StageResult]) -> None:
        for result in results:
            if result.stage != UNTOUCHED:
                self._drop(self.tree.chains[trial][result.stage])

    def _drop(self, key: str) -> None:
        self._steps_left -= self._left.pop(key, 0)

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self._live.start()
        else:
            threading.Thread(target=self._tick, daemon=True, name="progress").start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._live.stop()
        self._refresh()

    def _tick(self) -> None:
        """A line a minute also where no stage ends for longer."""
        while not self._over.wait(LINE_SECONDS / 4):
            self._refresh()

    def _line(self) -> Text:
        statuses = self._statuses
        failed = statuses["FAILED"]
        stopped = f", {statuses['STOPPED']} stopped" if statuses["STOPPED"] else ""
        stages = f"stages {self.done} of {self.total} ({self.reused} from the store)"
        return Text(
            f"trials {statuses['FINISHED']} done, {len(self.running)} running, {failed} failed{stopped} of "
            f"{statuses.total()} | {stages} | {self._time_left()}",
            style="red" if failed else "",
        )

    def _view(self) -> Group:
        """What a terminal shows."""
        bar = Table.grid()
        bar.add_row(ProgressBar(total=max(1, self.total), completed=self.done, width=min(60, self.console.width)))
        now = [*self.running]
        trials = [self._place(trial) for trial in now[:SHOWN]]
        more = [Text(f"and {len(now) - SHOWN} more", style="dim")] if len(now) > SHOWN else []
        return Group(self._line(), bar, *trials, *more)

    def _place(self, trial: str) -> Text:
        """A running trial in a line: the stage that it is in, what it showed after the one before, and which it is."""
        record = self.records.records[trial]
        experiment, stages, has = record.trial.experiment, len(self.tree.chains[trial]), record.trained
        parts = [f"stage {min(len(has) + 1, stages)} of {stages}" if stages else "evaluation"]
        if len(has) < stages == len(experiment.order):
            parts[0] += f" {experiment.order[len(has)]}"
        if has:
            last = has[-1]
            accuracy = [value for value in last.row(experiment.order[: last.stage + 1], "test") if value is not None]
            parts += [f"loss {last.metrics['loss/last']:.3f}"] if "loss/last" in last.metrics else []
            parts += [f"accuracy so far {100 * fmean(accuracy):.1f}"] if accuracy else []
        text = f"  {trial}: {', '.join(parts)} (seed {experiment.seed}, {record.trial.order})"
        return Text(text, no_wrap=True, overflow="ellipsis")

    def _time_left(self) -> str:
        """From the steps that are left, each shared one once, at the pace of those that this command has trained."""
        if not self._trained or self._begun is None:
            return "-"
        seconds = (time.monotonic() - self._begun) / self._trained * self._steps_left
        return f"{seconds:.0f} s left" if seconds < 90 else f"{seconds / 60:.0f} min left"

    def started(self, trial: str) -> None:
        self.running[trial] = None
        times = self.records.records[trial].times
        if times.begun is None:  # a trial that was paused begins again
            times.begun = time.time()
            self.on_news(trial)
        self._begun = self._begun or time.monotonic()
        self._refresh()

    def stages(self, trial: str, results: list[StageResult], key: str) -> None:
        record = self.records.records[trial]
        record.key = key
        # before the stages: MLflow's thread may look in between
        record.times.stages += [time.time()] * len(results)
        record.stages.extend(results)
        trained = [result for result in results if result.stage != UNTOUCHED]
        self.done += len(trained)
        self.reused += sum(result.reused for result in trained)
        if any(not result.reused for result in trained):
            self._unanswered = 0
        self._trained += sum(self.tree.steps[self.tree.chains[trial][r.stage]] for r in trained if not r.reused)
        self._take_off(trial, trained)
        self.on_news(trial)
        self._refresh()

    def paused(self, trial: str) -> None:
        self.running.pop(trial, None)
        self._refresh()

    def finished(self, trial: str) -> None:
        self._end(trial, "FINISHED")

    def stopped(self, trial: str) -> None:
        record = self.records.records[trial]
        stages, has = record.trial.stages, len(record.trained)
        self.total -= stages - has
        rule = "halving" if self.records.spec.halving else "the pruner"
        self._end(trial, "STOPPED", f"stopped by {rule} after {has} of {stages} stages")

    def failed(self, trial: str, error: str) -> bool:
        reason = error.splitlines()[0]
        self.console.print(f"{trial} failed: {reason}", style="red", markup=False)
        self._end(trial, "FAILED", error)
        self._unanswered = self._unanswered + 1 if UnreachableError.__name__ in reason else 0
        if self._unanswered == UNANSWERED:
            self.hopeless = (
                f"given up after {UNANSWERED} trials in a row: {reason}. The same command goes on from what is finished"
            )
        return bool(self.hopeless)

    def _end(self, trial: str, status: str, error: str | None = None) -> None:
        record = self.records.records[trial]
        self._statuses[record.status] -= 1
        self._statuses[status] += 1
        record.times.ended = time.time()
        record.error, record.status = error, status  # in this order: tracking may look in between
        self.running.pop(trial, None)
        for key in self.tree.chains[trial]:
            self._needed[key] -= 1
            if not self._needed[key]:
                self._drop(key)
        try:
            self.records.ended(record)
        except StorageError as error:  # Tune would go on without a word; it is tried again at the next end
            if str(error) != self._told:
                self.console.print(str(error), style="red", markup=False)
            self._told = str(error)
        self.on_news(trial)
        self._line_after = 0.0  # due at the next event, when the worker has another trial

    def _refresh(self) -> None:
        """A terminal's view is made anew by itself; elsewhere a line at every trial's end, and once a minute."""
        if not self.console.is_terminal and time.monotonic() >= self._line_after:
            self._line_after = time.monotonic() + LINE_SECONDS
            self.console.print(self._line())
