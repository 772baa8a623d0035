"""The Benchmark contract: named tasks, each with train/validation/test tables and a scorer.

A table has the columns image (raw uint8 bytes of `image_shape`), instruction, answer and content_kind. Register a
benchmark in `mcit_core.registry` or through the entry-point group `mcit_core.benchmarks`. One with settings of its own
(`benchmark: {kind: NAME, ...}`) has a pydantic section as its attribute `Settings` and takes `settings=`, an instance
of it, where any is set; without settings it is called with no argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from mcit_core.choices import Choice, kind_of, part_settings
from mcit_core.registry import BENCHMARKS

if TYPE_CHECKING:
    import pyarrow as pa


class Benchmark(Protocol):
    """`tasks` in their default order; `image_shape` (height, width, channels); `exact_match`: a score is 1 exactly
    where the whole answer is right, so that one teacher-forced pass can decide it."""

    name: str
    tasks: tuple[str, ...]
    image_shape: tuple[int, int, int]
    exact_match: bool

    def table(self, task: str, split: str) -> pa.Table:
        """The rows of a split ("train", "validation", "test"), the same ones at every call."""

    def score(self, task: str, prediction: str, answer: str) -> float:
        """In [0, 1]."""

    def content_score(self, task: str, prediction: str, answer: str, content_kind: str) -> float:
        """In [0, 1], whatever the style of the prediction."""


@runtime_checkable
class TellsRows(Protocol):
    """What a benchmark may have besides: it tells what its rows are without making them."""

    def digest(self, task: str, split: str) -> str | None:
        """Changes whenever the rows of a split do: of source files and reader settings, say, or of the code that draws
        them. None: it cannot be told, `table` is made and hashed. A benchmark without this method is always hashed."""


def load_benchmark(choice: Choice) -> Benchmark:
    """The benchmark of an experiment, with its settings where any are set. Raises KeyError for an unknown name and
    ValueError where one of its settings is missing."""
    found: Callable[..., Benchmark] = BENCHMARKS.load(kind_of(choice))
    return found(**part_settings(BENCHMARKS, choice))
