"""What the suites run on."""

from __future__ import annotations

import json
import tempfile
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from mcit_core.choices import Choice
from mcit_core.data.workbench import Workbench
from mcit_core.training.evaluation import encode
from mcit_core.tuners import Tuner

#: a share of the embedded benchmark that trains in seconds
SMALL: Choice = {"kind": "mini", "train_rows": 64, "validation_rows": 10, "test_rows": 30}


@cache
def _features() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="mcit-features-")  # gone when the process ends


@cache
def _made(benchmark: str, model: str) -> Workbench:
    torch.set_num_threads(1)
    return Workbench(json.loads(benchmark), json.loads(model), "cpu", Path(_features().name))


def small_workbench(benchmark: Choice = SMALL, model: Choice = "mini") -> Workbench:
    """A workbench on the CPU with one torch thread, one for each choice in a process."""
    return _made(json.dumps(benchmark, sort_keys=True), json.dumps(model, sort_keys=True))


class OnWorkbench:
    """What a suite runs on: `benchmark` and `model`, each a name or {kind: NAME, ...}."""

    benchmark: ClassVar[Choice] = SMALL
    model: ClassVar[Choice] = "mini"

    @property
    def bench(self) -> Workbench:
        return small_workbench(self.benchmark, self.model)

    @property
    def order(self) -> tuple[str, ...]:
        return self.bench.benchmark.tasks[:3]


def logits_of(bench: Workbench, tuner: Tuner | None, task: str, rows: int = 8) -> Tensor:
    """The logits [rows, n, V] of the first training rows of a task, through the attached tuner or (None) without."""
    some = bench.rows(task, "train")
    index = torch.arange(rows)
    labels = some.labels[index]
    with torch.no_grad(), nullcontext() if tuner is None else tuner.attached():
        encoded, _ = encode(bench.model, tuner, some[index])
        return bench.model.logits(encoded, labels)


def weights_of(bench: Workbench) -> dict[str, Tensor]:
    """A copy of every tensor of the language model."""
    return {name: tensor.clone() for name, tensor in bench.model.language_model.state_dict().items()}
