"""Digests of JSON-able values; imports nothing heavy."""

from __future__ import annotations

import hashlib
import json


def digest(value: object) -> str:
    """SHA-256 of a JSON-able value; equal values have equal digests."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
