"""An append-only file of checksummed lines, so that writing down a trial's end costs the same however many ended
before it. A line that a crash or a bad disk left torn is told from a good one, and harms no other."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import JsonValue

from mcit_core.folders import write_atomic

FORMAT = 1


class Journal:
    """Entries (JSON-able mappings) at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, entries: Iterable[Mapping[str, JsonValue]]) -> None:
        """Put these entries in place of all that the file holds. Raises OSError, and the file is then as it was."""
        write_atomic(self.path, b"".join(_line(entry) for entry in entries))

    def append(self, entry: Mapping[str, JsonValue]) -> None:
        """Add an entry; it is on the disk when this returns. Raises OSError."""
        with self.path.open("ab") as file:
            file.write(_line(entry))
            file.flush()
            os.fsync(file.fileno())


def _line(entry: Mapping[str, JsonValue]) -> bytes:
    text = json.dumps({"format": FORMAT, **entry}).encode()
    return b"\n" + _checksum(text) + b" " + text  # the break comes first: it also ends a line that was left torn


def read_journal(path: Path) -> list[dict[str, JsonValue]]:
    """The whole entries of this format, in order; none where there is no file."""
    if not path.exists():
        return []
    entries = []
    for line in path.read_bytes().split(b"\n"):
        checksum, _, text = line.partition(b" ")
        if text and checksum == _checksum(text):
            entry = json.loads(text)
            if entry["format"] == FORMAT:
                entries.append(entry)
    return entries


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:32].encode()
