"""Digests of JSON-able values and fingerprints of code; imports nothing heavy."""

from __future__ import annotations

import ast
import hashlib
import json
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def digest(value: Any) -> str:
    """SHA-256 of a JSON-able value; equal values have equal digests."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _tree(path: Path) -> str:
    return ast.dump(ast.parse(path.read_text(encoding="utf-8")))


@cache
def code_fingerprint(*parts: str, leaving_out: tuple[str, ...] = ()) -> str:
    """Digest of the syntax trees of `parts` (files or folders of this package; none: all of it), but for those in
    `leaving_out`: comments and layout do not matter."""
    root = Path(__file__).parent

    def files(names: tuple[str, ...]) -> set[Path]:
        return {f for name in names for f in ((root / name).rglob("*.py") if (root / name).is_dir() else [root / name])}

    chosen = sorted(files(parts or (".",)) - files(leaving_out))
    return digest([[file.relative_to(root).as_posix(), _tree(file)] for file in chosen])


def installed(package: str) -> str:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@cache
def module_fingerprint(module: str) -> str:
    """Digest of the syntax trees of a third party's module, and of all else in its package where it is in one."""
    found = find_spec(module.partition(".")[0])
    if found is None:
        return "unknown"
    roots = [Path(place) for place in found.submodule_search_locations or []]
    files = sorted(file for root in roots for file in root.rglob("*.py"))
    if not roots and found.origin and found.origin.endswith(".py"):
        files = [Path(found.origin)]
    return digest([[file.name, _tree(file)] for file in files]) if files else "unknown"
