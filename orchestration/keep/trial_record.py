"""What is known of one trial of a sweep, while it runs and afterwards."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Iterable

from mcit_core.config import ALONE
from mcit_core.stages.results import UNTOUCHED, Column, Matrix, StageResult, matrix, untouched
from orchestration.keep.stored import StoredTrial, Times
from orchestration.plan.trials import Trial


class TrialRecord:
    """A trial's results as they come in; the untouched model's are the first of `stages`. `key`: what they follow from,
    None where that is not known; `earlier`: what the RUN said before, which stands until there is something newer;
    `times`: empty until it is begun."""

    def __init__(
        self,
        trial: Trial,
        status: str = "UNFINISHED",
        error: str | None = None,
        stages: list[StageResult] | None = None,
        key: str | None = None,
        earlier: StoredTrial | None = None,
        times: Times | None = None,
    ) -> None:
        self.trial, self.status, self.error, self.key, self.earlier = trial, status, error, key, earlier
        self.times = times or Times()
        self.stages = stages or []

    @property
    def stages(self) -> list[StageResult]:
        """Those so far; of a packed record a copy."""
        kept = self._kept
        if isinstance(kept, list):
            return kept
        found: list[StageResult] = pickle.loads(zlib.decompress(kept[1]))
        return found

    @stages.setter
    def stages(self, stages: list[StageResult]) -> None:
        # one attribute, so that MLflow's thread sees the one or the other; packed: how many, and the bytes
        self._kept: list[StageResult] | tuple[int, bytes] = stages

    def pack(self) -> None:
        """Keep the stages in a seventh of the memory, once no more come: of ten thousand trials they would be
        gigabytes. Reading them takes a millisecond from then on."""
        if isinstance(self._kept, list):
            self._kept = len(self._kept), zlib.compress(pickle.dumps(self._kept), 1)

    @property
    def count(self) -> int:
        """How many stages it has."""
        kept = self._kept
        return len(kept) if isinstance(kept, list) else kept[0]

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


def last_metrics(record: TrialRecord) -> dict[str, float]:
    """What the last stage measured. Where tasks are learned each by itself no stage stands for all of them: what is
    kept of the pre-trained skills is then the mean."""
    last = record.stages[-1].metrics if record.stages else {}
    if record.trial.experiment.protocol in ALONE:
        kept = [stage.metrics.get("pretrained_retention") for stage in record.trained]
        known = [value for value in kept if value is not None]
        if known and len(known) == len(kept):
            return {**last, "pretrained_retention": sum(known) / len(known)}
    return last


def setting_state(records: Iterable[TrialRecord]) -> str | None:
    """How a setting stands that has these trials, None while one of them has not ended: failed where one failed, since
    a mean over fewer orders and seeds is another one."""
    statuses = {record.status for record in records}
    if "UNFINISHED" in statuses:
        return None
    return "failed" if "FAILED" in statuses else "pruned" if "STOPPED" in statuses else "complete"
