"""Where the keys of a prompt pool may move: away from the queries of earlier tasks, so that a query's product with a
key stays, up to the energy left out. The key's length may change, and with it the cosine that chooses.

Source: the public code of PGP (Qiao et al., Prompt Gradient Projection), which projects the keys too, with a basis of
the frozen queries at energy 0.97. Queries count by direction, since they are compared by cosine.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from mcit_core.data.features import CHUNK, Rows
from mcit_core.data.statistics import row_statistics
from mcit_core.parallel import ALONE, Team
from mcit_core.protection.spaces import Space, SpaceRule, grow, space_outside
from mcit_core.tuners import ChoosesByKeys


@torch.no_grad()
def key_spaces(tuner: ChoosesByKeys, earlier: Iterable[Rows], energy: float, team: Team = ALONE) -> dict[str, Space]:
    """Name of the keys -> everything outside the basis that GPM's rule grows over the queries of `earlier` tasks, in
    their order; `energy` is the share of a task's whole energy that the basis must reach."""
    rule = SpaceRule(mode="pegp", task_energy=energy, energy_of="total")
    bases: dict[str, torch.Tensor] = {}
    for rows in earlier:
        parts = [tuner.key_queries(rows[index]) for index in torch.arange(len(rows))[team.part()].split(8 * CHUNK)]
        for name in parts[0]:
            found = row_statistics(torch.cat([part[name] for part in parts]), unit=True).over(team)
            bases[name] = grow(rule, bases.get(name, found.gram.new_zeros(len(found.gram), 0)), found)
    return {name: space_outside(basis) for name, basis in bases.items()}
