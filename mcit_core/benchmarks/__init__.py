"""The Benchmark contract: named tasks, each with train/validation/test tables and a scorer.

A table has the columns image (raw uint8 bytes of `image_shape`), instruction, answer and content_kind. Register a
benchmark in `mcit_core.registry` or through the entry-point group `mcit_core.benchmarks`.
"""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa


class Benchmark(Protocol):
    name: str
    tasks: tuple[str, ...]
    image_shape: tuple[int, int, int]
    exact_match: bool

    def table(self, task: str, split: str) -> pa.Table: ...
    def score(self, task: str, prediction: str, answer: str) -> float: ...
    def content_score(self, task: str, prediction: str, answer: str, content_kind: str) -> float: ...
