"""Models of transformers through the command, every way of protecting, three families."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.places import ROOT
from tests.support.tiny_vlms import folder_of

FAMILIES = ("llava", "qwen2_5_vl", "instructblip_t5")
METHODS = (
    *("fwd_prompt", "llaca", "pegp_prompt", "pegp_prefix", "pegp_lora", "pegp_adapter", "er", "ewc", "lwf", "o_lora"),
)
SWEEP = """
name: published
benchmark: {{kind: mini, train_rows: 12, validation_rows: 4, test_rows: 6}}
model: {{kind: hf}}
tasks: [attribute, ground]
method: fwd_prompt
base: {{train.steps: 3, train.batch_size: 4, evaluation.batch_size: 6, evaluation.max_new_tokens: 4}}
axes: {{method: {methods}, model.path: {paths}}}
seeds: [0]
references: []
"""


@pytest.mark.slow
def test_every_method_on_three_families(tmp_path: Path) -> None:
    paths = [str(folder_of(family)) for family in FAMILIES]
    file = tmp_path / "published.yaml"
    file.write_text(SWEEP.format(methods=json.dumps(METHODS), paths=json.dumps(paths)))
    command = [sys.executable, "-m", "orchestration.sweep", str(file), "--storage", str(tmp_path / "runs")]

    def run() -> str:
        done = subprocess.run(
            [*command, "--workers", "2"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=1500
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    assert "comes with no sample of the data it was pre-trained on" in run()
    table = tmp_path / "runs" / "published" / "trials.parquet"
    trials = pq.read_table(table).to_pylist()
    assert {(trial["method"], trial["model.path"]) for trial in trials} == {(m, p) for m in METHODS for p in paths}
    assert {trial["status"] for trial in trials} == {"FINISHED"}
    run()
    assert {trial["stages_trained"] for trial in pq.read_table(table).to_pylist()} == {0}
