"""A file of the user's that stands for the rows that a published model was pre-trained on, which come with none.

The form is that of LLaVA's instruction data: a JSON list (or a line for each) of

    {"image": "coco/1.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"},
                                              {"from": "gpt", "value": "A bench."}]}

`image` is a path below the file's folder, a list of them, or left out. Of a conversation the first turn from `human`
(or `user`) counts, and the one behind it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, Field, ValidationError

from mcit_core.example import Example, read_picture

#: rows for each purpose, at most
MOST = {"statistics": 512, "retention": 200}
#: of a shorter file the last so many are kept for retention
SHARE = 5
SCHEMA = pa.schema(
    {"images": pa.list_(pa.string()), "instruction": pa.string(), "answer": pa.string(), "content_kind": pa.string()}
)


def _lines(text: str) -> Iterator[object]:
    """One row a line; a line of text may hold what Unicode counts as its end."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error


class _Turn(BaseModel):
    speaker: str = Field(alias="from")
    value: str


class _Row(BaseModel):
    """As published; further keys are left alone."""

    image: str | list[str] | None = None
    conversations: list[_Turn] = Field(min_length=2)


class SampleFile:
    """The `mcit_core.models.Sample` of a file: its first rows for "statistics", its last for "retention"."""

    def __init__(self, path: Path, pictures: tuple[int, int | None] = (0, None)) -> None:
        """`pictures`: how many a row may have, at least and at most. Raises FileNotFoundError or ValueError, naming the
        file and the row."""
        self.path, self._pictures = path.expanduser(), pictures
        try:
            text = self.path.read_text(encoding="utf-8")
        except OSError as error:
            raise FileNotFoundError(f"model.sample: {self.path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"model.sample: {self.path} is no UTF-8 (byte {error.start})") from error
        try:
            found = json.loads(text) if text.lstrip().startswith("[") else [*_lines(text)]
        except ValueError as error:
            raise ValueError(f"model.sample: {self.path} is no JSON: {error}") from error
        if len(found) < SHARE:
            raise ValueError(f"model.sample: {self.path} has {len(found)} rows; at least {SHARE} are wanted")
        kept = min(MOST["retention"], len(found) // SHARE)
        statistics = found[: min(MOST["statistics"], len(found) - kept)]
        first = {"statistics": 0, "retention": len(found) - kept}
        parts = {"statistics": statistics, "retention": found[len(found) - kept :]}
        self._rows = {
            purpose: pa.Table.from_pylist(
                [self._row(first[purpose] + i, row) for i, row in enumerate(part)], schema=SCHEMA
            )
            for purpose, part in parts.items()
        }

    def _row(self, number: int, row: object) -> dict[str, object]:
        where = f"model.sample: {self.path} row {number}"
        try:
            told = _Row.model_validate(row)
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"])) or "all of it"
            raise ValueError(
                f"{where}, {place}: expected `image` (a path, several or none) and `conversations` of a question and "
                f"an answer, each with `from` and `value`; {error.errors()[0]['msg']}"
            ) from error
        images = [told.image] if isinstance(told.image, str) else told.image or []
        paths = [self.path.parent / image for image in images]
        least, most = self._pictures
        if not least <= len(paths) <= (len(paths) if most is None else most):
            raise ValueError(f"{where}: {len(paths)} pictures, where the model reads {least} to {most or 'any number'}")
        missing = [str(path) for path in paths if not path.is_file()]
        if missing:
            raise FileNotFoundError(f"{where}: there is no picture {missing[0]}")
        turns = told.conversations
        asked = next((i for i, turn in enumerate(turns) if turn.speaker in ("human", "user")), len(turns))
        if asked + 1 >= len(turns):
            raise ValueError(f"{where}: nobody answers a turn `from` human")
        instruction, answer = turns[asked].value.replace("<image>", "").strip(), turns[asked + 1].value
        return {"images": [*map(str, paths)], "instruction": instruction, "answer": answer, "content_kind": "text"}

    def rows(self, purpose: str) -> pa.Table:
        return self._rows[purpose]

    def open(self, row: Mapping[str, Any]) -> Example:
        try:
            return Example(tuple(map(read_picture, row["images"])), row["instruction"])
        except ValueError as error:
            raise ValueError(f"model.sample: {error}") from error

    def digest(self, purpose: str) -> str | None:
        return None
