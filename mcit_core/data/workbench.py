"""What a process needs to run stages: model, benchmark, frozen features and statistics, each loaded once."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import cache, cached_property, partial
from pathlib import Path

import pyarrow as pa
import torch

from mcit_core.benchmarks import Benchmark, TellsRows, load_benchmark
from mcit_core.benchmarks.blind import Blind
from mcit_core.choices import Choice
from mcit_core.config import Experiment, Value
from mcit_core.data.features import CHUNK, Opener, Rows, one_thread, open_rows
from mcit_core.data.statistics import QueryStatistics, RowView, Statistics, token_statistics
from mcit_core.models import KeepsFeatures, load_model
from mcit_core.parallel import ALONE, Team
from mcit_core.stages.fingerprint import benchmark_code, feature_code
from mcit_core.stages.looks import RETENTION, TEST, VALIDATION

SPLITS = (VALIDATION, TEST)
#: rows of the first task that stand for the pre-training sample of a model without one
STAND_IN = 512


def resolve_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class Workbench:
    """Model and benchmark of an experiment; `features` is the folder of the feature cache, None to do without."""

    def __init__(self, benchmark: Choice, model: Choice, device: str = "auto", features: Path | None = None) -> None:
        self.model = load_model(model, resolve_device(device))
        self.benchmark: Benchmark = load_benchmark(benchmark)
        self.features = features
        self._code = feature_code(model)
        self._opens: Value = {"benchmark": benchmark, "code": benchmark_code(benchmark)}
        self._rows: dict[tuple[str, str], tuple[Rows, str]] = {}
        self._statistics: dict[tuple[str, str, RowView, int], Statistics] = {}  # int: the size of the team

    def _open(self, task: str, split: str) -> tuple[Rows, str]:
        if (task, split) not in self._rows:
            told, make, opener = self._source(task, split)
            own = task == "pretraining" and self.has_sample
            code = self._code if own else {**self._code, "opens": self._opens}
            self._rows[task, split] = open_rows(self.model, code, told, make, opener, self.features)
        return self._rows[task, split]

    def _source(self, task: str, split: str) -> tuple[str | None, Callable[[], pa.Table], Opener]:
        """What tells the rows of a split, what makes their index, and what opens one. Task `pretraining` is the model's
        own sample, its splits "statistics" and "retention"; without one the former are rows of the first task."""
        sample, benchmark = self.model.sample, self.benchmark
        if task != "pretraining":
            told = benchmark.digest(task, split) if isinstance(benchmark, TellsRows) else None
            return told, partial(benchmark.rows, task, split), benchmark.open
        if sample is not None:
            return sample.digest(split), partial(sample.rows, split), sample.open
        return None, lambda: benchmark.rows(benchmark.tasks[0], "train").slice(0, STAND_IN), benchmark.open

    @property
    def has_sample(self) -> bool:
        """Whether the model comes with rows of its own, on which retention is measured."""
        return self.model.sample is not None

    def rows(self, task: str, split: str) -> Rows:
        return self._open(task, split)[0]

    def data_digest(self, task: str, split: str = "train") -> str:
        return self._open(task, split)[1]

    def statistics(self, task: str, view: RowView, team: Team = ALONE) -> Statistics:
        """Token statistics of a task's training split, or of the model's pre-training sample for `pretraining`; where a
        team trains, each of its processes, which call this alike, looks at its part of the rows."""
        split = "statistics" if task == "pretraining" else "train"
        place = task, split, view, team.size
        if team.size == 1:  # what a team has added up differs in the last bits, and a look afterwards takes that too
            place = next((found for found in self._statistics if found[:3] == place[:3]), place)
        if not team.all(place in self._statistics):  # one process that has them would let the others wait for ever
            rows = self.rows(task, split)
            own = torch.arange(len(rows))[team.part()]
            size = 8 * CHUNK if isinstance(self.model, KeepsFeatures) else CHUNK
            parts = [token_statistics(self.model, rows[some], view) for some in own.split(size)]
            self._statistics[place] = sum(parts[1:], parts[0]).over(team)
        return self._statistics[place]

    @cached_property
    def queries(self) -> QueryStatistics:
        """Of the selection queries over the model's pre-training sample."""
        rows = self.rows("pretraining", "statistics")
        pairs = [(part.query_image, part.query_text) for part in rows.parts(torch.arange(len(rows)))]
        return QueryStatistics.of(*(torch.cat(column) for column in zip(*pairs, strict=True)))

    @cached_property
    def blind(self) -> Workbench:
        """The same model on the same rows, with every picture mid-grey."""
        self._open("pretraining", "statistics")  # which stays as it is seen
        other = copy(self)
        other.benchmark = Blind(self.benchmark)
        other._rows = {place: found for place, found in self._rows.items() if place[0] == "pretraining"}
        other._statistics = {}
        return other

    def prepare(self, tasks: tuple[str, ...]) -> None:
        """Fill the feature cache, so that workers only map it. One torch thread per split, since the last bits of a
        feature depend on the number of threads."""
        wanted = [("pretraining", "statistics"), *([RETENTION] if self.has_sample else [])]
        wanted += [(task, split) for task in tasks for split in ("train", *SPLITS)]
        with one_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(lambda pair: self._open(*pair), wanted):
                pass


@cache
def _shared(benchmark: str, model: str, device: str, features: Path | None) -> Workbench:
    return Workbench(json.loads(benchmark), json.loads(model), device, features)


def shared_workbench(benchmark: Choice, model: Choice, device: str, features: Path | None) -> Workbench:
    """One workbench per process and setting, so that a worker that changes trial loads nothing again."""
    return _shared(json.dumps(benchmark, sort_keys=True), json.dumps(model, sort_keys=True), device, features)


def drop_workbenches() -> None:
    """Forget the shared ones: an error may have left something half done in their models. A GPU's memory is free for
    others again."""
    _shared.cache_clear()
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def workbench_for(experiment: Experiment, features: Path | None) -> Workbench:
    bench = shared_workbench(experiment.benchmark, experiment.model, experiment.train.device, features)
    return bench.blind if experiment.protocol == "blind" else bench
