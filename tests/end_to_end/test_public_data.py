"""Public formats through `orchestration.sweep` on the embedded model; what cannot be read is refused before Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.support import public_data

TASKS = {
    "coin": ["TextVQA", "Grounding"],  # ScienceQA has rows of text alone, which mini does not read
    "ucit": ["CLEVR-Math", "Flickr30k"],
    "mllm_dcl": ["RS", "Sci"],
    "mllm_acl": ["OCR", "VP"],
    "llava_json": ["letters", "colours"],
}


def sweep(folder: Path, kind: str, root: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    spec = {
        "name": "public",
        "benchmark": {"kind": kind, "root": str(root), **settings},
        "tasks": TASKS[kind],
        "model": "mini",
        "method": "fwd_prompt",
        "base": {"train.steps": 2, "train.batch_size": 4},
        "axes": {"projection.task_energy": [0.5]},
        "references": ["sequential", "blind", "majority"],
    }
    path = folder / "public.yaml"
    path.write_text(yaml.safe_dump(spec))
    command = [sys.executable, "-m", "orchestration.sweep", str(path), "--storage", str(folder / "runs")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TASKS)
def test_a_sequence_of_two_tasks(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = public_data.FORMS[kind](tmp_path / "data")
    done = sweep(tmp_path, kind, root, scoring="published")
    assert done.returncode == 0, done.stdout + done.stderr
    table = pq.read_table(tmp_path / "runs" / "public" / "accuracy.parquet").to_pylist()
    assert {row["task"] for row in table} >= {*TASKS[kind]}
    assert all(0 <= row["accuracy"] <= row["content_accuracy"] + 1e-9 <= 1 + 1e-9 for row in table)
    of_tasks = [row for row in table if row["task"] in TASKS[kind]]
    assert all(0 <= row[name] <= 1 for row in of_tasks for name in ("accuracy_strict", "format_accuracy"))
    assert "Answers: form and content" in (tmp_path / "runs" / "public" / "report.html").read_text()


def test_bad_rows_are_refused_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = public_data.llava_json(tmp_path / "data")
    path = root / "letters" / "train.json"
    rows = json.loads(path.read_text())
    rows[2]["image"] = "images/gone.png"
    path.write_text(json.dumps(rows))
    done = sweep(tmp_path, "llava_json", root)
    assert done.returncode == 2
    assert (
        "letters/train.json: 1 rows cannot be read: row 2: there is no picture images/gone.png"
        in done.stdout + done.stderr
    )
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs" / "public" / "accuracy.parquet").exists()
