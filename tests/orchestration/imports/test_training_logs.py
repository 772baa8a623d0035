"""What training scripts write at each stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcit_core.stages.results import UNTOUCHED
from orchestration.imports.found import FoundRun, UnreadableError
from orchestration.imports.reading import Asked, read_path


def values(run: FoundRun) -> dict[tuple[int, str], float]:
    return {place: round(cell.value, 6) for place, cell in run.cells.items()}


def test_all_results_of_o_lora(tmp_path: Path) -> None:
    for k, task, found in (
        (1, "dbpedia", {"dbpedia": 98.7105}),
        (2, "amazon", {"dbpedia": 98.5526, "amazon": 57.7632}),
    ):
        folder = tmp_path / f"{k}-{task}"
        folder.mkdir()
        told = {f"predict_exact_match_for_{name}": value for name, value in found.items()}
        (folder / "all_results.json").write_text(json.dumps({"epoch": 1.0, "predict_loss": 0.2, **told}))
    (run,) = read_path(tmp_path, Asked())
    assert run.tasks == ["dbpedia", "amazon"]
    assert values(run) == {(0, "dbpedia"): 0.987105, (1, "dbpedia"): 0.985526, (1, "amazon"): 0.577632}


def test_a_stage_without_results_is_told(tmp_path: Path) -> None:
    for name, text in (("1-a", '{"predict_exact_match_for_a": 50}'), ("2-b", '{"epoch": 1}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "all_results.json").write_text(text)
    (run,) = read_path(tmp_path, Asked())
    assert "b has no results after its stage" in run.said[0]
    (tmp_path / "2-b" / "all_results.json").write_text("{")
    with pytest.raises(UnreadableError, match=r"2-b/all_results\.json: no JSON"):
        read_path(tmp_path, Asked())


MAMMOTH = (
    "{'dataset': 'seq-tasks', 'model': 'er', 'seed': SEED, 'lr': 0.1, 'conf_jobnum': 'JOB', 'device': device('cuda'),"
    " 'accmean_task1': 80.0, 'accuracy_1_task1': 80.0, 'accmean_task2': 55.0, 'accuracy_1_task2': 40.0,"
    " 'accuracy_2_task2': 70.0, 'forward_transfer': nan, 'backward_transfer': -40.0, 'forgetting': 40.0}\n"
)


def test_logs_of_mammoth_are_read_as_literals(tmp_path: Path) -> None:
    path = tmp_path / "logs.pyd"
    path.write_text("".join(MAMMOTH.replace("SEED", str(seed)).replace("JOB", f"j{seed}") for seed in (3, 5)))
    first, second = read_path(path, Asked(tasks=["vqa", "ocr"]))
    assert values(first) == {(0, "vqa"): 0.8, (1, "vqa"): 0.4, (1, "ocr"): 0.7}
    assert (first.method, first.seed, second.seed, first.benchmark) == ("er", 3, 5, "seq-tasks")
    assert first.settings == {"lr": 0.1}


def test_nothing_in_logs_is_evaluated(tmp_path: Path) -> None:
    path, mark = tmp_path / "logs.pyd", tmp_path / "mark"
    path.write_text(f"{{'accuracy_1_task1': 50.0, 'x': __import__('pathlib').Path({str(mark)!r}).touch()}}\n")
    (run,) = read_path(path, Asked())
    assert values(run) == {(0, "task 1"): 0.5}
    assert not mark.exists()


@pytest.mark.parametrize("text", ["print(1)\n", "{'a': 1}\n", "", "{\n", "(" * 5000 + "\n"])
def test_logs_that_are_none_are_told(text: str, tmp_path: Path) -> None:
    path = tmp_path / "logs.pyd"
    path.write_text(text)
    with pytest.raises(UnreadableError, match=r"logs\.pyd"):
        read_path(path, Asked())


def test_eval_results_of_avalanche(tmp_path: Path) -> None:
    path = tmp_path / "eval_results.csv"
    path.write_text(
        "eval_exp,training_exp,eval_accuracy,eval_loss,forgetting\n"
        "0,,0.1,2,0\n0,0,0.5,1,0\n0,0,0.9,1,0\n1,0,0.2,1,0\n0,1,0.6,1,0.3\n1,1,0.8,1,0\n"
    )
    (run,) = read_path(tmp_path, Asked())
    assert run.tasks == ["experience 0", "experience 1"]
    assert list(values(run).values()) == [0.1, 0.9, 0.2, 0.6, 0.8]
    assert min(run.cells) == (UNTOUCHED, "experience 0")
    assert "1 pairs stand there again; of each the last line counts" in run.said[0]
    path.write_text("eval_exp,training_exp,eval_accuracy\n0,x,0.5\n")
    with pytest.raises(UnreadableError, match=r"eval_results\.csv:2: no row"):
        read_path(tmp_path, Asked())
