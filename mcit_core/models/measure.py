"""What a training step really takes, beside what `estimate` says of it: seconds, and on a GPU memory and waits."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from mcit_core.averaging import Averager
from mcit_core.config import Experiment, Section
from mcit_core.data.statistics import QueryStatistics
from mcit_core.example import Example
from mcit_core.models.estimate import Estimate, Step, step_experiment
from mcit_core.models.hf import HfModel
from mcit_core.models.hf_rows import HfBatch
from mcit_core.models.settings import HfSettings
from mcit_core.protection import Protection
from mcit_core.registry import TUNERS
from mcit_core.training.step import Learner, fetched, optimizer_of, train_step
from mcit_core.tuners import Tuner

#: steps that are taken, of which the first half are left out: they load kernels
STEPS = 10
#: pixels of a side of the pictures, which are noise
SIDE = 336


@dataclass(frozen=True)
class Measured:
    """Seconds are medians. `length`: tokens of a row as it was read, prompt and answer included. `peak`: bytes of
    tensors at once, at most, the weights included; `waits`: how often in a step the CPU waits for the GPU, by the line
    that has it wait. Both are None on a CPU."""

    encode_seconds: float
    step_seconds: float
    length: int
    losses: list[float]
    peak: int | None
    waits: dict[str, int] | None


def measure(model: HfModel, step: Step, steps: int = STEPS) -> Measured:
    """Takes steps on rows of noise, with the averaging that the step's settings name. Raises ValueError where no row of
    that length can be made."""
    experiment = step_experiment(model.settings, step)
    if others := [name for name in experiment.protections() if not name.startswith("averaging.")]:
        raise ValueError(f"{', '.join(others)}: steps are measured with an average alone; leave it out")
    labels = model.answer_ids([" ".join(["1"] * max(1, step.answer // 2))] * step.batch)
    short = _encode(model, 1, 0)
    queries = QueryStatistics.of(*(torch.cat([q, q + 1]) for q in (short.query_image, short.query_text)))
    tuner: Tuner = TUNERS.load(step.tuner).build(experiment, model, queries)
    tuner.begin_stage()
    with torch.no_grad(), tuner.attached():
        front = tuner.inputs(short, training=False).front
    beside = (0 if front is None else front.shape[1]) + (0 if model.encoder_decoder else labels.shape[1] - 1)
    words = _words(model, step.length - beside)
    learner = Learner(model, tuner, optimizer_of(tuner, experiment), experiment.train, _protections(experiment, tuner))
    cuda, encoding, stepping, losses = model.device.type == "cuda", [], [], []
    for number in range(steps):
        if cuda and number == steps // 2:
            torch.cuda.reset_peak_memory_stats(model.device)
        marks = [_now(model.device)]
        rows = _encode(model, step.batch, words)
        marks.append(_now(model.device))
        losses.append(train_step(learner, rows, labels))
        marks.append(_now(model.device))
        encoding.append(marks[1] - marks[0])
        stepping.append(marks[2] - marks[1])
    return Measured(
        statistics.median(encoding[steps // 2 :]),
        statistics.median(stepping[steps // 2 :]),
        rows.columns["ids"].shape[1] + beside,
        fetched(losses),
        torch.cuda.max_memory_allocated(model.device) if cuda else None,
        waits(lambda: train_step(learner, rows, labels)) if cuda else None,
    )


class _Average(Protection[Section]):
    """An averaging without a stage to stand in."""

    def __init__(self, averager: Averager) -> None:
        self.averager = averager

    def see_gradients(self) -> None:
        self.averager.see_gradients()

    def see_step(self) -> None:
        self.averager.see_step()


def _protections(experiment: Experiment, tuner: Tuner) -> list[Protection[Section]]:
    if not experiment.protects("averaging"):
        return []
    return [_Average(Averager(tuner.parameters(), **experiment.averaging.model_dump()))]


def waits(work: Callable[[], object]) -> dict[str, int]:
    """How often some work has the CPU wait for the GPU, by file and line, as torch warns of it."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found: dict[str, int] = {}
    for warning in said:
        if "synchroniz" in str(warning.message):
            place = f"{warning.filename}:{warning.lineno}"
            found[place] = found.get(place, 0) + 1
    return found


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _encode(model: HfModel, batch: int, words: int) -> HfBatch:
    pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    example = Example((Image.fromarray(pixels),), "what is it ?" + " red" * words)
    return model.encode(model.prepare([example] * batch, 0))


def _words(model: HfModel, length: int) -> int:
    """How many words beside the picture make a row of so many tokens, or of a few more."""
    none, some = (_encode(model, 1, words).columns["ids"].shape[1] for words in (0, 64))
    if length < none:
        raise ValueError(f"a row with a picture has {none} tokens beside prompt and answer, and {length} are asked for")
    return round((length - none) * 64 / (some - none))


def shown_measured(taken: Measured, found: Estimate, settings: HfSettings) -> str:
    lines = [
        f"measured, rows of {taken.length} tokens: {taken.step_seconds:.3f} s a step and {taken.encode_seconds:.3f} s "
        f"for its pictures and words; loss {taken.losses[0]:.2f} to {taken.losses[-1]:.2f} in {len(taken.losses)} steps"
    ]
    if taken.peak is not None and taken.waits is not None:
        estimated = sum((found.checkpointed if settings.checkpointing else found.plain).values())
        lines.append(
            f"{taken.peak / 1e9:.2f} GB at most, {100 * (taken.peak / estimated - 1):+.0f} % of the estimate; the CPU "
            f"waits for the GPU {sum(taken.waits.values())} times a step"
        )
        lines += [f"  {count:>4}  {place}" for place, count in taken.waits.items()]
    return "\n".join(lines)
