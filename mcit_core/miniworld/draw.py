"""Pictures of the mini world: 48 x 48 RGB, a 3 x 3 grid of 16-pixel cells, with jitter.

Four kinds: `scene` (shapes), `text` (upper-case letters in one row), `digit` (one or two digits in cells) and `chart`
(bars). A picture knows what is on it, so questions are asked of the picture, never of its pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from mcit_core.example import Example

SIZE, CELL = 48, 16
SHAPES = ("circle", "square", "triangle", "cross", "star", "diamond")
COLOURS = {
    "red": (214, 40, 40),
    "green": (40, 160, 60),
    "blue": (45, 85, 215),
    "yellow": (235, 205, 40),
    "purple": (140, 50, 170),
    "orange": (240, 130, 25),
    "cyan": (40, 195, 210),
    "pink": (245, 130, 185),
}
COLOUR_NAMES = tuple(COLOURS)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Mark:
    """One thing in one cell: a shape, a letter or a digit, with its colour."""

    cell: int  # 0..8, row by row
    what: str  # a shape's name, a letter, or a digit
    colour: str


@dataclass(frozen=True)
class Picture:
    kind: str  # scene | text | digit | chart
    marks: tuple[Mark, ...] = ()
    bars: tuple[tuple[str, int], ...] = ()  # (colour, height 1..9), left to right


@dataclass(frozen=True)
class Look:
    """How a picture is drawn; the pre-training mixture and the tasks never share one."""

    hollow: float = 0.0  # share of shapes drawn as outlines
    stroke: int = 2
    dark: float = 0.5  # share of pictures on a dark background
    fonts: tuple[str, ...] = ()
    handwritten: tuple[int, int] | None = None  # rows of scikit-learn's digits to draw from, or None for fonts


PRETRAINING_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
)
TASK_FONTS = ("STIXGeneralBol", "DejaVuSansMono-Bold", "DejaVuSerif-Italic")


@lru_cache(maxsize=256)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


@lru_cache(maxsize=1)
def handwritten_digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's optical digits: real handwriting. Returns images [1797, 8, 8] in 0..16 and labels [1797]."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return np.asarray(data.images), np.asarray(data.target)


def _jittered(colour: str, rng: np.random.Generator) -> tuple[int, int, int]:
    r, g, b = (int(np.clip(channel + rng.integers(-18, 19), 0, 255)) for channel in COLOURS[colour])
    return r, g, b


def _outline(shape: str, cx: float, cy: float, r: float) -> list[tuple[float, float]]:
    def ring(n: int, start: float, radii: tuple[float, ...]) -> list[tuple[float, float]]:
        return [
            (
                cx + radii[i % len(radii)] * math.cos(start + i * 2 * math.pi / n),
                cy + radii[i % len(radii)] * math.sin(start + i * 2 * math.pi / n),
            )
            for i in range(n)
        ]

    if shape == "circle":
        return ring(24, 0.0, (r,))
    if shape == "square":
        return ring(4, math.pi / 4, (r * 1.2,))
    if shape == "triangle":
        return ring(3, -math.pi / 2, (r * 1.15,))
    if shape == "diamond":
        return [(cx, cy - r * 1.2), (cx + r * 0.75, cy), (cx, cy + r * 1.2), (cx - r * 0.75, cy)]
    if shape == "star":
        return ring(10, -math.pi / 2, (r * 1.2, r * 0.5))
    a, b = r * 1.1, r * 0.4  # cross
    return [
        (cx + x, cy + y)
        for x, y in (
            (-b, -a),
            (b, -a),
            (b, -b),
            (a, -b),
            (a, b),
            (b, b),
            (b, a),
            (-b, a),
            (-b, b),
            (-a, b),
            (-a, -b),
            (-b, -b),
        )
    ]


def _background(rng: np.random.Generator, dark: bool) -> np.ndarray:
    base = rng.integers(8, 45) if dark else rng.integers(215, 250)
    tint = rng.integers(-6, 7, size=3)
    noise = rng.integers(-4, 5, size=(SIZE, SIZE, 3))
    return np.clip(base + tint + noise, 0, 255).astype(np.uint8)


def _paste_digit(
    canvas: Image.Image, glyph: np.ndarray, cell: int, colour: tuple[int, int, int], rng: np.random.Generator
) -> None:
    """Enlarge an 8 x 8 grey glyph (0..1) into its cell and tint it."""
    side = int(rng.integers(14, 17))
    mask = Image.fromarray((np.clip(glyph, 0, 1) * 255).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BILINEAR
    )
    x = cell % 3 * CELL + int(rng.integers(0, CELL - side + 1))
    y = cell // 3 * CELL + int(rng.integers(0, CELL - side + 1))
    canvas.paste(Image.new("RGB", mask.size, colour), (x, y), mask)


def _printed_digit(digit: str, font: str, rng: np.random.Generator) -> np.ndarray:
    """A digit from a font, bent and brought down to 8 x 8 as the handwritten ones are: the skill carries over."""
    big = Image.new("L", (32, 32), 0)
    pen = ImageDraw.Draw(big)
    pen.text(
        (16, 16),
        digit,
        font=_font(font, int(rng.integers(25, 32))),
        fill=255,
        anchor="mm",
        stroke_width=int(rng.integers(0, 2)),
    )
    angle, shear = rng.uniform(-0.22, 0.22), rng.uniform(-0.3, 0.3)
    sx, sy = rng.uniform(0.7, 1.1), rng.uniform(0.85, 1.15)
    ca, sa = math.cos(angle), math.sin(angle)
    a, b, d, e = ca / sx, (sa + shear) / sy, -sa / sx, ca / sy
    big = big.transform(
        (32, 32), Image.Transform.AFFINE, (a, b, 16 - 16 * (a + b), d, e, 16 - 16 * (d + e)), Image.Resampling.BILINEAR
    )
    small = np.asarray(big.filter(ImageFilter.BoxBlur(1)).resize((8, 8), Image.Resampling.BOX), dtype=np.float32) / 255
    return small * rng.uniform(1.0, 1.5)


def draw(picture: Picture, look: Look, rng: np.random.Generator) -> np.ndarray:
    """Render `picture` in `look`. Returns uint8 [48, 48, 3]."""
    dark = bool(rng.random() < look.dark)
    canvas = Image.fromarray(_background(rng, dark))
    pen = ImageDraw.Draw(canvas)
    if picture.kind == "chart":
        n = len(picture.bars)
        slot = SIZE / n
        for i, (hue, height) in enumerate(picture.bars):
            width = slot * rng.uniform(0.55, 0.8)
            x = i * slot + (slot - width) / 2
            box = (x, SIZE - 2 - height * 4.8, x + width, SIZE - 2)
            if rng.random() < look.hollow:
                pen.rectangle(box, outline=_jittered(hue, rng), width=look.stroke)
            else:
                pen.rectangle(box, fill=_jittered(hue, rng))
        pen.line((0, SIZE - 2, SIZE, SIZE - 2), fill=(200, 200, 200) if dark else (60, 60, 60))
        return np.asarray(canvas)
    font = look.fonts[int(rng.integers(len(look.fonts)))] if look.fonts else ""
    for mark in picture.marks:
        cx = mark.cell % 3 * CELL + CELL / 2 + rng.uniform(-1.3, 1.3)
        cy = mark.cell // 3 * CELL + CELL / 2 + rng.uniform(-1.3, 1.3)
        colour = _jittered(mark.colour, rng)
        if picture.kind == "scene":
            outline = _outline(mark.what, cx, cy, rng.uniform(4.8, 6.2))
            if rng.random() < look.hollow:
                pen.line([*outline, outline[0], outline[1]], fill=colour, width=look.stroke, joint="curve")
            else:
                pen.polygon(outline, fill=colour)
        elif picture.kind == "text":
            pen.text((cx, cy), mark.what, font=_font(font, int(rng.integers(14, 17))), fill=colour, anchor="mm")
        elif look.handwritten is not None:
            images, labels = handwritten_digits()
            low, high = look.handwritten
            rows = np.flatnonzero(labels[low:high] == int(mark.what)) + low
            _paste_digit(canvas, images[int(rng.choice(rows))] / 16, mark.cell, colour, rng)
        else:
            _paste_digit(canvas, _printed_digit(mark.what, font, rng), mark.cell, colour, rng)
    return np.asarray(canvas)


def random_picture(kind: str, rng: np.random.Generator, *, word: str | None = None, most: int = 4) -> Picture:
    """A random picture of `kind`; `word` is what a text picture shows, `most` bounds the marks of a scene."""
    if kind == "scene":
        n = int(rng.integers(1, most + 1))
        cells = rng.choice(9, size=n, replace=False)
        return Picture(
            kind,
            tuple(
                sorted(
                    (Mark(int(c), SHAPES[int(rng.integers(6))], COLOUR_NAMES[int(rng.integers(8))]) for c in cells),
                    key=lambda m: m.cell,
                )
            ),
        )
    if kind == "text":
        assert word
        row = int(rng.integers(3))
        start = int(rng.integers(0, 4 - len(word)))
        colour = COLOUR_NAMES[int(rng.integers(8))]
        return Picture(kind, tuple(Mark(row * 3 + start + i, ch, colour) for i, ch in enumerate(word)))
    if kind == "digit":
        n = int(rng.integers(1, 3))
        places = sorted(int(c) for c in rng.choice(9, size=n, replace=False))
        digits = rng.choice(10, size=n, replace=False)
        return Picture(
            kind,
            tuple(
                Mark(c, str(int(d)), COLOUR_NAMES[int(rng.integers(8))]) for c, d in zip(places, digits, strict=True)
            ),
        )
    n = int(rng.integers(2, 6))
    hues = rng.choice(8, size=n, replace=False)
    heights = rng.choice(np.arange(1, 10), size=n, replace=False)
    return Picture("chart", bars=tuple((COLOUR_NAMES[int(c)], int(h)) for c, h in zip(hues, heights, strict=True)))


def as_example(row: Mapping[str, Any]) -> Example:
    """Of a row whose picture is kept as its pixels' bytes."""
    return Example((Image.frombytes("RGB", (SIZE, SIZE), row["images"][0]),), row["instruction"])
