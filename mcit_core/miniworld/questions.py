"""Questions that can be asked of a picture, each with its content; the wording is the caller's."""

from __future__ import annotations

import numpy as np

from mcit_core.miniworld.draw import COLOUR_NAMES, SHAPES, Picture
from mcit_core.miniworld.language import Content

#: picture kind -> question kinds
QUESTIONS = {
    "scene": ("colour_of", "shape_of", "count", "exists", "where", "describe"),
    "text": ("read",),
    "digit": ("which_digit", "larger", "where_digit"),
    "chart": ("tallest", "shortest", "count_bars", "taller"),
}


def ask(question: str, picture: Picture, rng: np.random.Generator) -> tuple[dict[str, str], Content] | None:
    """The words that fill the question's template, and its content; None where the picture admits no such question."""
    marks = picture.marks
    if question in ("colour_of", "where"):
        unique = [m for m in marks if sum(n.what == m.what for n in marks) == 1]
        if not unique:
            return None
        mark = unique[int(rng.integers(len(unique)))]
        words = {"shape": mark.what}
        return words, Content("colour", mark.colour) if question == "colour_of" else Content("place", mark.cell)
    if question == "shape_of":
        unique = [m for m in marks if sum(n.colour == m.colour for n in marks) == 1]
        if not unique:
            return None
        mark = unique[int(rng.integers(len(unique)))]
        return {"colour": mark.colour}, Content("shape", mark.what)
    if question == "count":
        return {}, Content("number", len(marks))
    if question == "exists":
        mark = marks[int(rng.integers(len(marks)))]
        colour, shape = mark.colour, mark.what
        if rng.random() < 0.5:  # half of the questions are of something absent
            if rng.random() < 0.5:
                colour = COLOUR_NAMES[int(rng.integers(8))]
            else:
                shape = SHAPES[int(rng.integers(6))]
        return {"colour": colour, "shape": shape}, Content(
            "boolean", any((m.colour, m.what) == (colour, shape) for m in marks)
        )
    if question == "describe":
        if len(marks) > 2:
            return None
        return {}, Content("objects", tuple((m.colour, m.what) for m in marks))
    if question == "read":
        return {}, Content("word", "".join(m.what for m in marks))
    if question == "which_digit":
        if len(marks) != 1:
            return None
        return {}, Content("digit", int(marks[0].what))
    if question == "larger":
        if len(marks) != 2:
            return None
        return {}, Content("digit", max(int(m.what) for m in marks))
    if question == "where_digit":
        mark = marks[int(rng.integers(len(marks)))]
        return {"digit": mark.what}, Content("place", mark.cell)
    bars = picture.bars
    if question in ("tallest", "shortest"):
        pick = max if question == "tallest" else min
        return {}, Content("colour", pick(bars, key=lambda bar: bar[1])[0])
    if question == "count_bars":
        return {}, Content("number", len(bars))
    i, j = (int(k) for k in rng.choice(len(bars), size=2, replace=False))
    return {"colour": bars[i][0], "other": bars[j][0]}, Content("boolean", bars[i][1] > bars[j][1])
