"""What a process needs to run stages: model, benchmark, frozen features and statistics, each loaded once."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import cache, cached_property, partial
from pathlib import Path

import torch

from mcit_core.benchmarks import Benchmark, TellsRows, load_benchmark
from mcit_core.benchmarks.blind import Blind
from mcit_core.choices import Choice
from mcit_core.config import Experiment
from mcit_core.data.features import CHUNK, Rows, open_rows
from mcit_core.data.statistics import QueryStatistics, RowView, Statistics, token_statistics
from mcit_core.models import TellsSample, load_model
from mcit_core.stages.fingerprint import feature_code
from mcit_core.stages.looks import TEST, VALIDATION

SPLITS = (VALIDATION, TEST)


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
        self._rows: dict[tuple[str, str], tuple[Rows, str]] = {}
        self._statistics: dict[tuple[str, str, RowView], Statistics] = {}

    def _open(self, task: str, split: str) -> tuple[Rows, str]:
        """Task `pretraining` is the model's own sample, its splits "statistics" and "retention"."""
        if (task, split) not in self._rows:
            if task == "pretraining":
                table = partial(self.model.pretraining_table, split)
                source = self.model.sample_digest(split) if isinstance(self.model, TellsSample) else None
            else:
                table = partial(self.benchmark.table, task, split)
                source = self.benchmark.digest(task, split) if isinstance(self.benchmark, TellsRows) else None
            shape = self.benchmark.image_shape
            self._rows[task, split] = open_rows(self.model, self._code, source, table, shape, self.features)
        return self._rows[task, split]

    def rows(self, task: str, split: str) -> Rows:
        return self._open(task, split)[0]

    def data_digest(self, task: str, split: str = "train") -> str:
        return self._open(task, split)[1]

    def statistics(self, task: str, view: RowView) -> Statistics:
        """Token statistics of a task's training split, or of the model's pre-training sample for `pretraining`."""
        split = "statistics" if task == "pretraining" else "train"
        if (task, split, view) not in self._statistics:
            rows = self.rows(task, split)
            parts = [
                token_statistics(self.model, rows[torch.arange(s, min(s + 8 * CHUNK, len(rows)))], view)
                for s in range(0, len(rows), 8 * CHUNK)
            ]
            self._statistics[task, split, view] = sum(parts[1:], parts[0])
        return self._statistics[task, split, view]

    @cached_property
    def queries(self) -> QueryStatistics:
        """Of the selection queries over the model's pre-training sample."""
        rows = self.rows("pretraining", "statistics")
        sample = rows[torch.arange(len(rows))]
        image, text = sample.query_image, sample.query_text
        return QueryStatistics(image.mean(0), image.std(0) + 1e-6, text.mean(0), text.std(0) + 1e-6)

    @cached_property
    def blind(self) -> Workbench:
        """The same model on the same rows, with every picture mid-grey."""
        other = copy(self)
        other.benchmark = Blind(self.benchmark)
        other._rows = {place: found for place, found in self._rows.items() if place[0] == "pretraining"}
        other._statistics = {}
        return other

    def prepare(self, tasks: tuple[str, ...]) -> None:
        """Fill the feature cache, so that workers only map it. One torch thread per split, since the last bits of a
        feature depend on the number of threads."""
        torch.set_num_threads(1)
        wanted = [("pretraining", split) for split in ("statistics", "retention")]
        wanted += [(task, split) for task in tasks for split in ("train", *SPLITS)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(lambda pair: self._open(*pair), wanted):
                pass


@cache
def _shared(benchmark: str, model: str, device: str, features: Path | None) -> Workbench:
    return Workbench(json.loads(benchmark), json.loads(model), device, features)


def shared_workbench(benchmark: Choice, model: Choice, device: str, features: Path | None) -> Workbench:
    """One workbench per process and setting, so that a worker that changes trial loads nothing again."""
    return _shared(json.dumps(benchmark, sort_keys=True), json.dumps(model, sort_keys=True), device, features)


def drop_workbenches() -> None:
    """Forget the shared ones: an error may have left something half done in their models."""
    _shared.cache_clear()


def workbench_for(experiment: Experiment, features: Path | None) -> Workbench:
    bench = shared_workbench(experiment.benchmark, experiment.model, experiment.train.device, features)
    return bench.blind if experiment.protocol == "blind" else bench
