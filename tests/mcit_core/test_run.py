"""`python -m mcit_core.run` refuses a bad experiment with file, line, key and remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mcit_core.run import load_experiment, main
from mcit_core.yaml_document import SpecError
from tests.support.refusals import assert_names_place

GOOD = """\
benchmark: mini
model: mini
method: fwd_prompt
order: [attribute, ground]
seed: 0
pool.size: 8
train: {steps: 5}
"""

#: name -> (text to replace, replacement, line, fragments of the message)
BROKEN = {
    "order_null": ("[attribute, ground]", "null", 4, ["order", "list of task names", "None"]),
    "order_number": ("[attribute, ground]", "3", 4, ["order", "list of task names", "got 3"]),
    "order_empty": ("[attribute, ground]", "[]", 4, ["order", "list of task names"]),
    "order_twice": ("ground]", "attribute]", 4, ["order", "'attribute' stands twice"]),
    "order_nested": ("ground]", "[ground]]", 4, ["order", "no task of mini"]),
    "misspelt_task": ("ground", "grund", 4, ["order", "did you mean 'ground'"]),
    "misspelt_benchmark": ("benchmark: mini", "benchmark: minni", 1, ["did you mean 'mini'"]),
    "misspelt_model": ("model: mini", "model: mimi", 2, ["did you mean 'mini'"]),
    "misspelt_method": ("fwd_prompt", "fwd_promt", 3, ["did you mean 'fwd_prompt'"]),
    "misspelt_tuner": ("seed: 0", "tuner: prompt_pol", 5, ["tuner", "did you mean 'prompt_pool'"]),
    "misspelt_key": ("pool.size", "pool.sise", 6, ["pool.sise", "did you mean 'pool.size'"]),
    "model_a_list": ("model: mini", "model: [mini]", 2, ["name of a model", "got ['mini']"]),
    "no_model": ("model: mini\n", "", 1, ["model", "is missing"]),
    "huge_seed": ("seed: 0", f"seed: {2**63}", 5, ["seed", "2**63 - 1"]),
    "seed_text": ("seed: 0", "seed: x", 5, ["seed", "whole number"]),
    "wrong_type": ("steps: 5", "steps: many", 7, ["train.steps", "valid integer", "'many'"]),
    "infinite_lr": ("steps: 5", "lr: .inf", 7, ["train.lr", "finite number"]),
    "two_spellings": ("seed: 0", "pool: {size: 9}", 6, ["pool.size", "dotted and nested"]),
    "key_no_text": ("{steps: 5}", "{1: 2}", 7, ["'1'", "quote it"]),
    "recursive": ("train: {steps: 5}", "train: &a {x: *a}", 7, ["contains itself"]),
    "not_yaml": ("[attribute, ground]", "[attribute", 5, ["not YAML"]),
    "top_k_above_pool": ("pool.size: 8", "pool: {size: 3, top_k: 4}", 6, ["pool", "only 3 prompts"]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_experiments_name_file_line_key_and_remedy(name: str, tmp_path: Path) -> None:
    old, new, line, fragments = BROKEN[name]
    assert old in GOOD
    path = tmp_path / "experiment.yaml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(SpecError) as refused:
        load_experiment(path)
    assert_names_place(str(refused.value), path, line, fragments)


def test_a_good_experiment_is_read(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(GOOD)
    experiment = load_experiment(path)
    assert (experiment.order, experiment.pool.size, experiment.train.steps) == (("attribute", "ground"), 8, 5)
    path.write_text(GOOD.replace("order: [attribute, ground]\n", ""))
    assert len(load_experiment(path).order) == 8


@pytest.mark.parametrize(
    ("old", "new"), [("mini\nmethod", "damaged\nmethod"), ("order: [attribute, ground]", "order: 3")]
)
def test_the_command_refuses_with_code_2(
    old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(GOOD.replace(old, new))
    monkeypatch.setattr(sys, "argv", ["run", str(path), "--features", str(tmp_path)])
    assert main() == 2
    message = capsys.readouterr().err
    assert message.startswith(str(path))
    assert len(message.splitlines()) == 1


def test_as_many_processes_as_were_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(GOOD.replace("{steps: 5}", "{steps: 5, processes: 2}"))
    assert main([str(path)]) == 2
    said = capsys.readouterr().err
    assert "train.processes is 2, and 1 started" in said
    assert "torchrun --nproc-per-node N -m mcit_core.run" in said


def test_a_stray_world_size_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(GOOD)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert main([str(path)]) == 2
    assert "unset WORLD_SIZE for one process" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_print_and_write_once(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(GOOD.replace("mini", "tiny").replace("{steps: 5}", "{steps: 2, processes: 2}"))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "mcit_core.run", str(path), "--no-cache", "--out", str(tmp_path / "out")),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("stage 1 ground: loss") == 1
    assert done.stdout.count("model and data: loading") == 1
    assert (tmp_path / "out" / "accuracy_matrix.csv").exists()
    assert load_experiment(tmp_path / "out" / "experiment.yaml").train.processes == 2
