"""A benchmark whose every picture is mid-grey: what its instructions alone give away."""

from __future__ import annotations

from math import prod

import pyarrow as pa

from mcit_core.benchmarks import Benchmark, TellsRows

GREY = 128


class Blind:
    """The rows and the scores of `seen`, a benchmark, without its pictures."""

    def __init__(self, seen: Benchmark) -> None:
        self._seen = seen
        self.name, self.tasks = seen.name, seen.tasks
        self.image_shape, self.exact_match = seen.image_shape, seen.exact_match

    def table(self, task: str, split: str) -> pa.Table:
        rows = self._seen.table(task, split)
        grey = pa.array([bytes([GREY]) * prod(self.image_shape)] * rows.num_rows, rows.schema.field("image").type)
        return rows.set_column(rows.column_names.index("image"), "image", grey)

    def digest(self, task: str, split: str) -> str | None:
        told = self._seen.digest(task, split) if isinstance(self._seen, TellsRows) else None
        return None if told is None else f"blind {told}"

    def score(self, task: str, prediction: str, answer: str) -> float:
        return self._seen.score(task, prediction, answer)

    def content_score(self, task: str, prediction: str, answer: str, content_kind: str) -> float:
        return self._seen.content_score(task, prediction, answer, content_kind)
