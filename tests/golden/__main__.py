"""Write the golden files anew: `python -m tests.golden`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mcit_core.data.workbench import Workbench
from tests.golden.text import FOLDER, PRESETS, golden_text
from tests.support.places import reach_plugin


def main() -> None:
    reach_plugin()
    with tempfile.TemporaryDirectory() as features:
        bench = Workbench("tiny", "tiny", "cpu", Path(features))
        for preset in PRESETS:
            (FOLDER / f"{preset}.txt").write_text(golden_text(preset, bench))


if __name__ == "__main__":
    main()
