"""`benchmark: easy_vqa`: the public easy-VQA data (Victor Zhou, 2019, MIT), which `pip install '.[smol]'` installs.

5,000 pictures of 64 x 64 with one shape each and 48,248 questions, with a test split that nobody here drew. It comes as
one data set; here its questions are six tasks by what they are about (the shape or its colour) and how they ask (by
name, for its presence, for its absence). The pictures from number 3,600 on of its training split are for validation,
with all their questions. An answer is right where it is the published one to the letter.
"""

from __future__ import annotations

import importlib.util
import io
import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import Field

from mcit_core.config import Section
from mcit_core.example import Example

NAME = "easy_vqa"
SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
BOOLEANS = ("yes", "no")
#: in their default order
TASKS = ("shape", "colour", "has_shape", "has_colour", "lacks_shape", "lacks_colour")
#: of the training split's 4,000 pictures, the first that is for validation
VALIDATION_FROM = 3600
SCHEMA = pa.schema(
    {"images": pa.list_(pa.binary()), "instruction": pa.string(), "answer": pa.string(), "content_kind": pa.string()}
)


class EasyVqaSettings(Section):
    """`benchmark: {kind: easy_vqa, test_rows: 300}`: the first so many rows of each task in an order that is drawn once
    for all."""

    train_rows: int | None = Field(None, ge=1, description="training rows of a task; null: all")
    validation_rows: int | None = Field(200, ge=1, description="validation rows of a task; null: all")
    test_rows: int | None = Field(None, ge=1, description="test rows of a task; null: all")


def task_of(question: str, answer: str) -> str:
    """By what it asks for. The data has 107 different questions."""
    if answer in SHAPES:
        return "shape"
    if answer in COLOURS:
        return "colour"
    words = question.rstrip("?").split()
    how = "lacks" if {"not", "no"} & {*words} else "has"
    return f"{how}_shape" if {*SHAPES} & {*words} else f"{how}_colour"


class EasyVqaBenchmark:
    """The Benchmark contract (see `mcit_core.benchmarks`) on the installed package easy-vqa."""

    name = NAME
    tasks = TASKS
    exact_match = True
    Settings = EasyVqaSettings

    def __init__(self, settings: EasyVqaSettings | None = None) -> None:
        """Raises ModuleNotFoundError where the package is missing."""
        self.settings = settings or EasyVqaSettings()
        found = importlib.util.find_spec("easy_vqa")
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError("benchmark easy_vqa needs the package easy-vqa: `pip install '.[smol]'`")
        self._folder = Path(found.submodule_search_locations[0]) / "data"

    @cached_property
    def _questions(self) -> dict[tuple[str, str], list[tuple[str, str, Path]]]:
        """(task, split) -> question, answer and picture of its rows, in their drawn order."""
        found: dict[tuple[str, str], list[tuple[str, str, Path]]] = {
            (task, split): [] for task in TASKS for split in ("train", "validation", "test")
        }
        for part in ("train", "test"):
            told = json.loads((self._folder / part / "questions.json").read_text(encoding="utf-8"))
            for i in np.random.default_rng(0).permutation(len(told)):
                question, answer, picture = told[i]
                split = "validation" if part == "train" and picture >= VALIDATION_FROM else part
                path = self._folder / part / "images" / f"{picture}.png"
                found[task_of(question, answer), split].append((question, answer, path))
        return found

    def rows(self, task: str, split: str) -> pa.Table:
        most = getattr(self.settings, f"{split}_rows")
        return pa.Table.from_pylist(
            [
                {
                    "images": [path.read_bytes()],
                    "instruction": question,
                    "answer": answer,
                    "content_kind": task if answer not in BOOLEANS else "boolean",
                }
                for question, answer, path in self._questions[task, split][:most]
            ],
            schema=SCHEMA,
        )

    def open(self, row: Mapping[str, Any]) -> Example:
        with Image.open(io.BytesIO(row["images"][0])) as picture:
            return Example((picture.convert("RGB"),), row["instruction"])

    def score(self, task: str, prediction: str, answer: str) -> float:
        """1.0 where it is the answer, white space around it apart."""
        return float(prediction.strip() == answer)

    def content_score(self, task: str, prediction: str, answer: str, content_kind: str) -> float:
        """1.0 where, of all the answers of its kind, this one alone is among the words, in whatever case."""
        if task not in TASKS:  # a model's own sample
            return float(prediction.strip().lower() == answer.lower())
        kinds = {"shape": SHAPES, "colour": COLOURS, "boolean": BOOLEANS}
        said = {*re.findall(r"[a-z]+", prediction.lower())} & {*kinds[content_kind]}
        return float(said == {answer})
