"""The ways in which a sweep can choose its settings, by the name that `search` has in a sweep file. Entry points of the
group `orchestration.searches` add others. Loads none of them."""

from __future__ import annotations

from mcit_core.registry import Part, Registry

SEARCHES = Registry(
    "orchestration.searches",
    Part,
    {
        "grid": Part("orchestration.search.grid:Grid", "orchestration.search.settings:GridSettings"),
        "random": Part("orchestration.search.uniform:Random", "orchestration.search.settings:SearchSettings"),
        "sobol": Part("orchestration.search.uniform:Sobol", "orchestration.search.settings:SearchSettings"),
        "optuna": Part("orchestration.search.optuna_search:Optuna", "orchestration.search.settings:OptunaSettings"),
    },
)
