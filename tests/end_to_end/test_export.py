"""`python -m orchestration.export` on the RUN of a sweep over a model of transformers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from mcit_core.stages.keys import StageKey
from mcit_core.stages.state import StageState
from orchestration.export import main
from orchestration.keep.stage_store import StageStore
from tests.support.places import ROOT
from tests.support.tiny_vlms import folder_of

SWEEP = """
name: exported
benchmark: {{kind: mini, train_rows: 12, validation_rows: 4, test_rows: 6}}
model: {{kind: hf, path: {path}}}
tasks: [attribute, ground]
method: llaca
base: {{train.steps: 2, train.batch_size: 4, evaluation.batch_size: 6, evaluation.max_new_tokens: 2, train.lr: 0.01}}
axes: {{method: [llaca, o_lora, fwd_prompt]}}
references: [zero_shot, direct]
"""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    file = folder / "exported.yaml"
    file.write_text(SWEEP.format(path=folder_of("llava")))
    command = [sys.executable, "-m", "orchestration.sweep", str(file), "--storage", str(folder / "runs")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "runs"


def trial_of(storage: Path, method: str, tuner: str | None = None) -> str:
    rows = pq.read_table(storage / "exported" / "trials.parquet").to_pylist()
    return next(str(row["trial"]) for row in rows if row["method"] == method and tuner in (None, row["tuner"]))


def test_a_group_is_a_folder(storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trial = trial_of(storage, "llaca")
    assert main([str(storage / "exported"), trial, "--stage", "1", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "sends each row to one of these groups" in said.out
    assert not said.err
    about = [json.loads((tmp_path / "out" / f"group{i}" / "mcit.json").read_text()) for i in (0, 1)]
    assert [entry["tasks"] for entry in about] == [["attribute"], ["ground"]]
    stored = StageStore(storage / "stages").get_stage(about[0]["key"])
    assert stored is not None
    for number in (0, 1):
        found = load_file(tmp_path / "out" / f"group{number}" / "adapter_model.safetensors")
        group = stored[0].group(number)
        assert group is not None
        name = next(name for name in group.tensors if name.startswith("A."))
        assert torch.equal(
            found[f"base_model.model.model.language_model.{name[2:]}.lora_A.weight"], group.tensors[name]
        )


def test_stages_by_number_and_by_task(storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, trial = str(storage / "exported"), trial_of(storage, "o_lora")
    for stage, out in (("0", "a"), ("attribute", "b"), ("ground", "c")):
        assert main([run, trial[:9], "--stage", stage, str(tmp_path / out)]) == 0, capsys.readouterr().err
    assert main([run, trial, str(tmp_path / "d")]) == 0
    read = {name: (tmp_path / name / "adapter_model.safetensors").read_bytes() for name in "abcd"}
    assert read["a"] == read["b"] != read["c"] == read["d"]
    ranks = {name: json.loads((tmp_path / name / "adapter_config.json").read_text())["r"] for name in "ac"}
    assert ranks == {"a": 8, "c": 16}


def test_what_cannot_be_exported_is_said(storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = str(storage / "exported"), str(tmp_path / "out")
    lora = trial_of(storage, "llaca")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for arguments, said in (
        ([run, trial_of(storage, "fwd_prompt"), out], "tuner prompt_pool, of method fwd_prompt, has no form of peft's"),
        ([run, trial_of(storage, "zero_shot"), out], "method zero_shot trains nothing"),
        ([run, lora, "--stage", "2", out], "--stage 2: " + lora + " has the stages 0 (attribute), 1 (ground)"),
        ([run, "llama", out], "there is no trial 'llama'"),
        ([run, "direct", out], "2 trials start with 'direct'"),
        ([str(tmp_path), lora, out], "sweep.yaml"),
        ([run, lora, str(tmp_path / "full")], "is there and not empty"),
        ([run, lora, out, "--stages", str(tmp_path / "none")], "(0 stages, none of its settings)"),
        ([run, lora, str(tmp_path / "full" / "file")], "is a file; expected a folder"),
    ):
        assert main(arguments) == 2, arguments
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def copied(storage: Path, folder: Path) -> Path:
    """The RUN and its stages in another storage."""
    shutil.copytree(storage, folder, ignore=shutil.ignore_patterns("mlflow*", "features", "mlartifacts"))
    return folder


def test_a_broken_run_is_said(storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lora = trial_of(storage, "o_lora")
    for number, content in enumerate((b"{", b"5", b"\xff\xfe", b"imported: [{trial: a}]")):
        run = copied(storage, tmp_path / f"runs{number}") / "exported"
        (run / "sweep.yaml").write_bytes(content)
        assert main([str(run), lora, str(tmp_path / "out")]) == 2
        said = capsys.readouterr().err
        assert ("was imported" if b"imported" in content else "sweep.yaml") in said


def test_of_stages_that_are_alike_it_is_the_one_that_measured_the_same(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where code has changed since, and the sweep has trained the stage again."""
    run, trial = copied(storage, tmp_path / "runs") / "exported", trial_of(storage, "o_lora")
    assert main([str(run), trial, "--stage", "0", str(tmp_path / "first")]) == 0
    store = StageStore(tmp_path / "runs" / "stages")
    key = json.loads((tmp_path / "first" / "mcit.json").read_text())["key"]
    record = store.record(key)
    found = store.get_stage(key)
    assert record is not None
    assert found is not None
    other = {name: value + 1 for name, value in found[0].tensors.items()}
    made_from = {**record["made_from"], "code": "another"}
    again = StageKey("0" * 64, "attribute", None, made_from)
    store.put_stage(again, StageState(other), replace(found[1], metrics={**found[1].metrics, "seconds/train": 99.0}))
    assert main([str(run), trial, "--stage", "0", str(tmp_path / "second")]) == 0
    read = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("first", "second")]
    assert read[0] == read[1]
    store.delete(key)
    assert main([str(run), trial, "--stage", "0", str(tmp_path / "third")]) == 2
    assert "1 of its settings, trained at another time" in capsys.readouterr().err


def test_a_damaged_stage_stays_where_it_is(storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, trial = copied(storage, tmp_path / "runs") / "exported", trial_of(storage, "o_lora")
    for state in (tmp_path / "runs" / "stages").glob("*/*/state.safetensors"):
        state.write_bytes(state.read_bytes()[:-1])
    before = sorted((tmp_path / "runs" / "stages").rglob("*"))
    assert main([str(run), trial, str(tmp_path / "out")]) == 2
    assert "is damaged (the checksum of state.safetensors does not match)" in capsys.readouterr().err
    assert sorted((tmp_path / "runs" / "stages").rglob("*")) == before


def test_out_may_be_an_empty_folder_or_a_link_to_one(storage: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    assert main([str(storage / "exported"), trial_of(storage, "o_lora"), str(tmp_path / "link")]) == 0
    assert (tmp_path / "empty" / "adapter_config.json").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_other_weights_are_told(storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder that the sweep was of has another model in it by now."""
    folder = folder_of("llava")
    before = (folder / "model.safetensors").read_bytes()
    shutil.copy(folder_of("llava_next") / "model.safetensors", folder / "model.safetensors")
    try:
        command = [sys.executable, "-m", "orchestration.export", str(storage / "exported")]
        command += [trial_of(storage, "o_lora"), str(tmp_path / "out")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    finally:
        (folder / "model.safetensors").write_bytes(before)
    assert done.returncode == 0
    assert "not the files, settings or versions that the stage was trained with" in done.stderr
