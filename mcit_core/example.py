"""One row as a model reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Example:
    """`images`: in the order in which the instruction means them, each of any size; empty for text alone. `history`: of
    a conversation, the questions and answers before this one, oldest first; the images belong to the first question."""

    images: tuple[Image, ...]
    instruction: str
    history: tuple[tuple[str, str], ...] = ()
