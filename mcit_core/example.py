"""One row as a model reads it."""

from __future__ import annotations

from dataclasses import dataclass

from PIL.Image import DecompressionBombError, Image
from PIL.Image import open as open_picture


@dataclass(frozen=True)
class Example:
    """`images`: in the order in which the instruction means them, each of any size; empty for text alone. `history`: of
    a conversation, the questions and answers before this one, oldest first; the images belong to the first question."""

    images: tuple[Image, ...]
    instruction: str
    history: tuple[tuple[str, str], ...] = ()


def read_picture(path: str) -> Image:
    """A file in colour, of an animation the first frame. Raises ValueError that names one that cannot be read."""
    try:
        with open_picture(path) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, DecompressionBombError) as error:  # of a damaged PNG a SyntaxError
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error
