"""A file of the user's that stands for the rows that a published model was pre-trained on, which come with none.

The form is that of LLaVA's instruction data: a JSON list (or a line for each) of

    {"image": "coco/1.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"},
                                              {"from": "gpt", "value": "A bench."}]}

`image` is a path below the file's folder, a list of them, or left out. Of a conversation the first question and answer
count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from mcit_core.example import Example

#: rows for each purpose, at most
MOST = {"statistics": 512, "retention": 200}
#: of a shorter file the last so many are kept for retention
SHARE = 5
SCHEMA = pa.schema(
    {"images": pa.list_(pa.string()), "instruction": pa.string(), "answer": pa.string(), "content_kind": pa.string()}
)


class SampleFile:
    """The `mcit_core.models.Sample` of a file: its first rows for "statistics", its last for "retention"."""

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError or ValueError, naming the file and the row."""
        self.path = path.expanduser()
        try:
            text = self.path.read_text(encoding="utf-8")
        except OSError as error:
            raise FileNotFoundError(f"model.sample: {self.path} cannot be read: {error.strerror}") from error
        try:
            found = json.loads(text) if text.lstrip().startswith("[") else [*map(json.loads, text.splitlines())]
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
            told = row["conversations"]  # type: ignore[index]
            question, answer = (str(turn["value"]) for turn in told[:2])
            images = row.get("image") or []  # type: ignore[attr-defined]
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{where}: expected `conversations` of a question and an answer, each with `from` and `value`"
            ) from error
        paths = [self.path.parent / image for image in ([images] if isinstance(images, str) else images)]
        missing = [str(path) for path in paths if not path.is_file()]
        if missing:
            raise FileNotFoundError(f"{where}: there is no picture {missing[0]}")
        instruction = question.replace("<image>", "").strip()
        return {"images": [*map(str, paths)], "instruction": instruction, "answer": answer, "content_kind": "text"}

    def rows(self, purpose: str) -> pa.Table:
        return self._rows[purpose]

    def open(self, row: Mapping[str, Any]) -> Example:
        pictures = []
        for path in row["images"]:
            with Image.open(path) as picture:
                pictures.append(picture.convert("RGB"))
        return Example(tuple(pictures), row["instruction"])

    def digest(self, purpose: str) -> str | None:
        return None
