"""The command: a RUN as a sweep has it, of one place or of several by a mapping file."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from orchestration.import_results import main
from orchestration.keep.files import StorageError
from orchestration.results.reading import read_results
from tests.orchestration.imports.test_matrix_files import TASKS, WORKED, write
from tests.support.result_folders import write_stage, write_ucit


def trials(run: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(run / "trials.parquet").to_pylist()
    return rows


def test_a_run_has_what_a_sweeps_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = write_ucit(tmp_path)
    storage = tmp_path / "runs"
    assert main([str(place), "--name", "theirs", "--storage", str(storage)]) == 0
    run = storage / "theirs"
    (trial,) = trials(run)
    assert trial["status"] == "FINISHED"
    assert trial["average_accuracy"] == pytest.approx(0.9)
    assert trial["forgetting"] == pytest.approx(0.15)
    assert trial["content_average_accuracy"] == pytest.approx(0.9)
    cells = pq.read_table(run / "accuracy.parquet").to_pylist()
    assert {(cell["stage"], cell["n"], cell["accuracy_strict"] == cell["accuracy"]) for cell in cells} == {
        (0, 20, True),
        (1, 20, True),
        (2, 20, True),
    }
    page = (run / "report.html").read_text()
    assert "1 run that others have made" in page
    assert "Answers: form and content" in page
    figures = (run / "conventions.csv").read_text()
    assert 'average_accuracy,"MFN, Last, AP, ACC",0.900000' in figures
    assert "backward_transfer_over_tasks,BWT of CoIN (over T),-0.100000" in figures
    assert "theirs" in capsys.readouterr().out

    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("theirs")
    found = client.search_runs([experiment.experiment_id], "tags.`mcit.kind` = 'trial'")
    assert [each.data.metrics["average_accuracy"] for each in found] == [pytest.approx(0.9)]
    # an import takes the place of the one before
    assert main([str(place), "--name", "theirs", "--storage", str(storage)]) == 0
    assert len(client.search_runs([experiment.experiment_id], "tags.`mcit.kind` = 'trial'")) == 1


def test_a_mapping_file_makes_seeds_methods_and_settings(tmp_path: Path) -> None:
    for seed in (1, 2):
        for ratio in (0.01, 0.1):
            shifted = [[None if cell is None else cell - seed - ratio for cell in row] for row in WORKED]
            write(tmp_path / f"replay_{ratio}_{seed}.json", TASKS[:3], shifted)
    write(tmp_path / "plain.csv", TASKS[:3], WORKED)
    told = [
        {"path": f"replay_{ratio}_{seed}.json", "method": "replay", "seed": seed, "settings": {"ratio": ratio}}
        for seed in (1, 2)
        for ratio in (0.01, 0.1)
    ]
    mapping = {"model": "LLaVA-7B", "benchmark": "CoIN", "runs": [*told, {"path": "plain.csv", "method": "sequential"}]}
    file = tmp_path / "mapping.yaml"
    file.write_text(yaml.safe_dump(mapping))
    assert main([str(file), "--name", "all", "--storage", str(tmp_path / "runs")]) == 0
    run = tmp_path / "runs" / "all"
    assert {(row["method"], row["seed"], row["ratio"]) for row in trials(run)} == {
        ("replay", 1, 0.01),
        ("replay", 1, 0.1),
        ("replay", 2, 0.01),
        ("replay", 2, 0.1),
        ("sequential", 0, None),
    }
    results = read_results(run)
    assert results.axes == {"method": ["replay", "sequential"], "ratio": [0.01, 0.1, None]}
    assert (results.sweep["model"], results.sweep["benchmark"]) == ("LLaVA-7B", "CoIN")


def test_an_unfinished_run_has_what_it_came_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stage, scores in enumerate(((80,), (70, 60), (60, 50)), 1):
        for task, score in zip(("RS", "Med"), scores, strict=False):
            write_stage(tmp_path / "in" / task / f"M-task{stage}", None, f"Samples: 10\nAccuracy: {score}.00%")
    write_stage(tmp_path / "in" / "AD" / "M-task3", None, "")
    assert main([str(tmp_path / "in"), "--name", "half", "--storage", str(tmp_path / "runs")]) == 0
    (trial,) = trials(tmp_path / "runs" / "half")
    assert (trial["status"], trial["average_accuracy"]) == ("UNFINISHED", None)
    assert trial["partial/average_accuracy"] == pytest.approx(0.65)
    assert "after 2 of 3 tasks" in (tmp_path / "runs" / "half" / "report.html").read_text()
    told = capsys.readouterr().out
    assert "interrupted; not measured" in told
    assert "not measured: AD after stage 3" in told


def test_what_its_authors_printed_is_found_among_our_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "coin_metrics.json", TASKS[:3], WORKED)
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "T": 3, "ratio": 0.01, "MAA": 74.4444, "BWT": -11.6667, "MFN": 99.0}))
    assert main([str(path), "--name", "coin", "--storage", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    assert "its BWT -11.6667 is backward_transfer_over_tasks here" in said
    assert "its MAA 74.4444 is mean_average_accuracy here" in said
    assert "its MFN 99 is none of average_accuracy" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("runs: [{path: m.csv, zero: missing}]", "runs.0.zero: Extra inputs"),
        ("runs: [{method: x}]", "runs.0.path: Field required"),
        ("runs: []", "expected one run at least"),
        ("runs: [{path: m.csv, settings: {order: x}}]", "settings.order: a RUN has a column of this name"),
        ("runs: [{path: m.csv}, {path: other.csv}]", "runs of different tasks cannot make one RUN"),
        ("runs: [{path: m.csv, seed: 0}, {path: m.csv, seed: 0}]", "with seed 0 and the same settings twice"),
        ("runs: [{path: m.csv, method: direct}]", "direct is no sequence"),
        ("runs: [{path: none.csv}]", "none.csv is not there"),
        ("runs: [", "mapping.yaml"),
    ],
)
def test_a_mapping_file_that_cannot_be_is_refused(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "m.csv", TASKS[:3], WORKED)
    write(tmp_path / "other.csv", TASKS[1:4], WORKED)
    (tmp_path / "mapping.yaml").write_text(text)
    assert main([str(tmp_path / "mapping.yaml"), "--name", "x", "--storage", str(tmp_path / "runs")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "runs" / "x").exists()


def test_zeros_unknown_layouts_and_taken_names_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zeros = write(tmp_path / "m.csv", TASKS[:2], [[90.0, 0.0], [80.0, 70.0]])
    storage = ["--storage", str(tmp_path / "runs")]
    assert main([str(zeros), "--name", "z", *storage]) == 2
    assert "--zeros missing" in capsys.readouterr().err
    (tmp_path / "m.pkl").write_bytes(b"x")
    assert main([str(tmp_path / "m.pkl"), "--name", "z", *storage]) == 2
    assert "unknown layout; known are" in capsys.readouterr().err
    sweep = tmp_path / "runs" / "sweep"
    sweep.mkdir(parents=True)
    (sweep / "sweep.yaml").write_text("name: sweep\n")
    assert main([str(zeros), "--name", "sweep", "--zeros", "missing", *storage]) == 2
    assert "is the RUN of a sweep; give the import another --name" in capsys.readouterr().err
    assert main([str(zeros), "--name", "../up", "--zeros", "missing", *storage]) == 2
    assert "--name ../up: expected letters" in capsys.readouterr().err


def test_a_storage_that_cannot_be_written_is_another_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr("orchestration.imports.writing.write_tables", full)
    path = write(tmp_path / "m.csv", TASKS[:3], WORKED)
    command = [str(path), "--name", "x", "--storage", str(tmp_path / "runs")]
    assert main(command) == 1
    monkeypatch.undo()
    assert main(command) == 0, "what it left behind is no hindrance"


def test_names_that_mlflow_does_not_take(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", ["VQA (v2)", "50% x"], [[90.0, None], [80.0, 70.0]])
    assert main([str(path), "--name", "x", "--storage", str(tmp_path / "runs")]) == 0


def test_runs_of_several_folders_are_named_by_them(tmp_path: Path) -> None:
    for name in ("lr_0.01", "lr_0.001"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "coin_metrics.json", TASKS[:3], WORKED)
    told = {"runs": [{"path": f"{name}/coin_metrics.json"} for name in ("lr_0.01", "lr_0.001")]}
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(told))
    assert main([str(tmp_path / "mapping.yaml"), "--name", "x", "--storage", str(tmp_path / "runs")]) == 0
    assert {row["method"] for row in trials(tmp_path / "runs" / "x")} == {"lr_0.01", "lr_0.001"}


def test_the_report_tells_when_answers_change_their_form(tmp_path: Path) -> None:
    """As ArxivQA's letters became digits once IconQA had been learned."""
    place = tmp_path / "UCIT"
    kept, lost = [("B", "B")] * 20, [("B", "B")] * 8 + [("2", "B")] * 12
    write_stage(place / "ArxivQA" / "X-task1", kept, "Accuracy: 100.00%")
    write_stage(place / "ArxivQA" / "X-task2", lost, "Accuracy: 40.00%")
    write_stage(place / "IconQA" / "X-task2", [("3", "3")] * 20, "Accuracy: 100.00%")
    tasks = ["--tasks", "ArxivQA,IconQA"]
    assert main([str(place), "--name", "forms", "--storage", str(tmp_path / "runs"), *tasks]) == 0
    page = (tmp_path / "runs" / "forms" / "report.html").read_text()
    assert ">letter 100 → digit 60, letter 40</td>" in page
    assert "<b>60.0 with IconQA</b>" in page
    stages = pq.read_table(tmp_path / "runs" / "forms" / "stages.parquet").to_pylist()
    told = {(row["stage"], row["name"]): row["value"] for row in stages}
    assert told[1, "answer_shape/ArxivQA/digit"] == pytest.approx(0.6)
