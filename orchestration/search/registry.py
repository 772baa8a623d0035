"""The ways in which a sweep can choose its settings, by the name that `search` has in a sweep file. Entry points of the
group `orchestration.searches` add others. Loads none of them."""

from __future__ import annotations

from mcit_core.choices import Choice, part_settings
from mcit_core.registry import Part, Registry
from orchestration.search.settings import GridSettings, SearchSettings

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


def settings_of(search: Choice) -> GridSettings | SearchSettings:
    """The settings of a search as a sweep file chooses it. Raises pydantic's ValidationError."""
    made = part_settings(SEARCHES, search).get("settings", GridSettings())
    assert isinstance(made, GridSettings | SearchSettings)
    return made
