"""What a search is told: worked by hand, on validation rows alone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from orchestration.plan.spec import RobustRule
from orchestration.plan.trials import Trial
from orchestration.search.objectives import outcome, robust
from orchestration.search.proposals import Proposals
from orchestration.search.settings import SearchSettings
from tests.support.searching import run_search, write_sweep_file

#: two orders and two seeds
CELLS = {("ab", 0): 0.1, ("ab", 1): 0.3, ("ba", 0): 0.5, ("ba", 1): 0.9}


@pytest.mark.parametrize(
    ("rule", "more", "value"),
    [
        (RobustRule(), True, 0.45),
        (RobustRule(statistic="worst"), True, 0.1),
        (RobustRule(statistic="worst"), False, 0.9),
        (RobustRule(statistic="cvar", level=0.5), True, 0.2),  # the worst two of four
        (RobustRule(statistic="cvar", level=0.3), True, 0.2),  # 1.2 of four are two
        (RobustRule(statistic="cvar", level=0.25), False, 0.9),
        (RobustRule(("order",), "worst"), True, 0.2),  # means of orders: 0.2 and 0.7
        (RobustRule(("seed",), "worst"), True, 0.3),  # of seeds: 0.3 and 0.6
    ],
)
def test_a_statistic_over_orders_and_seeds(rule: RobustRule, more: bool, value: float) -> None:
    assert robust(CELLS, rule, more) == pytest.approx(value)
    assert robust(dict(reversed(CELLS.items())), rule, more) == robust(CELLS, rule, more)


def test_objectives_are_those_of_validation_rows_and_constraints_are_bounds(tmp_path: Path) -> None:
    objectives = {"average_accuracy": "maximize", "forgetting": "minimize"}
    limits = {"forgetting": 0.25, "trained_parameters": 60.0}
    search = {"kind": "random", "trials": 1, "objectives": objectives, "constraints": limits}
    spec = write_sweep_file(tmp_path, search=search)

    def truth(trial: Trial) -> list[list[float]]:
        return [[0.8, 0.1], [0.5, 0.6]]

    records = run_search(spec, tmp_path / "run", 1, random.Random(0), truth)
    (record,) = records.of_setting(0)
    stages = record.stages
    for stage in stages:  # other test accuracies, which nobody may look at
        stage.accuracy[:] = [cell for cell in stage.accuracy if cell.split == "validation"]
    record.stages = stages
    (_, batch) = Proposals(tmp_path / "run", spec).read()
    settings = SearchSettings.model_validate({name: value for name, value in search.items() if name != "kind"})
    told = outcome(batch.proposals[0], [record], records, settings, RobustRule())
    assert told.state == "complete"
    assert told.objectives == pytest.approx((0.55, 0.3))
    assert told.constraints == pytest.approx({"forgetting": 0.05, "trained_parameters": 40.0})
