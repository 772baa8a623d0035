"""Digests of JSON-able values and fingerprints of code; imports nothing heavy."""

from __future__ import annotations

import ast
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any


def digest(value: Any) -> str:
    """SHA-256 of a JSON-able value; equal values have equal digests."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@cache
def code_fingerprint(*parts: str) -> str:
    """Digest of the syntax trees of `parts` (files or folders of this package): comments and layout do not matter."""
    root = Path(__file__).parent
    files = sorted(
        {
            file
            for part in parts or (".",)
            for file in ((root / part).rglob("*.py") if (root / part).is_dir() else [root / part])
        }
    )
    return digest(
        [[file.relative_to(root).as_posix(), ast.dump(ast.parse(file.read_text(encoding="utf-8")))] for file in files]
    )
