"""Searches that look at results find better settings than random ones of equal number, and robust ones."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import JsonValue

from orchestration.plan.space import Point
from orchestration.plan.spec import RobustRule
from orchestration.search import Proposal
from orchestration.search.course import search_of
from orchestration.search.objectives import judged
from orchestration.search.settings import SearchSettings
from tests.support.searching import write_sweep_file

AXES: dict[str, JsonValue] = {
    "train.lr": {"low": 0.0001, "high": 1.0, "log": True},
    "projection.task_energy": {"low": 0.4, "high": 0.99},
    "pool.size": {"low": 20, "high": 60},
    "pool.reuse": ["share", "penalise", "freeze"],
}
TRIALS, SEEDS, ENOUGH = 40, 10, 9


def value(point: Point) -> float:
    """Highest, 1, at lr 0.01, task_energy 0.7, size 44 and freeze."""
    lr, energy, size = (float(str(point[name])) for name in ("train.lr", "projection.task_energy", "pool.size"))
    far = (math.log10(lr) + 2) ** 2 / 4 + 8 * (energy - 0.7) ** 2 + ((size - 44) / 30) ** 2
    return math.exp(-far) - 0.1 * ["freeze", "penalise", "share"].index(str(point["pool.reuse"]))


def best(folder: Path, search: dict[str, JsonValue], seed: int) -> float:
    """The best value that a search of TRIALS settings finds, told a batch later as a sweep does."""
    spec = write_sweep_file(folder, axes=AXES, base={}, search={"trials": TRIALS, "seed": seed, **search})
    made, settings = search_of(spec)
    assert isinstance(settings, SearchSettings)
    found: list[Proposal] = []
    for batch in range(TRIALS // settings.batch):
        ended = [one for one in found if one.batch < batch - 1]
        made.tell(replace(one, state="complete", objectives=(value(one.values),)) for one in ended)
        new = made.propose(batch)
        made.tell(new)
        found += new
    return max(value(one.values) for one in found)


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("gp", marks=pytest.mark.slow)])
def test_a_model_beats_random(sampler: str, tmp_path: Path) -> None:
    wins = 0
    for seed in range(SEEDS):
        plain = best(tmp_path, {"kind": "random"}, seed)
        found = best(tmp_path, {"kind": "optuna", "sampler": sampler}, seed)
        print(f"{sampler} {found:.3f}, random {plain:.3f}")
        wins += found > plain
    assert wins >= ENOUGH


ORDERS = ("a", "b", "c", "d")


def peaks(energy: float, order: str) -> float:
    """A narrow peak of 0.95 at 0.9 that stands under the first order alone, and a broad one of 0.8 at 0.6 under all."""
    narrow = 0.95 if order == ORDERS[0] else 0.1
    return max(narrow * math.exp(-(((energy - 0.9) / 0.08) ** 2)), 0.8 * math.exp(-(((energy - 0.6) / 0.15) ** 2)))


def chosen(folder: Path, orders: tuple[str, ...], rule: RobustRule, seed: int) -> float:
    """The energy that a TPE search settles on, of trials under these orders."""
    axes: dict[str, JsonValue] = {"projection.task_energy": {"low": 0.3, "high": 0.99}}
    spec = write_sweep_file(folder, axes=axes, base={}, search={"kind": "optuna", "trials": 24, "seed": seed})
    made, settings = search_of(spec)
    assert isinstance(settings, SearchSettings)
    told: list[Proposal] = []
    waiting: list[Proposal] = []
    for batch in range(6):
        made.tell(ended := [one for one in waiting if one.batch < batch - 1])
        told += ended
        waiting = [one for one in waiting if one not in ended]
        new = made.propose(batch)
        made.tell(new)
        for one in new:
            energy = float(str(one.values["projection.task_energy"]))
            cells = {(order, 0): peaks(energy, order) for order in orders}
            waiting.append(judged(one, cells, lambda value, _: value, settings, rule))
    best = max([*told, *waiting], key=lambda one: one.objectives[0])
    return float(str(best.values["projection.task_energy"]))


@pytest.mark.parametrize("statistic", ["worst", "cvar", "mean"])
def test_a_robust_search_finds_what_holds_over_orders(statistic: str, tmp_path: Path) -> None:
    rule = RobustRule(("order",), statistic, 0.5)  # type: ignore[arg-type]
    robust = [chosen(tmp_path, ORDERS, rule, seed) for seed in range(SEEDS)]
    misled = [chosen(tmp_path, ORDERS[:1], RobustRule(), seed) for seed in range(SEEDS)]
    assert sum(abs(energy - 0.6) < 0.1 for energy in robust) >= ENOUGH, robust
    assert sum(abs(energy - 0.9) < 0.1 for energy in misled) > SEEDS / 2, misled
