"""What a third party would ship: a benchmark, models and tuners, registered by entry points alone."""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from harm import from_environment
from pydantic import Field
from torch import Tensor, nn

from mcit_core import parallel
from mcit_core.benchmarks.mini import MiniBenchmark
from mcit_core.config import Section
from mcit_core.miniworld.sample import MixtureSample
from mcit_core.models.mini import MiniModel
from mcit_core.protection import Protection, StageStart
from mcit_core.tuners.prompt_pool import PromptPool

from_environment()


def without_interface() -> None:
    """Only the first process of a team finds its network."""
    found = parallel._interface

    def only_first(host: str) -> str:
        if os.environ["RANK"] != "0":
            raise ValueError("no network <on purpose>")
        return found(host)

    parallel._interface, parallel.MEET = only_first, timedelta(seconds=5)


if "MCIT_TEST_NO_NETWORK" in os.environ:
    without_interface()


class TinyBenchmark(MiniBenchmark):
    """`mini` with a handful of rows, for tests that train."""

    name = "tiny"

    def __init__(self) -> None:
        super().__init__({"train": 64, "validation": 10, "test": 30})


class TinySample(MixtureSample):
    def rows(self, purpose: str) -> pa.Table:
        return super().rows(purpose).slice(0, {"statistics": 96, "retention": 32}[purpose])


class TinyModel(MiniModel):
    """`mini` with a handful of rows of its pre-training mixture, which every stage is evaluated on."""

    name = "tiny"

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.sample = TinySample()


class FailingTuner(PromptPool):
    """Fails at the start of the second stage."""

    def begin_stage(self) -> None:
        if len(self.usage):
            raise RuntimeError("this tuner fails <on purpose>")
        super().begin_stage()


class NotingTuner(PromptPool):
    """Notes in the file $MCIT_TEST_NOTES the process that begins to train a stage, which takes a moment longer."""

    def begin_stage(self) -> None:
        with Path(os.environ["MCIT_TEST_NOTES"]).open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(float(os.environ.get("MCIT_TEST_SLEEP", "0")))
        if "MCIT_TEST_HOLD" in os.environ:  # FILE:N, from the Nth stage on until there is such a file
            file, number = os.environ["MCIT_TEST_HOLD"].rsplit(":", 1)
            if len(Path(os.environ["MCIT_TEST_NOTES"]).read_text().split()) >= int(number):
                for _ in range(2400):  # two minutes, or else a test that fails would leave this process behind
                    if Path(file).exists():
                        break
                    time.sleep(0.05)
        if stale := os.environ.get("MCIT_TEST_STALE"):  # in one process alone
            with suppress(FileExistsError):
                Path(stale).touch(exist_ok=False)
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        if hoard := os.environ.get("MCIT_TEST_HOARD"):  # in one process alone, which takes 4 GiB
            with suppress(FileExistsError):
                Path(hoard).touch(exist_ok=False)
                np.ones(2**29)
                time.sleep(60)
        super().begin_stage()


class DamagedModel(MiniModel):
    """A checkpoint that is not there."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device, Path("nowhere"))


class AnchorSettings(Section):
    kind: Literal["anchor"] = "anchor"
    pull: float = Field(0.5, ge=0, description="weight of the squared distance")


class Anchor(Protection[AnchorSettings]):
    """Holds every weight near to where the stage began."""

    Settings = AnchorSettings

    def __init__(self, settings: AnchorSettings, start: StageStart) -> None:
        super().__init__(settings, start)
        self.begun = {name: parameter.detach().clone() for name, parameter in start.tuner.parameters().items()}

    def loss(self, parameters: dict[str, nn.Parameter], logits: Tensor, labels: Tensor) -> Tensor:
        parts = [(parameter - self.begun[name]).square().sum() for name, parameter in parameters.items()]
        return self.settings.pull * torch.stack(parts).sum()
