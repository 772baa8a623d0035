"""MLflow kept up to date beside a running sweep, which never waits for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from orchestration.tracking.tracker import Tracker, unreachable


class BackgroundTracker:
    """Runs `sync` on a thread of its own, so that a slow or dead server delays nothing; it is complained of once."""

    def __init__(self, tracker: Tracker, complain: Callable[[str], None]) -> None:
        self.tracker, self.complain = tracker, complain
        self.failed = False
        self._requests: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True, name="mlflow")
        self._thread.start()

    def _work(self) -> None:
        told = False
        while True:
            final = self._requests.get()
            while not self._requests.empty():
                final = self._requests.get() or final
            try:
                self.tracker.sync(final)
                self.failed = False
            except Exception as error:  # whatever a tracking server does must not reach the sweep
                self.failed = True
                if not told:
                    self.complain(unreachable(self.tracker.uri, error))
                told = True
            if final:
                return

    def request(self) -> None:
        self._requests.put(False)

    def finish(self, seconds: float = 60) -> bool:
        """The last sync; a dead server ends it at once. False where it failed or did not end in time; the RUN's
        Parquet then has everything."""
        self._requests.put(True)
        self._thread.join(seconds)
        return not self._thread.is_alive() and not self.failed
