"""The embedded model's pre-training mixture: every question in every style, the style named unless it is the default.

Disjoint from the benchmark's tasks in look (filled shapes or light backgrounds, other fonts, printed digits), in
wording, and in the words to read (`is_task_word`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mcit_core.miniworld.draw import LETTERS, PRETRAINING_FONTS, Look, Picture, draw, random_picture
from mcit_core.miniworld.language import STYLES, Content, write
from mcit_core.miniworld.questions import QUESTIONS, ask

WORDINGS: dict[str, tuple[str, ...]] = {
    "colour_of": (
        "what color is the {shape} ?",
        "which color does the {shape} have ?",
        "name the color of the {shape} .",
    ),
    "shape_of": ("what shape is {colour} ?", "which shape is the {colour} one ?", "name the {colour} shape ."),
    "count": ("how many shapes are there ?", "count the shapes .", "what is the number of shapes in the picture ?"),
    "exists": (
        "is there a {colour} {shape} ?",
        "does the picture show a {colour} {shape} ?",
        "can you see a {colour} {shape} ?",
    ),
    "where": ("where is the {shape} ?", "in which place is the {shape} ?", "find the {shape} ."),
    "describe": ("describe the picture .", "what do you see ?", "what is in the picture ?"),
    "read": ("read the word .", "what does the text say ?", "which word is written here ?"),
    "which_digit": ("which digit is this ?", "what digit do you see ?", "read the digit ."),
    "larger": ("which digit is larger ?", "name the larger of the two digits .", "what is the larger digit ?"),
    "where_digit": ("where is the digit {digit} ?", "find the {digit} .", "in which place is the {digit} ?"),
    "tallest": ("which bar is the tallest ?", "what color is the tallest bar ?", "name the color of the tallest bar ."),
    "shortest": (
        "which bar is the shortest ?",
        "what color is the shortest bar ?",
        "name the color of the shortest bar .",
    ),
    "count_bars": ("how many bars are there ?", "count the bars .", "what is the number of bars in the chart ?"),
    "taller": (
        "is the {colour} bar taller than the {other} bar ?",
        "is {colour} taller than {other} ?",
        "does the {colour} bar rise above the {other} one ?",
    ),
}
STYLE_REQUESTS: dict[str, tuple[str, ...]] = {
    "sentence": ("answer in a sentence .", "use a full sentence ."),
    "capitals": ("use capitals .", "answer in capital letters ."),
    "roman": ("use roman numerals .", "answer in roman numerals ."),
    "digits": ("use digits .", "answer with a digit ."),
    "truth": ("say true or false .", "answer true or false ."),
    "correct": ("say correct or wrong .", "answer correct or wrong ."),
    "grid": ("use the grid .", "answer with the grid square ."),
    "spelled": ("spell it .", "answer letter by letter ."),
}
LOOKS = {
    "scene": (Look(hollow=0.0, dark=0.5), Look(hollow=1.0, stroke=2, dark=0.0)),
    "text": (Look(dark=0.4, fonts=PRETRAINING_FONTS),),
    "digit": (Look(dark=0.5, fonts=PRETRAINING_FONTS),),
    "chart": (Look(dark=0.5), Look(hollow=1.0, dark=0.0)),
}
DEFAULT_SHARE = 0.4


@dataclass(frozen=True)
class Example:
    instruction: str
    answer: str
    content: Content
    style: str


def is_task_word(word: str) -> bool:
    """One word in five belongs to the tasks, by the sum of its letters; the mixture never shows it."""
    return sum(LETTERS.index(ch) for ch in word) % 5 == 0


def random_word(rng: np.random.Generator, *, for_tasks: bool) -> str:
    while True:
        word = "".join(LETTERS[int(i)] for i in rng.integers(26, size=int(rng.integers(1, 4))))
        if is_task_word(word) == for_tasks:
            return word


def mixture_picture(rng: np.random.Generator) -> tuple[Picture, np.ndarray]:
    """A picture of the mixture and its pixels, uint8 [48, 48, 3]."""
    kind = ("scene", "scene", "text", "digit", "chart")[int(rng.integers(5))]
    picture = random_picture(kind, rng, word=random_word(rng, for_tasks=False) if kind == "text" else None)
    looks = LOOKS[kind]
    return picture, draw(picture, looks[int(rng.integers(len(looks)))], rng)


def mixture_example(picture: Picture, rng: np.random.Generator) -> Example:
    """A question about `picture`, its style named unless it is the default of its kind."""
    while True:
        kinds = QUESTIONS[picture.kind]
        question = kinds[int(rng.integers(len(kinds)))]
        asked = ask(question, picture, rng)
        if asked is None:
            continue
        words, content = asked
        styles = STYLES[content.kind]
        style = styles[0] if rng.random() < DEFAULT_SHARE else styles[int(rng.integers(1, len(styles)))]
        wordings = WORDINGS[question]
        instruction = wordings[int(rng.integers(len(wordings)))].format(**words)
        if style != styles[0]:
            requests = STYLE_REQUESTS[style]
            instruction += " " + requests[int(rng.integers(len(requests)))]
        return Example(instruction, write(content, style), content, style)
