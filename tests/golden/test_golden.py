"""Presets still give the numbers that they gave: three tasks of three steps, against tests/golden/<preset>.txt.

After a change that is meant to change numbers, `python -m tests.golden` writes the files anew; say why in the commit.
Kinds of CPU and releases of torch differ in the last bits: a loss may differ by LOSS, an accuracy by one test row.
"""

from __future__ import annotations

import pytest

from mcit_core.data.workbench import Workbench
from tests.golden.text import ACCURACY, CONTENT, FOLDER, LOSSES, PRESETS, golden_text, numbers

LOSS = 2e-3
#: one of the 30 test rows, in percent
ROW = 100 / 30 + 0.01


@pytest.mark.filterwarnings("ignore:stage")  # of spaces that are used up, which is told elsewhere
@pytest.mark.parametrize("preset", PRESETS)
def test_the_numbers_of_a_preset_stand(preset: str, bench: Workbench) -> None:
    wanted, found = (FOLDER / f"{preset}.txt").read_text(), golden_text(preset, bench)
    assert wanted.splitlines()[0] == found.splitlines()[0]
    assert [len(row) for row in numbers(wanted, LOSSES).values()] == [3, 3, 3]
    for heading, tolerance in ((LOSSES, LOSS), (ACCURACY, ROW), (CONTENT, ROW)):
        rows = numbers(wanted, heading)
        assert numbers(found, heading) == {name: pytest.approx(row, abs=tolerance) for name, row in rows.items()}, found
