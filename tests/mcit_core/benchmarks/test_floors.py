"""Every task of the embedded benchmark needs the picture and the model: the published figures say so."""

from __future__ import annotations

import re
from pathlib import Path

from mcit_core.benchmarks.mini import TASKS

TABLE = Path(__file__).parents[3] / "docs" / "benchmark.md"
#: points by which learning a task alone must be above the higher floor
LEAST = 10.0


def test_direct_is_well_above_both_floors_on_every_task() -> None:
    lines = TABLE.read_text().split("| task | `zero_shot` |")[1].split("\n\n")[0].splitlines()[2:]
    found = {}
    for line in lines:
        task, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        found[task] = [float(re.match(r"[+−-]?[\d.]+", cell)[0].replace("−", "-")) for cell in cells]  # type: ignore[index]
    assert list(found) == list(TASKS)
    for task, (_, majority, blind, direct, above, _) in found.items():
        assert direct >= max(majority, blind) + LEAST, task
        assert abs(above - (direct - max(majority, blind))) < 0.11, task  # each is rounded
