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
    """Digest of the syntax tree of an importable module, for parts that a third party registered."""
    found = find_spec(module)
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        return "unknown"
    return digest(_tree(Path(found.origin)))
