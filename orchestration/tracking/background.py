"""MLflow kept up to date beside a running sweep, which never waits for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from orchestration.tracking.mirror import unreachable
from orchestration.tracking.tracker import Tracker


class BackgroundTracker:
    """Runs `sync` on a thread of its own, so that a slow or dead server delays nothing; it is complained of once."""

    def __init__(self, tracker: Tracker, complain: Callable[[str], None]) -> None:
        self.tracker, self.complain = tracker, complain
        self.failed = False
        self._requests: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # a trial, or None for all
        self._closing = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="mlflow")
        self._thread.start()

    def _work(self) -> None:
        told = final = False
        while not final:
            requests = {self._requests.get()}
            while not self._requests.empty():
                requests.add(self._requests.get())
            final = self._closing
            # nobody knows what an attempt that failed has left
            every = final or None in requests or self.failed
            try:
                self.tracker.sync(final, None if every else sorted(trial for trial in requests if trial))
                self.failed = False
            except Exception as error:  # whatever a tracking server does must not reach the sweep
                self.failed = True
                if not told:
                    self.complain(unreachable(self.tracker.mirror.uri, error))
                told = True

    def request(self, trial: str | None = None) -> None:
        """Bring MLflow up to date with a trial that has ended, or with all."""
        self._requests.put(trial)

    def finish(self, seconds: float = 60) -> bool:
        """The last sync; a dead server ends it at once. False where it failed or did not end in time; the RUN's
        Parquet then has everything."""
        self._closing = True
        self._requests.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive() and not self.failed
