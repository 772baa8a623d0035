"""The scripts in examples/, as modules."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from tests.support.places import ROOT


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
