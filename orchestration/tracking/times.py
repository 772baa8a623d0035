"""When a trial and its stages ran, for MLflow's durations and its wall-time axis."""

from __future__ import annotations

import time
from dataclasses import dataclass

from orchestration.keep.provenance import Provenance
from orchestration.keep.trial_record import TrialRecord

FORMAT = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True)
class StageTimes:
    """In milliseconds since 1970: when its training began and ended, and when it was evaluated too."""

    begun: int
    trained: int
    done: int

    def of_step(self, step: int, steps: int) -> int:
        """When a training step was done, all taken for equally long: nobody writes down when each was."""
        return self.begun + (self.trained - self.begun) * (step + 1) // max(1, steps)


@dataclass(frozen=True)
class TrialTimes:
    """In milliseconds since 1970. `recorded`: whether the driver wrote down when, or else the durations alone are
    true."""

    begun: int
    ended: int
    stages: list[StageTimes]
    recorded: bool


def times_of(record: TrialRecord, otherwise: float) -> TrialTimes:
    """`otherwise`: when a trial is taken to have begun of which the RUN has no times, as of an earlier version or where
    the journal was lost; its stages then follow one another by the seconds that each took."""
    noted = record.times
    recorded = noted.begun is not None and len(noted.stages) >= len(record.stages)
    at = begun = noted.begun if noted.begun is not None and recorded else otherwise
    stages = []
    for i, stage in enumerate(record.stages):
        train, evaluate = (stage.metrics.get(name, 0.0) for name in ("seconds/train", "seconds/evaluate"))
        # no earlier than what was before, if the clock was put back
        done = max(at, noted.stages[i]) if recorded else at + train + evaluate
        # what came from the store was trained before, and is here within no time
        first = max(at, done - train - evaluate)
        stages.append(StageTimes(_ms(first), _ms(min(done, first + train)), _ms(done)))
        at = done
    ended = max(at, noted.ended) if recorded and noted.ended is not None else at
    return TrialTimes(_ms(begun), _ms(ended), stages, recorded)


def moment(provenance: Provenance, name: str) -> float | None:
    """When a sweep `started` or `finished`, in seconds since 1970; None where it does not say. It says so in the local
    time of its machine, which is taken for that of this one."""
    try:
        return time.mktime(time.strptime(str(provenance[name]), FORMAT))
    except (KeyError, ValueError, OverflowError):
        return None


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
