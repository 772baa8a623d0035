"""Presets still give the numbers that they gave: three tasks of three steps, against tests/golden/<preset>.txt.

After a change that is meant to change numbers, `python -m tests.golden` writes the files anew; say why in the commit.
Kinds of CPU and releases of torch differ in the last bits, and training makes more of them at every step
(docs/findings.md, "The kind of CPU"): a loss may differ by LOSS and an accuracy by one test row where the second stage
begins as it did when the file was written; elsewhere that holds for the losses of the first stage and the accuracies of
the untouched model alone, and BEGINS for how the second stage begins.
"""

from __future__ import annotations

import pytest

from mcit_core.data.workbench import Workbench
from tests.golden.text import ACCURACY, CONTENT, FOLDER, LOSSES, ORDER, PRESETS, golden_text, numbers

LOSS = 2e-3
#: of the second stage's first loss; and how near it is on a machine that calculates alike
BEGINS, ALIKE = 0.1, 2e-6
#: one of the 30 test rows, in percent
ROW = 100 / 30 + 0.01


@pytest.mark.filterwarnings("ignore:stage")  # of spaces that are used up, which is told elsewhere
@pytest.mark.parametrize("preset", PRESETS)
def test_the_numbers_of_a_preset_stand(preset: str, bench: Workbench) -> None:
    wanted, found = (FOLDER / f"{preset}.txt").read_text(), golden_text(preset, bench)
    assert wanted.splitlines()[0] == found.splitlines()[0]
    assert [len(row) for row in numbers(wanted, LOSSES).values()] == [3, 3, 3]
    first, second = ORDER[:2]
    begins, began = (numbers(text, LOSSES)[second][0] for text in (found, wanted))
    assert begins == pytest.approx(began, abs=BEGINS)
    alike = abs(begins - began) < ALIKE
    for heading, tolerance in ((LOSSES, LOSS), (ACCURACY, ROW), (CONTENT, ROW)):
        rows, shown = numbers(wanted, heading), numbers(found, heading)
        assert rows.keys() == shown.keys()
        for name in rows if alike else [first if heading == LOSSES else "untouched"]:
            assert shown[name] == pytest.approx(rows[name], abs=tolerance), found
