"""Who is told what comes back of the trials."""

from __future__ import annotations

from typing import Protocol

from mcit_core.stages.results import StageResult
from orchestration.plan.trials import Trial


class Listener(Protocol):
    def added(self, trials: list[Trial]) -> None:
        """A search has proposed more trials."""

    def started(self, trial: str) -> None: ...
    def stages(self, trial: str, results: list[StageResult], key: str) -> None: ...
    def paused(self, trial: str) -> None: ...
    def finished(self, trial: str) -> None: ...
    def stopped(self, trial: str) -> None: ...

    def failed(self, trial: str, error: str) -> bool:
        """Whether the sweep is to be given up."""
