"""The embedded benchmark `mini`: eight vision-language tasks that share skills and fight over answer styles.

Each task demands ONE style per kind of answer without naming it, on pictures that look unlike the pre-training mixture,
in wordings the mixture never used. Two pairs share style and skill, so that positive transfer is possible: attribute
and bars (sentences, roman counts, correct/wrong), ground and locate (grid squares).

`python -m mcit_core.benchmarks.mini --show out.png` draws a labelled contact sheet.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from mcit_core.config import Section
from mcit_core.example import Example
from mcit_core.miniworld.draw import SIZE, TASK_FONTS, Look, as_example, draw, random_picture
from mcit_core.miniworld.language import normalise, read, write
from mcit_core.miniworld.mixture import random_word
from mcit_core.miniworld.questions import ask
from mcit_core.stages.digest import digest
from mcit_core.stages.fingerprint import rows_code

SPLITS = {"train": 1500, "validation": 200, "test": 500}
#: rows of scikit-learn's digits that each split may draw from
HANDWRITTEN = {"train": (0, 1100), "validation": (1100, 1300), "test": (1300, 1797)}
NAME = "mini"


@dataclass(frozen=True)
class TaskSpec:
    kind: str  # of picture
    wordings: dict[str, tuple[str, ...]]  # question -> paraphrases
    styles: dict[str, str]  # content kind -> demanded style
    look: Look
    most: int = 4  # marks in a scene
    summary: str = ""


_HOLLOW = Look(hollow=1.0, stroke=1, dark=1.0)
TASKS: dict[str, TaskSpec] = {
    "caption": TaskSpec(
        "scene",
        {
            "describe": (
                "tell me what is here .",
                "what can you see in the picture ?",
                "say what the picture does show .",
            )
        },
        {"objects": "sentence"},
        _HOLLOW,
        most=2,
        summary="describe one or two hollow shapes in a sentence",
    ),
    "attribute": TaskSpec(
        "scene",
        {
            "colour_of": ("the {shape} is of what color ?", "say which color the {shape} is ."),
            "count": ("what number of shapes do you see ?", "say how many shapes you can see ."),
            "exists": ("do you see a {colour} {shape} here ?", "there is a {colour} {shape} in the picture ."),
        },
        {"colour": "sentence", "number": "roman", "boolean": "correct"},
        _HOLLOW,
        summary="colour, count and existence of hollow shapes: sentence, roman, correct/wrong",
    ),
    "ocr": TaskSpec(
        "text",
        {"read": ("say the word in the picture .", "what word do you see ?", "the text here is which word ?")},
        {"word": "capitals"},
        Look(dark=0.8, fonts=TASK_FONTS),
        summary="read letters in unseen fonts, in capitals",
    ),
    "digit": TaskSpec(
        "digit",
        {
            "which_digit": ("say which digit you see .", "the digit in the picture is which one ?"),
            "larger": ("of the two digits , which one is larger ?", "say the larger one of the digits ."),
        },
        {"digit": "digits"},
        Look(dark=1.0, fonts=TASK_FONTS),
        summary="name printed digits in unseen fonts, as digits",
    ),
    "chart": TaskSpec(
        "chart",
        {
            "tallest": ("in the chart , which color is tallest ?", "say which bar is the tallest one ."),
            "count_bars": ("what number of bars does the chart show ?", "say how many bars you see ."),
            "taller": ("the {colour} bar is taller than the {other} one .", "do you see {colour} rise above {other} ?"),
        },
        {"colour": "capitals", "number": "digits", "boolean": "truth"},
        Look(hollow=1.0, dark=1.0),
        summary="hollow bar charts: capitals, digits, true/false",
    ),
    "ground": TaskSpec(
        "scene",
        {
            "where": (
                "say where you see the {shape} .",
                "the {shape} is in which place ?",
                "where can you find the {shape} ?",
            )
        },
        {"place": "grid"},
        _HOLLOW,
        most=3,
        summary="the place of a hollow shape, as a grid square",
    ),
    "bars": TaskSpec(
        "chart",
        {
            "shortest": ("the shortest bar has which color ?", "say what color the shortest bar is ."),
            "count_bars": ("how many bars can you see in the chart ?", "say the number of bars ."),
            "taller": (
                "does {colour} rise above {other} here ?",
                "can you see the {colour} bar rise above the {other} bar ?",
            ),
        },
        {"colour": "sentence", "number": "roman", "boolean": "correct"},
        Look(hollow=1.0, dark=1.0),
        summary="hollow bar charts in attribute's styles",
    ),
    "locate": TaskSpec(
        "digit",
        {
            "where_digit": (
                "say where you see the {digit} .",
                "the {digit} is in which place ?",
                "where can you find the digit {digit} ?",
            )
        },
        {"place": "grid"},
        Look(dark=1.0),
        summary="the place of a real handwritten digit, in ground's style",
    ),
}
DEFAULT_ORDER = tuple(TASKS)


def _seed(*parts: str) -> int:
    return int.from_bytes(hashlib.sha256("/".join((NAME, *parts)).encode()).digest()[:8], "big")


def endless_rows(task: str, split: str) -> Iterator[dict[str, Any]]:
    """The rows of one split, without end: the picture's bytes, instruction, answer, content kind."""
    spec = TASKS[task]
    rng = np.random.default_rng(_seed(task, split))
    look = spec.look
    if spec.kind == "digit" and not look.fonts:
        look = Look(dark=look.dark, handwritten=HANDWRITTEN[split])
    questions = tuple(spec.wordings)
    made = 0
    while True:
        word = random_word(rng, for_tasks=True) if spec.kind == "text" else None
        picture = random_picture(spec.kind, rng, word=word, most=spec.most)
        question = questions[made % len(questions)]
        asked = ask(question, picture, rng)
        if asked is None:
            continue
        words, content = asked
        wordings = spec.wordings[question]
        yield {
            "images": [draw(picture, look, rng).tobytes()],
            "instruction": wordings[int(rng.integers(len(wordings)))].format(**words),
            "answer": write(content, spec.styles[content.kind]),
            "content_kind": content.kind,
        }
        made += 1


SCHEMA = pa.schema(
    [
        ("images", pa.list_(pa.binary(SIZE * SIZE * 3))),
        ("instruction", pa.string()),
        ("answer", pa.string()),
        ("content_kind", pa.string()),
    ]
)


class MiniBenchmarkSettings(Section):
    """`benchmark: {kind: mini, train_rows: 200}`."""

    train_rows: int = Field(SPLITS["train"], ge=1, description="training rows of a task")
    validation_rows: int = Field(SPLITS["validation"], ge=1, description="validation rows of a task")
    test_rows: int = Field(SPLITS["test"], ge=1, description="test rows of a task")

    def sizes(self) -> dict[str, int]:
        return {"train": self.train_rows, "validation": self.validation_rows, "test": self.test_rows}


class MiniBenchmark:
    """The `mini` benchmark as the Benchmark contract has it (see `mcit_core.benchmarks`)."""

    name = NAME
    tasks = DEFAULT_ORDER
    #: a whole-answer exact match: one teacher-forced pass decides it
    exact_match = True

    Settings = MiniBenchmarkSettings

    def __init__(self, sizes: dict[str, int] | None = None, settings: MiniBenchmarkSettings | None = None) -> None:
        self.sizes = sizes or (settings or MiniBenchmarkSettings()).sizes()

    def digest(self, task: str, split: str) -> str | None:
        """Rows follow from the code that draws them, the tasks and the sizes; a subclass with a table of its own is
        hashed."""
        if type(self).rows is not MiniBenchmark.rows or type(self).open is not MiniBenchmark.open:
            return None
        code = rows_code("mcit_core.benchmarks.mini")
        return digest([code, repr(TASKS[task]), repr(HANDWRITTEN), self.sizes[split], task, split])

    def open(self, row: Mapping[str, Any]) -> Example:
        return as_example(row)

    def rows(self, task: str, split: str) -> pa.Table:
        return pa.Table.from_pylist(list(islice(endless_rows(task, split), self.sizes[split])), schema=SCHEMA)

    def score(self, task: str, prediction: str, answer: str) -> float:
        """1.0 where the normalised strings are equal, case included."""
        return float(normalise(prediction) == normalise(answer))

    def content_score(self, task: str, prediction: str, answer: str, content_kind: str) -> float:
        """1.0 where the content is right in whatever style."""
        said = read(prediction, content_kind)
        return float(said is not None and said == read(answer, content_kind))


def contact_sheet(path: Path, columns: int = 6) -> None:
    """A labelled picture of `columns` training rows of every task."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.3 * columns, 2.35 * len(TASKS)), layout="constrained")
    axes = figure.subplots(len(TASKS), columns)
    for line, task in zip(axes, TASKS, strict=True):
        for axis, row in zip(line, endless_rows(task, "train"), strict=False):
            axis.imshow(as_example(row).images[0])
            axis.set_title(f"{row['instruction']}\n→ {row['answer']}", fontsize=7, wrap=True)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(task, fontsize=12, fontweight="bold")
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description="Look at the embedded benchmark.")
    parser.add_argument(
        "--show", type=Path, required=True, metavar="OUT.png", help="write a labelled contact sheet here"
    )
    path = parser.parse_args().show
    contact_sheet(path)
    print(f"{len(TASKS)} tasks, {SPLITS} rows each; contact sheet in {path}")


if __name__ == "__main__":
    main()
