"""What is evaluated after each stage."""

from __future__ import annotations

from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.metrics import CATALOGUE, summarise
from mcit_core.stages.looks import RETENTION, looks
from mcit_core.stages.results import UNTOUCHED, StageResult, matrix, untouched
from mcit_core.training.sequence import Sequence
from orchestration.plan.halving import score

ORDER = ("attribute", "ground", "bars")
SETTINGS = {"train.steps": 2, "train.batch_size": 8}


def test_by_hand() -> None:
    sequence = build_experiment("tiny", "tiny", "fwd_prompt", ORDER)
    test, validation = [(task, "test") for task in ORDER], [(task, "validation") for task in ORDER]
    assert looks(sequence, UNTOUCHED) == [*test, RETENTION]
    assert looks(sequence, 0) == [validation[0], *test[:2]]
    assert looks(sequence, 1) == [*validation[:2], *test]
    assert looks(sequence, 2) == [*validation, *test, RETENTION]
    direct = build_experiment("tiny", "tiny", "direct", ORDER)
    assert looks(direct, 1) == [test[1], RETENTION]
    joint = build_experiment("tiny", "tiny", "multitask", ORDER)
    assert looks(joint, 0) == [*test, RETENTION]
    everything = build_experiment("tiny", "tiny", "fwd_prompt", ORDER, 0, {"evaluation.cells": "all"})
    assert looks(everything, 0) == looks(everything, UNTOUCHED) == [*validation, *test, RETENTION]


def run(bench: Workbench, cells: str) -> list[StageResult]:
    experiment = build_experiment("tiny", "tiny", "fwd_prompt", ORDER, 0, {**SETTINGS, "evaluation.cells": cells})
    return list(Sequence(experiment, bench))


def test_no_metric_and_no_choice_reads_a_cell_that_is_left_out(bench: Workbench) -> None:
    used, every = run(bench, "used"), run(bench, "all")
    for column in ("accuracy", "content_accuracy"):
        values = [
            summarise(matrix(found, ORDER, "test", column), untouched(found, ORDER, "test", column), [0.5] * 3, column)
            for found in (used, every)
        ]
        assert values[0] == values[1]
        assert None not in values[0].values()
    chosen = ("average_accuracy", "learning_accuracy", "forgetting")
    validated = [summarise(matrix(found, ORDER, "validation")) for found in (used, every)]
    assert all(validated[0][name] == validated[1][name] is not None for name in chosen)
    for stage in range(3):
        raced = [score(found[1 + stage].accuracy, ORDER[: stage + 1]) for found in (used, every)]
        assert raced[0] == raced[1]
    measured = [name for name, entry in CATALOGUE.items() if entry.formula is None]
    assert all(used[-1].metrics[name] == every[-1].metrics[name] for name in measured)
    cells = [sum(len(stage.accuracy) for stage in found) for found in (used, every)]
    assert cells == [3 + 3 + 5 + 6, 4 * 6]
