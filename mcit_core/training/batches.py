"""The rows of every training step: a task's own, mixed with kept ones of earlier tasks, or of all tasks at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mcit_core.config import Experiment, Section
from mcit_core.data.features import Ready, Rows, ahead
from mcit_core.data.order import data_order
from mcit_core.data.workbench import Workbench
from mcit_core.models import Batch
from mcit_core.parallel import ALONE, Team
from mcit_core.protection import Protection
from mcit_core.stages.keys import JOINT, stage_steps


def join(bench: Workbench, parts: list[tuple[Batch, Tensor]]) -> tuple[Batch, Tensor]:
    """Batches of several tasks as one, instructions and labels padded to the longest."""
    if len(parts) == 1:
        return parts[0]
    longest = max(labels.shape[1] for _, labels in parts)
    padded = [F.pad(labels, (0, longest - labels.shape[1]), value=-100) for _, labels in parts]
    return bench.model.join([batch for batch, _ in parts]), torch.cat(padded)


def prepare(bench: Workbench, *picked: list[tuple[str, int]]) -> list[tuple[Rows, Ready]]:
    """The training rows (task, row) of each list, grouped by task."""
    parts = []
    for some in picked:
        for task in dict.fromkeys(task for task, _ in some):
            rows = bench.rows(task, "train")
            parts.append((rows, rows.prepared(torch.tensor([row for name, row in some if name == task]))))
    return parts


def _tasks(experiment: Experiment, task: str) -> list[str]:
    return sorted(experiment.order) if task == JOINT else [task]


def steps_on(experiment: Experiment, bench: Workbench, task: str) -> int:
    """Optimizer steps of a stage on `task` (JOINT: all tasks of the order)."""
    return stage_steps(experiment, sum(len(bench.rows(name, "train")) for name in _tasks(experiment, task)))


def batches(
    experiment: Experiment,
    bench: Workbench,
    task: str,
    protections: Sequence[Protection[Section]] = (),
    team: Team = ALONE,
) -> Iterator[tuple[Batch, Tensor]]:
    """The batches of a stage on `task` (JOINT: all tasks of the order), each of exactly train.batch_size rows, the last
    ones of which are those that protections replay; of each the part of this process. Raises ValueError where the task
    has fewer rows than that."""
    train, steps = experiment.train, steps_on(experiment, bench, task)
    every = [(name, row) for name in _tasks(experiment, task) for row in range(len(bench.rows(name, "train")))]
    if train.batch_size > len(every):
        raise ValueError(
            f"train.batch_size {train.batch_size} is larger than {task}, which has {len(every)} training rows; "
            f"set {len(every)} at most"
        )

    def jobs() -> Iterator[Callable[[], list[tuple[Rows, Ready]]]]:
        for picked in data_order(experiment.seed, task, len(every), train.batch_size, steps):
            replayed = [row for protection in protections for row in protection.replayed()]
            own = [every[i] for i in picked[: train.batch_size - len(replayed)]]
            yield partial(prepare, bench, own[team.part()], replayed[team.part(len(own))])

    for parts in ahead(jobs(), bench.model.device):
        yield join(bench, [(rows.encoded(ready), rows.labels_at(ready.places)) for rows, ready in parts])
