"""The rows of every training step: a task's own, mixed with kept ones of earlier tasks, or of all tasks at once.

Experience replay after Chaudhry et al., arXiv 1902.10486. The buffer is a reservoir (Vitter 1985): every row seen so
far is in it with the same chance, and it never holds more than `replay.rows`. It follows from (seed, earlier tasks)
alone, in the form that keeps the rows of smallest random rank; nothing of it needs to be stored with a stage.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mcit_core.config import Experiment
from mcit_core.models import FrozenFeatures
from mcit_core.stages import JOINT, stage_steps
from mcit_core.workbench import Workbench, data_order, generator


def reservoir(seed: int, sizes: dict[str, int], capacity: int) -> list[tuple[str, int]]:
    """(task, row) of the kept rows, `sizes` giving the number of training rows of each task seen so far. A task that
    comes later never brings back a row that was dropped."""
    ranked = [
        (rank, task, row)
        for task, size in sizes.items()
        for row, rank in enumerate(generator(seed, task, "reservoir").random(size).tolist())
    ]
    return [(task, row) for _, task, row in sorted(ranked)[:capacity]]


def _pad(tensor: Tensor, length: int, value: int) -> Tensor:
    return F.pad(tensor, (0, length - tensor.shape[1]), value=value)


def join(parts: list[tuple[FrozenFeatures, Tensor]]) -> tuple[FrozenFeatures, Tensor]:
    """Batches of several tasks as one, instructions and labels padded to the longest."""
    if len(parts) == 1:
        return parts[0]
    words = max(features.instruction.shape[1] for features, _ in parts)
    answer = max(labels.shape[1] for _, labels in parts)
    return (
        FrozenFeatures(
            torch.cat([f.visual for f, _ in parts]),
            torch.cat([_pad(f.instruction, words, 0) for f, _ in parts]),
            torch.cat([_pad(f.instruction_mask, words, 0) for f, _ in parts]),
            torch.cat([f.query_image for f, _ in parts]),
            torch.cat([f.query_text for f, _ in parts]),
        ),
        torch.cat([_pad(labels, answer, -100) for _, labels in parts]),
    )


def take(bench: Workbench, picked: list[tuple[str, int]]) -> list[tuple[FrozenFeatures, Tensor]]:
    """The training rows (task, row), grouped by task."""
    parts = []
    for task in dict.fromkeys(task for task, _ in picked):
        rows = bench.rows(task, "train")
        index = torch.tensor([row for name, row in picked if name == task])
        parts.append((rows[index], rows.labels[index.to(rows.labels.device)]))
    return parts


def batches(
    experiment: Experiment, bench: Workbench, task: str, earlier: list[str]
) -> Iterator[tuple[FrozenFeatures, Tensor]]:
    """The batches of a stage on `task` (JOINT: all tasks of the order) after the tasks `earlier`; each of exactly
    train.batch_size rows, of which `replay.batch_share` are old where there are any."""
    train, steps = experiment.train, stage_steps(experiment)
    tasks = sorted(experiment.order) if task == JOINT else [task]
    every = [(name, row) for name in tasks for row in range(len(bench.rows(name, "train")))]
    old: list[tuple[str, int]] = []
    if experiment.replay.kind == "reservoir" and earlier:
        sizes = {name: len(bench.rows(name, "train")) for name in earlier}
        old = reservoir(experiment.seed, sizes, experiment.replay.rows)
    share = max(1, round(train.batch_size * experiment.replay.batch_share)) if old else 0
    draw = generator(experiment.seed, task, "replay")
    for picked in data_order(experiment.seed, task, len(every), train.batch_size, steps):
        new = [every[i] for i in picked[: train.batch_size - share]]
        replayed = [old[i] for i in draw.integers(len(old), size=share)] if share else []
        yield join(take(bench, new) + take(bench, replayed))


def buffer_bytes(bench: Workbench, kept: list[tuple[str, int]]) -> int:
    """Bytes of the kept rows as the benchmark stores them: image, instruction and answer."""
    total = 0
    for task, row in kept:
        rows = bench.rows(task, "train")
        total += int(np.prod(bench.benchmark.image_shape)) + len(rows.instructions[row]) + len(rows.answers[row])
    return total
