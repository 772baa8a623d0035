"""What an experiment looks at after each of its stages. Imports no torch, so that a sweep can be planned without it."""

from __future__ import annotations

from mcit_core.config import ALONE, Experiment
from mcit_core.stages.results import UNTOUCHED

VALIDATION, TEST = "validation", "test"
#: the model's own held-out sample, as (task, split)
RETENTION = ("pretraining", "retention")


def looks(experiment: Experiment, stage: int) -> list[tuple[str, str]]:
    """The (task, split) pairs that are evaluated after `stage` (UNTOUCHED: before the first), RETENTION last.

    With `evaluation.cells: used` those that a metric reads: of a sequence the test rows of the tasks so far and of the
    next (forward transfer), the validation rows of the tasks so far (races and the choice of a setting), and RETENTION
    after the last stage. What learns no sequence is never chosen, and does without validation rows.
    """
    order, protocol = experiment.order, experiment.protocol
    every = experiment.evaluation.cells == "all"
    sequence = protocol == "sequence" and stage != UNTOUCHED
    tested = order
    if protocol in ALONE and stage != UNTOUCHED:
        tested = order[stage : stage + 1]
    elif sequence and not every:
        tested = order[: stage + 2]
    validated = tested if every else order[: stage + 1] if sequence else ()
    found = [(task, VALIDATION) for task in validated] + [(task, TEST) for task in tested]
    if every or not sequence or stage == len(order) - 1:
        found.append(RETENTION)
    return found


def untrained_looks(experiment: Experiment) -> list[tuple[str, str]]:
    """The (task, split) pairs that are evaluated with the tuner in front as it is before any training: of a sequence
    the test rows of every task but the first, which one may measure forward transfer from."""
    return [(task, TEST) for task in experiment.order[1:]] if experiment.protocol == "sequence" else []
