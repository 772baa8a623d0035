"""Answers of the mini world: one content, many demanded styles, and the way back from an answer to its content.

A `Content` is (kind, value). `write` renders it in a style; `read` maps an answer of ANY style back to a comparable
value, which is what content accuracy compares ("ii", "2" and "two" are one value).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mcit_core.miniworld.draw import COLOUR_NAMES, SHAPES

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ROMAN = ("", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix")
PLACES = (
    "top left",
    "top middle",
    "top right",
    "middle left",
    "center",
    "middle right",
    "bottom left",
    "bottom middle",
    "bottom right",
)
GRID = tuple(f"{row}{column}" for row in "abc" for column in "123")
BOOLEAN = {"plain": ("no", "yes"), "truth": ("false", "true"), "correct": ("wrong", "correct")}

#: content kind -> the styles it can be written in; the first is the default, used where no style is named.
STYLES = {
    "colour": ("plain", "sentence", "capitals"),
    "shape": ("plain", "sentence", "capitals"),
    "number": ("plain", "roman", "digits"),
    "digit": ("plain", "digits"),
    "boolean": ("plain", "truth", "correct"),
    "place": ("plain", "grid"),
    "objects": ("plain", "sentence"),
    "word": ("plain", "capitals", "spelled"),
}


@dataclass(frozen=True)
class Content:
    kind: str
    value: object


def write(content: Content, style: str) -> str:
    """The answer that says `content` in `style`. Raises ValueError where the kind has no such style."""
    kind, value = content.kind, content.value
    if style not in STYLES[kind]:
        raise ValueError(f"{kind} has no style {style!r}; it has {STYLES[kind]}")
    if kind in ("colour", "shape"):
        word = str(value)
        return {"plain": word, "sentence": f"it is {word}", "capitals": word.upper()}[style]
    if kind in ("number", "digit"):
        assert isinstance(value, int)
        return {"plain": NUMBER_WORDS[value], "roman": ROMAN[value], "digits": str(value)}[style]
    if kind == "boolean":
        return BOOLEAN[style][bool(value)]
    if kind == "place":
        assert isinstance(value, int)
        return PLACES[value] if style == "plain" else GRID[value]
    if kind == "word":
        word = str(value)
        return {"plain": word.lower(), "capitals": word.upper(), "spelled": " - ".join(word.lower())}[style]
    assert isinstance(value, tuple)
    parts = [f"{colour} {shape}" for colour, shape in value]
    return ", ".join(parts) if style == "plain" else "there is " + " and ".join(f"a {part}" for part in parts)


_NUMBERS = {
    **{word: i for i, word in enumerate(NUMBER_WORDS)},
    **{r: i for i, r in enumerate(ROMAN) if r},
    **{str(i): i for i in range(10)},
}
_BOOLEANS = {word: bool(i) for pair in BOOLEAN.values() for i, word in enumerate(pair)}
_PLACES = {**{word: i for i, word in enumerate(PLACES)}, **{word: i for i, word in enumerate(GRID)}}


def read(answer: str, kind: str) -> object | None:
    """The content of `answer`, whatever its style; None where it says nothing of that kind."""
    text = " ".join(answer.lower().split())
    bare = text.removeprefix("it is ").strip()
    if kind == "colour":
        return bare if bare in COLOUR_NAMES else None
    if kind == "shape":
        return bare if bare in SHAPES else None
    if kind in ("number", "digit"):
        return _NUMBERS.get(bare)
    if kind == "boolean":
        return _BOOLEANS.get(bare)
    if kind == "place":
        return _PLACES.get(bare)
    if kind == "word":
        letters = re.sub(r"[^a-z]", "", bare)
        return letters or None
    pairs = re.findall(rf"({'|'.join(COLOUR_NAMES)}) ({'|'.join(SHAPES)})", text)
    return tuple(sorted(pairs)) or None  # a list of objects says the same in any order


def normalise(answer: str) -> str:
    """White space folded, no space before a comma; case is kept, since a style may demand it."""
    return " ".join(answer.split()).replace(" ,", ",")
