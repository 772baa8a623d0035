"""Making features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mcit_core.data.workbench import Workbench
from mcit_core.models.mini import MiniModel


@pytest.mark.parametrize("how", ["opened", "prepared"])
def test_features_are_made_on_one_thread_and_leave_the_number_as_it_was(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else a trial's processes, of which one makes them, would go on with different last bits."""
    few = {"kind": "mini", "train_rows": 8, "validation_rows": 8, "test_rows": 8}
    bench = Workbench(few, "tiny", "cpu", tmp_path)
    seen: list[int] = []
    make = MiniModel.columns
    monkeypatch.setattr(MiniModel, "columns", lambda *given: (seen.append(torch.get_num_threads()), make(*given))[1])
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        if how == "opened":
            bench.rows("ground", "train")
        else:
            bench.prepare(("ground",))
        assert {*seen} == {1}
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
