"""Every registered search joins the shipped suite by itself."""

from __future__ import annotations

import pytest
from pydantic import JsonValue

from orchestration.search.registry import SEARCHES
from orchestration.testing import SearchContract

#: of a kind that comes in several: one entry for each
OBJECTIVES = {"average_accuracy": "maximize", "forgetting": "minimize"}
SAMPLERS = ("tpe", "gp", "nsga2", "nsga3", "random", "qmc")
TWO: dict[str, JsonValue] = {"kind": "optuna", "objectives": OBJECTIVES, "constraints": {"forgetting": 0.1}}
OPTUNA = [*({**TWO, "sampler": name} for name in SAMPLERS), {"kind": "optuna"}, {"kind": "optuna", "sampler": "gp"}]
OTHERS = [{"kind": name} for name in SEARCHES.names() if name not in ("grid", "optuna")]


@pytest.mark.parametrize("chosen", [*OTHERS, *OPTUNA], ids=str, scope="class")
class TestEverySearch(SearchContract):
    @pytest.fixture(autouse=True)
    def _choose(self, chosen: dict[str, JsonValue]) -> None:
        self.search = {"trials": 100, "batch": 3, **chosen}
        # a Gaussian process takes a second for a setting once it has ten
        self.batches = 5 if chosen.get("sampler") == "gp" else 7
