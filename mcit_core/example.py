"""One row as a model reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Example:
    """`images`: in the order in which the instruction means them, each of any size; empty for text alone."""

    images: tuple[Image, ...]
    instruction: str
