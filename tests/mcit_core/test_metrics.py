"""Metrics against matrices worked by hand, and the laws that hold for every matrix."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mcit_core.metrics import METRICS, VARIANTS, explain, summarise

Matrix = list[list[float]]

# Stages are rows, tasks are columns.
GOLDEN: Matrix = [
    [80, 20, 10],
    [60, 90, 30],
    [70, 50, 85],
]
ZERO_SHOT: list[float] = [10, 15, 20]
DIRECT: list[float] = [84, 95, 83]
WORKED: dict[str, float] = {
    "average_accuracy": 205 / 3,  # (70 + 50 + 85) / 3
    "learning_accuracy": 85,  # (80 + 90 + 85) / 3
    "mean_average_accuracy": 670 / 9,  # (80 + (60 + 90) / 2 + 205 / 3) / 3 = (240 + 225 + 205) / 9
    "backward_transfer": -25,  # ((70 - 80) + (50 - 90)) / 2
    "forgetting": 25,  # ((max(80, 60) - 70) + (90 - 50)) / 2
    "forward_transfer": 7.5,  # ((20 - 15) + (30 - 20)) / 2
    "transfer_to_direct": -1.5,  # ((90 - 95) + (85 - 83)) / 2
    "intransigence": 7 / 3,  # ((84 - 80) + (95 - 90) + (83 - 85)) / 3
}

#: other papers' conventions on the same matrix
VARIANTS_WORKED: dict[str, float] = {
    "backward_transfer_over_tasks": -50 / 3,  # ((70 - 80) + (50 - 90)) / 3
    "average_by_column": 75,  # ((80 + 60 + 70) / 3 + (90 + 50) / 2 + 85) / 3
    "average_lower_triangle": 72.5,  # (80 + 60 + 90 + 70 + 50 + 85) / 6
    "backward_transfer_all_cells": -70 / 3,  # ((60 - 80) + (70 - 80) + (50 - 90)) / 3
    "forgetting_all_rows": 25,  # ((80 - 70) + (90 - 50)) / 2
}

# The last stage improves what came before, and task 1 was best before it was ever trained.
IMPROVING: Matrix = [
    [50, 70, 0],
    [40, 60, 0],
    [55, 65, 90],
]


def value(name: str, accuracy: Any, zero_shot: Any = None, direct: Any = None) -> float:
    """A metric that must be defined."""
    outcome = explain(accuracy, zero_shot, direct)[name]
    assert outcome.value is not None, outcome.reason
    return outcome.value


def reasons(accuracy: Any, zero_shot: Any = None, direct: Any = None) -> dict[str, str]:
    """The reasons of the undefined metrics, by name."""
    outcomes = explain(accuracy, zero_shot, direct)
    assert all((outcome.value is None) == bool(outcome.reason) for outcome in outcomes.values())
    return {name: outcome.reason for name, outcome in outcomes.items() if outcome.value is None}


def changed(matrix: Matrix, stage: int, task: int, to: float | None) -> list[list[float | None]]:
    copy: list[list[float | None]] = [list(row) for row in matrix]
    copy[stage][task] = to
    return copy


def test_golden_matrix() -> None:
    metrics = summarise(GOLDEN, ZERO_SHOT, DIRECT)
    assert metrics == pytest.approx(WORKED, abs=1e-12)
    assert all(type(metric) is float for metric in metrics.values())


@pytest.mark.parametrize("convert", [np.array, torch.tensor, tuple, lambda rows: [np.array(row) for row in rows]])
def test_any_container(convert: Any) -> None:
    assert summarise(convert(GOLDEN), np.array(ZERO_SHOT), torch.tensor(DIRECT)) == summarise(GOLDEN, ZERO_SHOT, DIRECT)


def test_last_stage_that_improves_earlier_tasks() -> None:
    assert value("backward_transfer", IMPROVING) == 5  # ((55 - 50) + (65 - 60)) / 2
    assert value("forgetting", IMPROVING) == -5  # ((max(50, 40) - 55) + (60 - 65)) / 2
    assert value("forgetting_all_rows", IMPROVING) == 2.5  # ((max(50, 40, 55) - 55) + (max(70, 60, 65) - 65)) / 2


def test_earlier_stage_is_the_leading_block() -> None:
    block = [row[:2] for row in GOLDEN[:2]]
    assert value("average_accuracy", block) == 75  # (60 + 90) / 2
    assert value("forgetting", block) == 20  # 80 - 60
    assert value("forward_transfer", block, ZERO_SHOT[:2]) == 5  # 20 - 15


def test_one_task() -> None:
    assert summarise([[0.5]], [0.1], [0.75]) == {
        "average_accuracy": 0.5,
        "learning_accuracy": 0.5,
        "mean_average_accuracy": 0.5,
        "backward_transfer": None,
        "forgetting": None,
        "forward_transfer": None,
        "transfer_to_direct": None,
        "intransigence": 0.25,  # 0.75 - 0.5
    }
    needs_two = ["backward_transfer", "forgetting", "forward_transfer", "transfer_to_direct", "forgetting_all_rows"]
    needs_two += ["backward_transfer_over_tasks", "backward_transfer_all_cells"]
    assert reasons([[0.5]], [0.1], [0.75]) == dict.fromkeys(needs_two, "only one task")


def test_no_references() -> None:
    assert reasons(GOLDEN) == {
        "forward_transfer": "no zero_shot reference",
        "transfer_to_direct": "no direct reference",
        "intransigence": "no direct reference",
    }


FORGETTING = "forgetting forgetting_all_rows"
BACKWARD = "backward_transfer backward_transfer_over_tasks backward_transfer_all_cells"
AVERAGES = "mean_average_accuracy average_by_column average_lower_triangle"


@pytest.mark.parametrize("missing", [None, math.nan, np.nan])
@pytest.mark.parametrize(
    ("stage", "task", "lost"),
    [
        (0, 0, f"learning_accuracy {AVERAGES} {BACKWARD} {FORGETTING} intransigence"),
        (0, 1, "forgetting_all_rows forward_transfer"),
        (0, 2, ""),
        (1, 0, f"{AVERAGES} backward_transfer_all_cells {FORGETTING}"),
        (1, 2, "forward_transfer"),
        (2, 0, f"average_accuracy {AVERAGES} {BACKWARD} {FORGETTING}"),
        (2, 2, f"average_accuracy learning_accuracy {AVERAGES} transfer_to_direct intransigence"),
    ],
)
def test_missing_cell_undefines_what_reads_it(stage: int, task: int, lost: str, missing: float | None) -> None:
    matrix = changed(GOLDEN, stage, task, missing)
    assert reasons(matrix, ZERO_SHOT, DIRECT) == dict.fromkeys(lost.split(), f"cell [{stage}, {task}] missing")
    kept = {name: number for name, number in WORKED.items() if name not in lost.split()}
    assert {name: number for name, number in summarise(matrix, ZERO_SHOT, DIRECT).items() if number is not None} == (
        pytest.approx(kept, abs=1e-12)
    )


def test_missing_reference_values() -> None:
    assert reasons(GOLDEN, [10, None, 20], [84, 95, math.nan]) == {
        "forward_transfer": "zero_shot of task 1 missing",
        "transfer_to_direct": "direct of task 2 missing",
        "intransigence": "direct of task 2 missing",
    }
    assert reasons(GOLDEN, [None, 15, 20], [None, 95, 83]) == {"intransigence": "direct of task 0 missing"}


def test_everything_missing_is_none_and_never_nan() -> None:
    metrics = summarise(np.full((3, 3), np.nan), np.full(3, np.nan), [None] * 3)
    assert metrics == dict.fromkeys(METRICS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "no rows"),
        (([[1, 2]],), "square: 1 rows, but row 0 has 2 cells"),
        (([[1, 2], [3]],), "square: 2 rows, but row 1 has 1 cells"),
        ((np.zeros((2, 3)),), "square"),
        (([1, 2],), "accuracy row 0 must be a list"),
        ((0.5,), "accuracy must be a list"),
        (([["good"]],), "'good' is not a number"),
        (([[math.inf]],), "not finite"),
        (([[1]], [1, 2]), "zero_shot must have one value per task: 1 expected, 2 given"),
        (([[1]], None, []), "direct must have one value per task: 1 expected, 0 given"),
    ],
)
def test_refuses(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        summarise(*arguments)


@st.composite
def tables(draw: st.DrawFn, least: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Accuracy [T, T], zero_shot [T], direct [T] in [0, 1]."""
    tasks = draw(st.integers(least, 6))
    cells = st.floats(0, 1, allow_subnormal=False)
    numbers = draw(st.lists(cells, min_size=tasks * (tasks + 2), max_size=tasks * (tasks + 2)))
    table = np.array(numbers).reshape(tasks + 2, tasks)
    return table[:-2], table[-2], table[-1]


law = settings(derandomize=True, deadline=None, max_examples=100)


@law
@given(tables(least=2))
def test_backward_transfer_from_the_averages(table: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    accuracy, _, _ = table
    tasks = len(accuracy)
    gap = value("average_accuracy", accuracy) - value("learning_accuracy", accuracy)
    assert value("backward_transfer", accuracy) == pytest.approx(tasks / (tasks - 1) * gap, abs=1e-12)


@law
@given(tables(least=2))
def test_forgetting_is_bounded_below(table: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    accuracy, _, _ = table
    assert value("forgetting", accuracy) >= -value("backward_transfer", accuracy) - 1e-12
    assert value("forgetting_all_rows", accuracy) >= max(0, value("forgetting", accuracy)) - 1e-12


@law
@given(tables())
def test_scale_free(table: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    fractions = explain(*table)
    percents = explain(*(100 * part for part in table))
    for name in METRICS | VARIANTS:
        fraction, percent = fractions[name].value, percents[name].value
        assert (percent is None) == (fraction is None)
        if fraction is not None:
            assert percent == pytest.approx(100 * fraction, abs=1e-10)


@law
@given(tables(), st.randoms(use_true_random=False))
def test_permutations(table: tuple[np.ndarray, np.ndarray, np.ndarray], random: Any) -> None:
    accuracy, zero_shot, direct = table
    order = random.sample(range(len(direct)), len(direct))
    columns = summarise(accuracy[:, order])
    renamed = summarise(accuracy[order][:, order], zero_shot[order], direct[order])
    assert columns["average_accuracy"] == value("average_accuracy", accuracy)
    assert renamed["learning_accuracy"] == value("learning_accuracy", accuracy)
    assert renamed["intransigence"] == value("intransigence", accuracy, zero_shot, direct)


def test_other_papers_conventions_by_hand() -> None:
    found = summarise(GOLDEN, ZERO_SHOT, DIRECT, variants=True)
    assert found == pytest.approx(WORKED | VARIANTS_WORKED)
    assert summarise(GOLDEN, ZERO_SHOT, DIRECT) == pytest.approx(WORKED)
    # cells above the diagonal are read by one of them alone
    lower = [[cell if j <= t else None for j, cell in enumerate(row)] for t, row in enumerate(GOLDEN)]
    missing = {name for name, value in summarise(lower, variants=True).items() if value is None}
    assert missing & {*VARIANTS_WORKED} == {"forgetting_all_rows"}


_ = None
#: public runs, rows after a stage: O-LoRA's first order on T5; HyperLLaVA on UCIT; CoIN++ by kind of picture
PUBLIC: dict[str, tuple[list[list[float | None]], dict[str, float]]] = {
    "o_lora": (
        [
            [98.7105, _, _, _],
            [98.5526, 57.7632, _, _],
            [97.4079, 57.4079, 71.9079, _],
            [97.7368, 56.0658, 71.0395, 88.6184],
        ],
        {
            "average_accuracy": 78.3651,
            "learning_accuracy": 79.25,
            "mean_average_accuracy": 82.702,
            "backward_transfer": -1.1798,
            "forgetting": 1.1798,
            "average_lower_triangle": 79.5211,
            "backward_transfer_all_cells": -0.8925,
        },
    ),
    "ucit": (  # "Avg" is 75.49, 73.49 or 83.27 and BWT -6.06 or -5.05, by whose definition is used
        [
            [91.73, _, _, _, _, _],
            [90.4, 94.23, _, _, _, _],
            [89.37, 94.07, 61.37, _, _, _],
            [87.07, 94.1, 57.4, 86.0, _, _],
            [87.37, 94.27, 56.7, 78.73, 79.7, _],
            [86.67, 94.0, 58.71, 79.03, 64.33, 58.2],
        ],
        {
            "average_accuracy": 73.49,
            "learning_accuracy": 78.5383,
            "mean_average_accuracy": 83.2725,
            "backward_transfer": -6.058,
            "backward_transfer_over_tasks": -5.0483,
            "average_by_column": 75.4859,
            "average_lower_triangle": 80.1643,
            "backward_transfer_all_cells": -3.944,
            "forgetting": 6.066,
        },
    ),
    "coin++": (  # whose forgetting takes the best of all rows
        [
            [0.4215, 0.283, 0.191317, 0.180995, 0.185, 0.141585],
            [0.4009, 0.421, 0.168029, 0.190183, 0.118, 0.117799],
            [0.404075, 0.453, 0.285104, 0.194888, 0.15, 0.121983],
            [0.3739, 0.423, 0.273175, 0.262945, 0.181, 0.155455],
            [0.4035, 0.412, 0.246746, 0.234479, 0.214, 0.140507],
            [0.3873, 0.424, 0.233276, 0.189072, 0.227, 0.349171],
        ],
        {
            "average_accuracy": 0.3016,
            "mean_average_accuracy": 0.3584,
            "learning_accuracy": 0.3256,
            "forgetting_all_rows": 0.0378,
            "backward_transfer": -0.0288,
        },
    ),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_what_public_runs_come_to(name: str) -> None:
    matrix, told = PUBLIC[name]
    found = summarise(matrix, variants=True)
    for metric, value in told.items():
        assert found[metric] == pytest.approx(value, abs=6e-5), metric


@given(
    st.integers(2, 6).flatmap(
        lambda n: st.lists(st.lists(st.floats(0, 1), min_size=n, max_size=n), min_size=n, max_size=n)
    )
)
def test_what_the_conventions_have_in_common(matrix: Matrix) -> None:
    found = summarise(matrix, variants=True)
    tasks = len(matrix)
    same = {name: value for name, value in found.items() if value is not None}
    assert same["backward_transfer_over_tasks"] == pytest.approx(
        same["backward_transfer"] * (tasks - 1) / tasks, abs=1e-12
    )
    assert same["forgetting_all_rows"] >= same["forgetting"] - 1e-12
    if tasks == 2:  # one cell below the diagonal
        assert same["backward_transfer_all_cells"] == pytest.approx(same["backward_transfer"], abs=1e-12)
