"""What a place in the order and a predecessor do: by hand, and from matrices whose effects are known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from mcit_core.stages.results import StageResult
from orchestration.keep.tables import Row, stage_results
from orchestration.results.order_effects import MEASURES, OrderEffects, order_effects
from tests.orchestration.results.test_results import cells, trial

Matrix = list[list[float | None]]
Stages = dict[str, list[StageResult]]
TASKS = ("a", "b", "c")


def run(found: dict[tuple[int, str], Matrix]) -> tuple[list[Row], Stages]:
    """(seed, order) -> the accuracy matrix, tasks as they were trained."""
    rows = [trial(f"{seed}-{order}", seed=seed, order=order) for seed, order in found]
    accuracy = [cell for row, matrix in zip(rows, found.values(), strict=True) for cell in cells(row, matrix)]
    return rows, stage_results(accuracy, [])


def told(found: dict[tuple[int, str], Matrix]) -> OrderEffects:
    effects = order_effects(*run(found))
    assert effects.value is not None, effects.reason
    return effects.value


def means(found: OrderEffects) -> dict[str, list[float | None]]:
    return {measure: [place.effect.mean for place in found.places[measure]] for measure in MEASURES}


def test_by_hand() -> None:
    """a ends at 0.5 when it is first and at 0.9 when it is last, b at 0.6 and 0.8: first is 0.2 and 0.1 below their
    means. Right after its stage a has 0.8 first and 0.9 last, b has 0.7 and 0.8."""
    matrices: dict[tuple[int, str], Matrix] = {
        (0, "a>b"): [[0.8, 0.1], [0.5, 0.8]],
        (0, "b>a"): [[0.7, 0.1], [0.6, 0.9]],
    }
    found = told(matrices)
    assert means(found) == {
        "final": pytest.approx([-0.15, 0.15]),
        "learning": pytest.approx([-0.05, 0.05]),
        "forgetting": [],  # of two tasks each is forgotten at one place alone
    }
    assert [(place.position, place.tasks, place.count) for place in found.places["final"]] == [(0, 2, 2), (1, 2, 2)]
    assert found.places["final"][0].effect.half_width is None
    assert (found.seeds, found.orders) == (1, 2)
    assert found.predecessors.tasks == ("a", "b")
    assert found.predecessors.counts == ((0, 1), (1, 0))
    assert found.predecessors.effects == ((None, None), (None, None))  # one predecessor alone


def test_intervals_are_over_seeds_that_have_every_order() -> None:
    matrices: dict[tuple[int, str], Matrix] = {}
    for seed, gain in enumerate((0.1, 0.2, 0.3, 0.9)):
        matrices[seed, "a>b"] = [[0.5, 0.0], [0.5, 0.4 + gain]]
        matrices[seed, "b>a"] = [[0.4, 0.0], [0.4, 0.5 + gain]]
    del matrices[3, "b>a"]
    last = told(matrices).places["learning"][1]
    assert last.effect.values == pytest.approx([0.05, 0.1, 0.15])
    # t(0.975, 2) = 4.302653, standard deviation 0.05
    assert last.effect.half_width == pytest.approx(4.302653 * 0.05 / 3**0.5)
    assert (last.tasks, last.count) == (2, 6)


def test_too_little_is_refused() -> None:
    matrix: Matrix = [[0.8, 0.1], [0.5, 0.8]]
    assert order_effects(*run({(0, "a>b"): matrix})) == (None, "it takes two orders, and there are 1")
    apart = order_effects(*run({(0, "a>b"): matrix, (1, "b>a"): matrix}))
    assert apart == (None, "no seed has every order with the accuracies of all its tasks")
    rows, _ = run({(0, "a>b"): matrix, (0, "b>a"): matrix})
    assert order_effects(rows, {}).reason == apart.reason
    assert order_effects([], {}).reason == "it takes two orders, and there are 0"
    holes: Matrix = [[0.8, 0.1], [None, 0.8]]
    assert order_effects(*run({(0, "a>b"): matrix, (0, "b>a"): holes})).value is None
    assert order_effects(rows, run({(0, "a>b"): matrix, (0, "b>a"): matrix})[1], ["a>b", "b>a", "c>d"]).value is None


def balanced(hard: dict[str, float], place: list[float], before: dict[str, float], seeds: int) -> OrderEffects:
    """All six orders; what a task has right after its stage is a sum of its own, its place's and its predecessor's; it
    loses 0.01 a stage, and its place's number of points at the end."""
    matrices: dict[tuple[int, str], Matrix] = {}
    for seed, tasks in itertools.product(range(seeds), itertools.permutations(TASKS)):
        matrix: Matrix = [[0.0] * 3 for _ in TASKS]
        for j, task in enumerate(tasks):
            learned = hard[task] + place[j] + (before[tasks[j - 1]] if j else 0.0) + 0.02 * seed
            for t in range(j, 3):
                matrix[t][j] = learned - 0.01 * (t - j)
        matrices[seed, ">".join(tasks)] = matrix
    return told(matrices)


def test_known_effects_of_all_orders_are_found() -> None:
    hard, before = {"a": 0.3, "b": 0.5, "c": 0.4}, {"a": 0.0, "b": 0.06, "c": 0.03}
    found = balanced(hard, [0.0, 0.1, 0.2], dict.fromkeys(TASKS, 0.0), 3)
    assert means(found) == {
        "learning": pytest.approx([-0.1, 0.0, 0.1]),
        "final": pytest.approx([-0.11, 0.0, 0.11]),  # the first place also loses 0.02, the second 0.01
        "forgetting": pytest.approx([0.005, -0.005]),
    }
    assert [place.count for place in found.places["learning"]] == [18, 18, 18]
    assert [place.tasks for place in found.places["forgetting"]] == [3, 3]
    # every predecessor stands at the first place as often as at the second, so that places do not count
    assert all(
        effect is None or effect.mean == pytest.approx(0) for row in found.predecessors.effects for effect in row
    )
    follow = balanced(hard, [0.0, 0.1, 0.2], before, 3).predecessors
    assert follow.tasks == TASKS
    assert follow.counts == ((0, 6, 6), (6, 0, 6), (6, 6, 0))
    shown = [[None if effect is None else effect.mean for effect in row] for row in follow.effects]
    # of a's predecessors b is 0.015 above their mean of 0.045, c below it; and so on
    wanted = [[None, -0.015, -0.03], [0.015, None, 0.03], [-0.015, 0.015, None]]
    for row, other in zip(shown, wanted, strict=True):
        assert row == pytest.approx(other)


ACCURACIES = strategies.lists(strategies.integers(0, 100).map(lambda value: value / 100), min_size=54, max_size=54)
HARD = strategies.lists(strategies.integers(-20, 20).map(lambda value: value / 100), min_size=3, max_size=3)


@settings(deadline=None, max_examples=25)
@given(ACCURACIES, HARD)
def test_how_hard_a_task_is_does_not_count(values: list[float], hard: list[float]) -> None:
    def effects(easier: list[float]) -> list[float]:
        table = iter(values)
        matrices: dict[tuple[int, str], Matrix] = {}
        for tasks in itertools.permutations(range(3)):
            name = ">".join(TASKS[task] for task in tasks)
            matrices[0, name] = [[next(table) + easier[task] for task in tasks] for _ in tasks]
        rows, stages = run(matrices)
        found = order_effects(rows, stages).value
        assert found is not None
        places = [place.effect.mean for measure in MEASURES for place in found.places[measure]]
        pairs = [effect.mean for row in found.predecessors.effects for effect in row if effect is not None]
        # what each place has above the mean adds up to nothing where every task stands at every place
        for measure in MEASURES:
            assert sum(place.effect.mean or 0.0 for place in found.places[measure]) == pytest.approx(0, abs=1e-9)
        return [value for value in (*places, *pairs) if value is not None]

    assert np.array(effects(hard)) == pytest.approx(np.array(effects([0.0] * 3)), abs=1e-9)
