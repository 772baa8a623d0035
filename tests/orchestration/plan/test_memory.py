"""What `--dry-run` says of a GPU's memory."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import torch

from mcit_core.choices import Choice
from mcit_core.config import Value
from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.models.planning import planned
from mcit_core.training.stage import build_tuner
from orchestration.plan.memory import MOST, kind, memory_of
from orchestration.plan.trials import Trial
from tests.support.tiny_vlms import folder_of


def llava() -> Choice:
    return {"kind": "hf", "path": str(folder_of("llava"))}


def trial(method: str, model: Choice, **settings: Value) -> Trial:
    given: dict[str, Value] = {name.replace("__", "."): value for name, value in settings.items()}
    made = build_experiment("mini", model, method, ("attribute", "ground"), 0, given)
    return Trial(f"{method}-{len(given)}", made, {})


def test_a_line_for_whatever_takes_another_amount() -> None:
    same = [trial("llaca", llava(), train__batch_size=24, train__lr=rate) for rate in (0.1, 0.2)]
    rank = trial("llaca", llava(), train__batch_size=24, lora__rank=64)
    pool = trial("fwd_prompt", llava(), train__batch_size=12, train__accumulate=3)
    checkpointed = trial("sequential_lora", {"kind": "hf", "path": str(folder_of("llava")), "checkpointing": True})
    others = [trial("llaca", "mini"), trial("zero_shot", llava())]
    lines = memory_of([*same, rank, pool, checkpointed, *others]).lines
    assert len(lines) == 4
    assert re.search(
        r", lora\): a step of 24 rows of \d+ tokens takes \d+\.\d\d GB, with model\.checkpointing", lines[0]
    )
    assert ", prompt_pool): a step of 12 rows in 3 parts of " in lines[2]
    assert "GB, checkpointed, and about 1 GB" in lines[3]


def test_each_process_of_a_trial_has_its_part_of_the_rows() -> None:
    (line,) = memory_of([trial("llaca", llava(), train__batch_size=15, train__processes=2)]).lines
    assert "a step of 8 rows in each of 2 processes of " in line


def test_weights_are_not_looked_at(tmp_path: Path) -> None:
    copy = shutil.copytree(folder_of("llava"), tmp_path / "copy")
    (copy / "model.safetensors").unlink()
    (line,) = memory_of([trial("llaca", {"kind": "hf", "path": str(copy)})]).lines
    assert "takes 0.0" in line


def test_many_are_cut_short() -> None:
    lines = memory_of([trial("llaca", llava(), lora__rank=rank) for rank in range(1, 12)]).lines
    assert len(lines) == MOST + 1
    assert lines[-1] == "and 3 more that take other amounts"


def test_rows_are_as_long_as_they_are_read() -> None:
    one = trial("fwd_prompt", llava(), train__batch_size=8).experiment
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
    lines = memory_of([trial("llaca", {"kind": "hf", "path": str(tmp_path)})]).lines
    assert len(lines) == 1
    assert "lora): memory cannot be estimated: model.path:" in lines[0]
    assert "has no config.json" in lines[0]


def test_bytes_are_those_of_the_line() -> None:
    plain, again = trial("llaca", llava()), trial("llaca", {**llava_options(), "checkpointing": True})
    found = memory_of([plain, again, trial("llaca", "mini")])
    assert kind(trial("llaca", "mini").experiment) is None
    sizes = [found.peaks[str(kind(one.experiment))] for one in (plain, again)]
    assert sizes[0] > sizes[1] > 0
    assert f"takes {sizes[0] / 1e9:.2f} GB" in found.lines[0]


def llava_options() -> dict[str, Value]:
    return {"kind": "hf", "path": str(folder_of("llava"))}
