"""What is done to a picture before a model's own processor sees it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image


def fitted(picture: Image.Image, most: int | None) -> Image.Image:
    """In colour, and of at most so many pixels, its shape kept (None: as large as it is)."""
    picture = picture.convert("RGB")
    width, height = picture.size
    if most is None or width * height <= most:
        return picture
    scale = math.sqrt(most / (width * height))
    size = (max(1, math.floor(length * scale)) for length in picture.size)
    return picture.resize((*size,), Image.Resampling.BICUBIC)  # type: ignore[arg-type]


def padded(picture: Image.Image, mean: Sequence[float]) -> Image.Image:
    """On a square of the colour `mean` (0 to 1 a channel), which its processor makes zeros of; in the middle.
    Source: Liu et al., LLaVA-1.5, arXiv 2310.03744, whose released code pads so."""
    side = max(picture.size)
    if picture.size == (side, side):
        return picture
    red, green, blue = (int(255 * part) for part in mean)
    square = Image.new("RGB", (side, side), (red, green, blue))
    square.paste(picture, tuple((side - length) // 2 for length in picture.size))  # type: ignore[arg-type]
    return square
