"""What a step of an experiment takes of memory, told before anything is trained."""

from __future__ import annotations

import torch

from mcit_core.config import Experiment
from mcit_core.data.workbench import shared_workbench
from mcit_core.models.estimate import Estimate, Step, estimate_of
from mcit_core.models.hf_rows import Prepared

#: training rows of each task that are looked at
LOOKED_AT = 16


def planned(experiment: Experiment) -> tuple[Step, Estimate]:
    """The step with the longest of each task's first rows, and what it takes. Of a model of kind `hf`, whose weights
    are not looked at; one of the hub is downloaded. Raises what a model or a benchmark raises that cannot be read, and
    ValueError for a step that cannot be taken."""
    bench = shared_workbench(experiment.benchmark, experiment.model, "cpu", None)
    asked = answer = 0
    for task in experiment.order:
        rows = bench.rows(task, "train")
        for part in rows.prepared(torch.arange(min(LOOKED_AT, len(rows)))).parts:
            assert isinstance(part, Prepared)
            asked = max(asked, int(part.inputs["attention_mask"].sum(1).max()))
        answer = max(answer, rows.labels.shape[1])
    front = {"prompt": experiment.prompt.length, "prompt_pool": experiment.pool.top_k * experiment.pool.length}
    length = front.get(experiment.tuner, 0) + asked + answer
    batch = -(-experiment.train.batch_size // experiment.train.processes)  # of the process that has most
    step = Step(batch, length, experiment.tuner, answer, {})
    return step, estimate_of(experiment, step)
