"""The Benchmark contract: named tasks, each with an index of its train, validation and test rows, and a scorer.

An index has the columns images (a list a row: bytes, or paths of files), instruction, answer and content_kind, and may
have others; `open` makes an example of one of its rows, so that no picture is decoded before it is wanted. All that an
index says tells rows apart, and of pictures that are files their sizes and times of change. Register a
benchmark in `mcit_core.registry` or through the entry-point group `mcit_core.benchmarks`. One with settings of its own
(`benchmark: {kind: NAME, ...}`) has a pydantic section as its attribute `Settings` and takes `settings=`, an instance
of it, where any is set; without settings it is called with no argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

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


@runtime_checkable
class ScoresForm(ScoresRows, Protocol):
    """What a benchmark may have besides, where a task has two conventions, the data set's own and a published one."""

    def strict_row(self, task: str, prediction: str, answer: str, scoring: str) -> float:
        """In [0, 1], by the data set's own rule."""

    def form_row(self, task: str, prediction: str, answer: str, scoring: str) -> float:
        """1.0 where the prediction has the shape of a right answer, whatever it says."""


class Judging(NamedTuple):
    """How answers to a task are judged, as far as neither a benchmark's settings nor its code tell it: the names of the
    rules, and the most tokens of an answer (None: `evaluation.max_new_tokens`)."""

    rules: str
    answer_tokens: int | None = None


@runtime_checkable
class TellsJudging(Protocol):
    """What a benchmark may have besides: a file of the user's says how its answers are judged."""

    def judging(self, task: str) -> Judging: ...


class Points(NamedTuple):
    """What an answer gets, each in [0, 1]; None where the benchmark has no such score."""

    accuracy: float
    content_accuracy: float
    accuracy_strict: float | None = None
    format_accuracy: float | None = None


def scored(benchmark: Benchmark, task: str, prediction: str, answer: str, kind: str, scoring: str | None) -> Points:
    """What was said to a row gets, whose `scoring` is None where its index has none."""
    if scoring is None or not isinstance(benchmark, ScoresRows):
        one = benchmark.score(task, prediction, answer)
        return Points(one, benchmark.content_score(task, prediction, answer, kind))
    told = (task, prediction, answer, scoring)
    one, content = benchmark.score_row(*told), benchmark.content_row(*told)
    if not isinstance(benchmark, ScoresForm):
        return Points(one, content)
    return Points(one, content, benchmark.strict_row(*told), benchmark.form_row(*told))


def mean_points(found: Sequence[Points], weights: Sequence[int] | None = None) -> Points:
    """Score by score the mean of at least one, None where one of them has none."""
    weights = weights or [1] * len(found)
    total = sum(weights)

    def mean(values: tuple[float | None, ...]) -> float | None:
        known = [value * weight for value, weight in zip(values, weights, strict=True) if value is not None]
        return sum(known) / total if len(known) == len(values) else None

    accuracy, content, strict, form = (mean(values) for values in zip(*found, strict=True))
    if accuracy is None or content is None:
        raise ValueError("every answer has a score and a content score")
    return Points(accuracy, content, strict, form)


def judging_of(benchmark: Benchmark, task: str) -> Judging | None:
    """None where settings and code tell everything."""
    return benchmark.judging(task) if isinstance(benchmark, TellsJudging) else None


def load_benchmark(choice: Choice) -> Benchmark:
    """The benchmark of an experiment, with its settings where any are set. Raises KeyError for an unknown name and
    ValueError where one of its settings is missing."""
    found: Callable[..., Benchmark] = BENCHMARKS.load(kind_of(choice))
    return found(**part_settings(BENCHMARKS, choice))
