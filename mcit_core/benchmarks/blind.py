"""A benchmark whose every picture is mid-grey: what its instructions alone give away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
from PIL import Image

from mcit_core.benchmarks import Benchmark, ScoresForm, ScoresRows, TellsJudging, TellsRows
from mcit_core.example import Example

GREY = (128, 128, 128)
#: of an index, in which no benchmark has a column of this name
SEEN = "mcit_blind"


class Blind:
    """The rows and the scores of `seen`, a benchmark, without its pictures."""

    def __init__(self, seen: Benchmark) -> None:
        self._seen = seen
        self.name, self.tasks, self.exact_match = seen.name, seen.tasks, seen.exact_match
        if isinstance(seen, ScoresRows):  # and only then is this one too
            self.score_row, self.content_row = seen.score_row, seen.content_row
        if isinstance(seen, ScoresForm):
            self.strict_row, self.form_row = seen.strict_row, seen.form_row
        if isinstance(seen, TellsJudging):
            self.judging = seen.judging

    def rows(self, task: str, split: str) -> pa.Table:
        index = self._seen.rows(task, split)
        return index.append_column(SEEN, pa.array(["grey"] * index.num_rows))

    def open(self, row: Mapping[str, Any]) -> Example:
        seen = self._seen.open(row)
        return replace(seen, images=tuple(Image.new("RGB", image.size, GREY) for image in seen.images))

    def digest(self, task: str, split: str) -> str | None:
        told = self._seen.digest(task, split) if isinstance(self._seen, TellsRows) else None
        return None if told is None else f"blind {told}"

    def score(self, task: str, prediction: str, answer: str) -> float:
        return self._seen.score(task, prediction, answer)

    def content_score(self, task: str, prediction: str, answer: str, content_kind: str) -> float:
        return self._seen.content_score(task, prediction, answer, content_kind)
