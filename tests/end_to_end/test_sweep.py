"""The command, end to end on real Ray and MLflow, small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

SWEEP = """\
name: tiny
benchmark: tiny
tasks: [attribute, ground]
model: tiny
method: fwd_prompt
base: {{train.steps: 3, train.batch_size: 8, pool.size: 6, pool.top_k: 2}}
axes:
  {axis}
references: [zero_shot, direct, sequential]
resources: {{workers: 1}}
"""


def sweep(path: Path, storage: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestration.sweep", str(path), "--storage", str(storage), *more],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def runs(storage: Path) -> list[object]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment
    return list(client.search_runs([experiment.experiment_id], max_results=100))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    """A sweep in which one of two tuners fails in its second stage."""
    folder = tmp_path_factory.mktemp("sweep")
    path = folder / "sweep.yaml"
    path.write_text(SWEEP.format(axis="tuner: [prompt_pool, failing]"))
    return path, folder / "runs", sweep(path, folder / "runs")


def test_a_failing_trial_leaves_the_others_finished(finished) -> None:
    _path, storage, done = finished
    assert done.returncode == 1, done.stderr + done.stdout
    rows = pq.read_table(storage / "tiny" / "trials.parquet").to_pylist()
    by_status = {row["tuner"]: row["status"] for row in rows if row["method"] == "fwd_prompt"}
    assert by_status == {"prompt_pool": "FINISHED", "failing": "FAILED"}
    failed = [row for row in rows if row["status"] == "FAILED"]
    assert all("this tuner fails <on purpose>" in row["error"] for row in failed)
    assert "this tuner fails" in done.stdout
    report = (storage / "tiny" / "report.html").read_text()
    assert "this tuner fails &lt;on purpose&gt;" in report
    assert "Go on with: python -m orchestration.sweep" in done.stdout
    assert "mlflow ui --backend-store-uri" in done.stdout


def test_the_parquet_files_have_what_they_promise(finished) -> None:
    _, storage, _ = finished
    rows = {
        (row["method"], row["tuner"]): row for row in pq.read_table(storage / "tiny" / "trials.parquet").to_pylist()
    }
    good = rows["fwd_prompt", "prompt_pool"]
    for name in ("average_accuracy", "forgetting", "forward_transfer", "transfer_to_direct", "pretrained_retention"):
        assert good[name] is not None, name
    assert good["order"] == "attribute>ground"
    assert {"zero_shot", "direct", "sequential", "fwd_prompt"} == {method for method, _ in rows}
    accuracy = pq.read_table(storage / "tiny" / "accuracy.parquet").to_pylist()
    mine = [row for row in accuracy if row["trial"] == good["trial"]]
    # the untouched model on 2 test splits; then validation of the tasks so far, and test of those and of the next
    assert [sum(row["stage"] == stage for row in mine) for stage in (-1, 0, 1)] == [2, 1 + 2, 2 + 2]
    assert {row["stage"] for row in mine} == {-1, 0, 1}
    assert all(0 <= row["accuracy"] <= 1 for row in mine)
    last = [row["accuracy"] for row in mine if row["stage"] == 1 and row["split"] == "test"]
    assert good["average_accuracy"] == pytest.approx(sum(last) / 2)


def test_mlflow_has_one_parent_and_one_child_a_trial(finished) -> None:
    _, storage, _ = finished
    found = runs(storage)
    trials = pq.read_table(storage / "tiny" / "trials.parquet").to_pylist()
    parents = [run for run in found if run.data.tags["mcit.kind"] == "sweep"]
    children = {run.data.tags["mcit.trial"]: run for run in found if run.data.tags["mcit.kind"] == "trial"}
    assert len(parents) == 1
    assert len(children) == len(trials) == len(found) - 1
    for row in trials:
        run = children[row["trial"]]
        assert run.info.status == ("FAILED" if row["status"] == "FAILED" else "FINISHED")
        assert run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        if row["status"] == "FINISHED":
            assert run.data.metrics["average_accuracy"] == pytest.approx(row["average_accuracy"])
            assert run.data.params["pool.size"] in ("6", "60")


def test_the_same_command_again_trains_nothing_finished_and_doubles_nothing(finished) -> None:
    path, storage, _ = finished
    before = pq.read_table(storage / "tiny" / "trials.parquet").to_pylist()
    points = {run.info.run_id: len(_history(storage, run.info.run_id)) for run in runs(storage)}
    done = sweep(path, storage)
    assert done.returncode == 1
    after = pq.read_table(storage / "tiny" / "trials.parquet").to_pylist()
    for old, new in zip(before, after, strict=True):
        assert old["average_accuracy"] == new["average_accuracy"]
        if new["status"] == "FINISHED":
            assert new["stages_trained"] == 0
    assert points == {run.info.run_id: len(_history(storage, run.info.run_id)) for run in runs(storage)}


def _history(storage: Path, run: str) -> list[object]:
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{storage / 'mlflow.db'}").get_metric_history(run, "average_accuracy")


def test_tracking_is_back_filled_from_parquet(finished, tmp_path: Path) -> None:
    _, storage, _ = finished
    uri = f"sqlite:///{tmp_path / 'other.db'}"
    done = subprocess.run(
        [sys.executable, "-m", "orchestration.track", str(storage / "tiny"), "--uri", uri],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment
    copied = {
        run.data.tags.get("mcit.trial"): run.data.metrics for run in client.search_runs([experiment.experiment_id])
    }
    for run in runs(storage):
        assert copied[run.data.tags.get("mcit.trial")] == run.data.metrics


def test_dry_run_trains_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.format(axis="projection.task_energy: [0.5, 0.9]"))
    done = sweep(path, tmp_path / "runs", "--dry-run")
    assert done.returncode == 0
    assert "5 trials, 8 stages, 6 distinct" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_one_process_without_ray_gives_the_same_numbers(finished, tmp_path: Path) -> None:
    _, storage, _ = finished
    trials = pq.read_table(storage / "tiny" / "trials.parquet").to_pylist()
    wanted = next(row for row in trials if row["method"] == "fwd_prompt" and row["status"] == "FINISHED")
    path = tmp_path / "experiment.yaml"
    path.write_text(
        "benchmark: tiny\nmodel: tiny\nmethod: fwd_prompt\norder: [attribute, ground]\n"
        "train: {steps: 3, batch_size: 8}\npool: {size: 6, top_k: 2}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mcit_core.run", str(path), "--features", str(storage / "features")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = dict(line.split()[:2] for line in done.stdout.splitlines() if line.startswith(("average_", "forgetting")))
    assert printed["average_accuracy"] == f"{100 * wanted['average_accuracy']:.1f}"
    assert printed["forgetting"] == f"{100 * wanted['forgetting']:.1f}"
