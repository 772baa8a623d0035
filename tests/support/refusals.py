"""What a refusal of a file has to say, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def assert_names_place(message: str, path: Path, line: int, fragments: Sequence[str]) -> None:
    """One line, which begins with file and line and holds every fragment."""
    assert message.startswith(f"{path}:{line}: "), message
    assert len(message.splitlines()) == 1, message
    for fragment in fragments:
        assert fragment in message, message
