"""The Benchmark contract: named tasks, each with an index of its train, validation and test rows, and a scorer.

An index has the columns images (a list a row: bytes, or paths of files), instruction, answer and content_kind, and may
have others; `open` makes an example of one of its rows, so that no picture is decoded before it is wanted. All that an
index says tells rows apart, and of pictures that are files their sizes and times of change. Register a
benchmark in `mcit_core.registry` or through the entry-point group `mcit_core.benchmarks`. One with settings of its own
(`benchmark: {kind: NAME, ...}`) has a pydantic section as its attribute `Settings` and takes `settings=`, an instance
of it, where any is set; without settings it is called with no argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mcit_core.choices import Choice, kind_of, part_settings
from mcit_core.registry import BENCHMARKS

if TYPE_CHECKING:
    import pyarrow as pa

    from mcit_core.example import Example


class Benchmark(Protocol):
    """`tasks` in their default order; `exact_match`: a score is 1 exactly where the whole answer is right, so that one
    teacher-forced pass can decide it."""

    name: str
    tasks: tuple[str, ...]
    exact_match: bool

    def rows(self, task: str, split: str) -> pa.Table:
        """The index of a split ("train", "validation", "test"), the same one at every call."""

    def open(self, row: Mapping[str, Any]) -> Example:
        """The example of one row of an index. Raises OSError or ValueError where a picture cannot be read."""

    def score(self, task: str, prediction: str, answer: str) -> float:
        """In [0, 1]."""

    def content_score(self, task: str, prediction: str, answer: str, content_kind: str) -> float:
        """In [0, 1], whatever the style of the prediction."""


@runtime_checkable
class TellsRows(Protocol):
    """What a benchmark may have besides: it tells what its rows are without making them."""

    def digest(self, task: str, split: str) -> str | None:
        """Changes whenever the rows of a split do: of source files and reader settings, say, or of the code that draws
        them. None: it cannot be told, `rows` is made and hashed. A benchmark without this method is always hashed."""


@runtime_checkable
class ScoresRows(Protocol):
    """What a benchmark may have besides: its rules look at more of a row than the answer. Its index then has a column
    `scoring`, a text with whatever that is."""

    def score_row(self, task: str, prediction: str, answer: str, scoring: str) -> float:
        """In [0, 1], in the place of `score`."""

    def content_row(self, task: str, prediction: str, answer: str, scoring: str) -> float:
        """In [0, 1], in the place of `content_score`."""


def scored(
    benchmark: Benchmark, task: str, prediction: str, answer: str, kind: str, scoring: str | None
) -> tuple[float, float]:
    """Score and content score of what was said to a row, whose `scoring` is None where its index has none."""
    if scoring is not None and isinstance(benchmark, ScoresRows):
        one = benchmark.score_row(task, prediction, answer, scoring)
        return one, benchmark.content_row(task, prediction, answer, scoring)
    one = benchmark.score(task, prediction, answer)
    return one, benchmark.content_score(task, prediction, answer, kind)


def load_benchmark(choice: Choice) -> Benchmark:
    """The benchmark of an experiment, with its settings where any are set. Raises KeyError for an unknown name and
    ValueError where one of its settings is missing."""
    found: Callable[..., Benchmark] = BENCHMARKS.load(kind_of(choice))
    return found(**part_settings(BENCHMARKS, choice))
