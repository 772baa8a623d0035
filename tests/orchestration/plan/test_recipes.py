"""The recipes of papers are sweeps that can be planned, on data of their forms and a model of their class."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from mcit_core.benchmarks.layouts import COIN, SIZES
from mcit_core.methods import build_experiment
from mcit_core.stages.looks import RETENTION, looks, untrained_looks
from orchestration.arguments import SHIPPED, find_sweep, recipe_names
from orchestration.plan.spec import SweepSpec
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import make_trials
from tests.support import public_data
from tests.support.places import ROOT

PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
FOLDERS = {"data/CoIN": public_data.coin, "data/UCIT": public_data.ucit, "data/MLLM-CL": public_data.mllm_dcl}


def with_data(name: str, folder: Path) -> SweepSpec:
    """A recipe on a small folder of its benchmark's form."""
    file = find_sweep(Path(name))
    content = yaml.safe_load(file.read_text())
    root = content["benchmark"]["root"]
    if root in FOLDERS:
        FOLDERS[root](folder)
    else:
        told = yaml.safe_load(re.findall(r"```yaml\n(tasks:.*?)```", PAGE, re.DOTALL)[0])["tasks"]
        own = {"tasks": {task: told[task] for task in content["tasks"]}}
        folder.joinpath("benchmark.yaml").write_text(yaml.safe_dump(own))
        for task in content["tasks"]:
            public_data.llava_json_task(folder / task, public_data.word, 8, 4, np.random.default_rng(0))
    return load_spec(file, [f"benchmark.root={folder}"])


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_makes_trials(name: str, tmp_path: Path) -> None:
    spec = with_data(name, tmp_path)
    trials = make_trials(spec)
    assert {*spec.references} <= {trial.method for trial in trials}
    assert spec.gpus == 1
    assert all(trial.experiment.train.epochs == 1.0 for trial in trials if trial.stages)


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_without_its_data_says_so(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from orchestration.sweep import main

    assert main([name, "--dry-run"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "benchmark.root: there is no folder data/" in said


def test_every_recipe_is_on_the_page() -> None:
    assert re.findall(r"^\| `(paper/\w+)` \|", PAGE, flags=re.MULTILINE) == recipe_names()
    assert {path.stem for path in (SHIPPED / "paper").iterdir()} == {name.partition("/")[2] for name in recipe_names()}


def test_hours_follow_from_the_measured_step() -> None:
    """The page's seconds a row are those of the table in docs/models.md, and its hours those times rows."""
    models = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    steps = dict(
        re.findall(r"^\| 16, checkpointed \| (LoRA r 128 on [^|]*?) \|.*?\| ([\d.]+) \| \d+ % \|$", models, re.M)
    )
    decoded = max(map(float, re.findall(r"take another ([\d.]+) to ([\d.]+) s a step", models)[0]))
    seconds = {
        "all": float(steps["LoRA r 128 on all matrices, LLaCA's average"]),
        "query and value": float(steps["LoRA r 128 on q, v"]),
    }
    told = dict(re.findall(r"(all|query and value) matrices: ([\d.]+) s a row", PAGE))
    assert {name: f"{(value + decoded) / 16:.3f}" for name, value in seconds.items()} == told
    rows = sum(task["train"] for task in SIZES["ucit"].values())
    lines = re.findall(r"\| (all|query and value) \| ([\d,]+) \| ([\d.]+) \|", PAGE)
    assert len(lines) == 5
    for matrices, count, hours in lines:
        number = int(count.replace(",", ""))
        assert abs(number * float(told[matrices]) / 3600 - float(hours)) < 0.06
    assert f"{rows:,}" in PAGE


def test_the_page_counts_the_splits_that_are_evaluated() -> None:
    order = tuple(COIN.tasks)
    experiment = build_experiment("mini", "mini", "sequential_lora", order, 0, {})
    stages = [place for stage in range(-1, len(order)) for place in looks(experiment, stage) if place != RETENTION]
    count = len(stages) + len(untrained_looks(experiment))
    assert f"on CoIN {count} splits a sequence" in PAGE
