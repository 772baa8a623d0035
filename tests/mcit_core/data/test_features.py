"""Making features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mcit_core.data.workbench import Workbench


@pytest.mark.parametrize("how", ["opened", "prepared"])
def test_making_features_leaves_the_number_of_threads_as_it_was(how: str, tmp_path: Path) -> None:
    """Or else a trial's processes, of which one makes them, would go on with different last bits."""
    few = {"kind": "mini", "train_rows": 8, "validation_rows": 8, "test_rows": 8}
    bench = Workbench(few, "tiny", "cpu", tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        if how == "opened":
            bench.rows("ground", "train")
        else:
            bench.prepare(("ground",))
        assert [*tmp_path.rglob("*.arrow")]
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
