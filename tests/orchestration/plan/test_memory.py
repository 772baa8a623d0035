"""What `--dry-run` says of a GPU's memory."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from mcit_core.choices import Choice
from mcit_core.config import Experiment, Value
from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.models.planning import planned
from mcit_core.training.stage import build_tuner
from orchestration.plan.memory import memory_lines
from tests.support.tiny_vlms import folder_of


def experiment(method: str, model: Choice, **settings: Value) -> Experiment:
    given = {f"train.{name}": value for name, value in settings.items()}
    return build_experiment("mini", model, method, ("attribute", "ground"), 0, given)


def llava() -> Choice:
    return {"kind": "hf", "path": str(folder_of("llava"))}


def test_a_line_for_each_model_and_tuner_of_its_largest_batch() -> None:
    sizes = [experiment("llaca", llava(), batch_size=size) for size in (4, 24, 8)]
    pool = experiment("fwd_prompt", llava(), batch_size=12, accumulate=3)
    lines = [*memory_lines([*sizes, pool, experiment("llaca", "mini"), experiment("zero_shot", llava())])]
    assert len(lines) == 2
    assert re.search(r", lora: a step of 24 rows of \d+ tokens takes \d+\.\d\d GB, with model\.checkpointing", lines[0])
    assert ", prompt_pool: a step of 4 rows of " in lines[1]


def test_rows_are_as_long_as_they_are_read() -> None:
    one = experiment("fwd_prompt", llava(), batch_size=8)
    step, _ = planned(one)
    bench = Workbench("mini", llava(), "cpu")
    tuner, longest = build_tuner(one, bench, None), 0
    for task in one.order:
        rows, index = bench.rows(task, "train"), torch.arange(16)
        with tuner.attached(), torch.no_grad():
            encoded = bench.model.read(rows[index], tuner.inputs(rows[index], training=False).front)
        masks = bench.model.row_masks(encoded, rows.labels_at(index))
        longest = max(longest, masks["decoder"].shape[1])
    assert abs(step.length - longest) <= 2


def test_a_model_that_cannot_be_read_is_a_line(tmp_path: Path) -> None:
    lines = [*memory_lines([experiment("llaca", {"kind": "hf", "path": str(tmp_path)})])]
    assert len(lines) == 1
    assert "lora: memory cannot be estimated: model.path:" in lines[0]
    assert "has no config.json" in lines[0]
