"""Where things are, and the tests' plugin within reach of this process and its children."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PLUGIN = Path(__file__).parent / "plugin"
FORMATS = ROOT / "tests" / "formats"


def reach_plugin() -> None:
    """Workers and child processes find the plugin, and this tree, the same way."""
    sys.path.insert(0, str(PLUGIN))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PLUGIN), str(ROOT), os.environ.get("PYTHONPATH", "")])
