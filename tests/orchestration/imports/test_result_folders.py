"""Result folders of CoIN, MCITlib, HiDe-LLaVA and Prism: scores, stages, answers scored again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcit_core.benchmarks import scorers
from mcit_core.benchmarks.captions import SEVEN
from mcit_core.stages.results import UNTOUCHED
from orchestration.imports import answers as answers_module
from orchestration.imports.found import FoundRun, UnreadableError
from orchestration.imports.reading import Asked, read_path
from orchestration.imports.result_folders import read_result
from tests.support.result_folders import answers, write_stage, write_ucit


def rows(run: FoundRun) -> list[list[float | None]]:
    return [
        [round(100 * run.cells[i, task].value, 2) if (i, task) in run.cells else None for task in run.tasks]
        for i in range(len(run.tasks))
    ]


def one(path: Path, asked: Asked | None = None) -> FoundRun:
    (run,) = read_path(path, asked or Asked())
    return run


def test_a_whole_run_of_mcitlib(tmp_path: Path) -> None:
    write_ucit(tmp_path)
    run = one(tmp_path)
    assert (run.benchmark, run.method, run.tasks) == ("ucit", "LoRA", ["ImageNet-R", "ArxivQA", "IconQA"])
    assert rows(run) == [[100.0, None, None], [90.0, 100.0, None], [80.0, 90.0, 100.0]]
    assert run.said == [], "every score is what its answers give"
    cell = run.cells[2, "ImageNet-R"]
    assert (cell.n, cell.accuracy_strict, cell.content_accuracy, cell.format_accuracy) == (20, 0.8, 0.8, 1.0)


@pytest.mark.parametrize(
    ("text", "value", "n"),
    [
        ("Samples: 3000\nAccuracy: 94.63%\n", 94.63, 3000),
        ("Samples: 3000\nBleu_1: 70.16\nCIDEr: 79.91\nAverage: 48.24\n", 48.24, 3000),
        ("Samples: 1000\nFinal_score_dict: {'Text': 176, 'Final Score': 318, 'Final Score Norm': 31.8}", 31.8, 1000),
        ("Samples: 788\nAccuracy: 60.00%\nCount Accuracy: 56.09%\n", 56.09, 788),
        ("Accuracy: 50.00%\nAccuracy: 73.26%\n", 73.26, 0),
        ("Accuracy: 73.26%\n[{'wrong': 'Accuracy: 1%'},\n" + "x" * 300_000 + "\n", 73.26, 0),
    ],
)
def test_every_shape_of_a_result(text: str, value: float, n: int, tmp_path: Path) -> None:
    (tmp_path / "Result.text").write_text(text)
    found = read_result(tmp_path / "Result.text")
    assert found is not None
    assert (found.value, found.n) == (value, n)


def test_a_result_that_was_written_again_and_an_interrupted_stage_are_told(tmp_path: Path) -> None:
    place = write_ucit(tmp_path)
    again = place / "ImageNet-R" / "LoRA-task1" / "Result.text"
    again.write_text("Samples: 20\nAccuracy: 5.00%\n" + again.read_text())
    for file in (place / "ArxivQA" / "LoRA-task3").iterdir():
        file.write_text("")
    run = one(tmp_path)
    assert rows(run) == [[100.0, None, None], [90.0, 100.0, None], [80.0, None, 100.0]]
    assert any("2 results; the last counts" in line for line in run.said)
    assert any("ArxivQA/LoRA-task3: empty files" in line and "interrupted" in line for line in run.said)


def test_a_score_that_its_answers_do_not_give_is_told(tmp_path: Path) -> None:
    place = write_ucit(tmp_path)
    (place / "IconQA" / "LoRA-task3" / "Result.text").write_text("Samples: 21\nAccuracy: 99.00%\n")
    run = one(tmp_path)
    assert run.cells[2, "IconQA"].value == 0.99
    assert any("printed 99, the answers beside it give 100.00" in line for line in run.said)
    assert any("printed of 21 answers, 20 are there with a gold" in line for line in run.said)


def test_form_is_lost_and_content_kept(tmp_path: Path) -> None:
    place = tmp_path / "RS"
    rows_before = [("yes", "yes")] * 8 + [("no", "yes")] * 2
    rows_after = [("yes, it is a large one.", "yes")] * 8 + [("no", "yes")] * 2
    write_stage(place / "M-task1", rows_before, "Samples: 10\nAccuracy: 80.00%", "Result.json")
    write_stage(place / "M-task2", rows_after, "Samples: 10\nAccuracy: 80.00%", "Result.json")
    run = one(tmp_path, Asked(tasks=["RS", "Med"]))
    before, after = run.cells[0, "RS"], run.cells[1, "RS"]
    assert (before.accuracy_strict, after.accuracy_strict) == (0.8, 0.0)
    assert (before.content_accuracy, after.content_accuracy) == (0.8, 0.8)
    assert (before.format_accuracy, after.format_accuracy) == (1.0, pytest.approx(0.2))


def test_coins_stages_are_named_by_task_or_finetune(tmp_path: Path) -> None:
    for task, stage, score in (
        ("ScienceQA", "Finetune", 80),
        ("ScienceQA", "TextVQA", 60),
        ("TextVQA", "Finetune", 50),
        ("ScienceQA", "ImageNet", 40),
        ("TextVQA", "ImageNet", 45),
        ("ImageNet", "Finetune", 90),
        ("ImageNet", "zero-shot", 10),
    ):
        write_stage(tmp_path / "LLaVA-13B" / task / stage, None, f"Accuracy: {score}.00%")
    run = one(tmp_path)
    assert (run.benchmark, run.tasks) == ("coin", ["ScienceQA", "TextVQA", "ImageNet"])
    assert rows(run) == [[80.0, None, None], [60.0, 50.0, None], [40.0, 45.0, 90.0]]
    assert run.cells[UNTOUCHED, "ImageNet"].value == 0.1


def test_answers_without_a_score_take_golds_from_the_data(tmp_path: Path) -> None:
    results, data = tmp_path / "results", tmp_path / "data"
    given = answers(0, 3, 1)
    write_stage(results / "run" / "ScienceQA" / "Finetune", None, "")
    merged = results / "run" / "ScienceQA" / "Finetune" / "merge.jsonl"
    merged.write_text(
        "".join(json.dumps({"question_id": f"q{i}", "text": said}) + "\n" for i, (said, _) in enumerate(given))
    )
    (data / "ScienceQA").mkdir(parents=True)
    test = [{"question_id": f"q{i}", "text": "which?", "answer": gold} for i, (_, gold) in enumerate(given)]
    (data / "ScienceQA" / "test.json").write_text(json.dumps(test))
    with pytest.raises(UnreadableError, match="no score, and no golds beside answers"):
        one(results)
    run = one(results, Asked(golds=data))
    assert run.cells[0, "ScienceQA"].value == 0.75
    assert any("no printed score; 75.00 %" in line for line in run.said)


def test_a_constant_answer_is_told(tmp_path: Path) -> None:
    write_stage(tmp_path / "IconQA" / "X-task1", [("A", "B")] * 10 + [("A", "A")] * 10, "Samples: 20\nAccuracy: 50.00%")
    assert any("nearly every answer is 'A'" in line for line in one(tmp_path).said)


def test_half_a_run_has_all_tasks_of_its_benchmark(tmp_path: Path) -> None:
    for stage in (1, 2, 3, 4):
        write_stage(tmp_path / "RS" / f"M-task{stage}", None, "Samples: 10\nAccuracy: 80.00%")
    assert one(tmp_path).tasks == ["RS", "Med", "AD", "Sci", "Fin"]


def test_tasks_of_nobodys_benchmark_are_ordered_by_their_first_stage_or_asked_for(tmp_path: Path) -> None:
    for task, stage in (("zebra", 1), ("zebra", 2), ("ant", 2)):
        write_stage(tmp_path / "good" / task / str(stage), None, "Accuracy: 80.00%")
        write_stage(tmp_path / "bad" / task / "2", None, "Accuracy: 80.00%") if stage == 2 else None
    assert one(tmp_path / "good").tasks == ["zebra", "ant"]
    with pytest.raises(UnreadableError, match=r"in which order were ant, zebra trained\? .* name them by --tasks"):
        one(tmp_path / "bad")


def test_two_runs_below_a_folder_are_methods_and_different_tasks_are_refused(tmp_path: Path) -> None:
    for method, score in (("EWC", 70), ("LwF", 60)):
        write_stage(tmp_path / method / "results" / "OCR" / "task1", None, f"Accuracy: {score}.00%")
    assert [run.method for run in read_path(tmp_path, Asked(tasks=["OCR"]))] == ["EWC", "LwF"]
    write_stage(tmp_path / "more" / "results" / "RS" / "task1", None, "Accuracy: 1.00%")
    with pytest.raises(UnreadableError, match="runs of different tasks; name one of them"):
        read_path(tmp_path, Asked())


@pytest.mark.parametrize(("text", "value"), [("Accuracy: 5e-05", 5e-05), ("\ufeffAccuracy: 45.3%", 45.3)])
def test_numbers_of_every_form(text: str, value: float, tmp_path: Path) -> None:
    (tmp_path / "Result.text").write_text(text)
    found = read_result(tmp_path / "Result.text")
    assert found is not None
    assert found.value == value
    (tmp_path / "Result.text").write_text("Accuracy: 45.3.1\n")
    assert read_result(tmp_path / "Result.text") is None


def test_stages_from_0_with_the_untouched_models_first(tmp_path: Path) -> None:
    for stage, scores in enumerate(((10, 20), (80,), (70, 60))):
        for task, score in zip(("RS", "Med"), scores, strict=False):
            write_stage(tmp_path / "in" / task / f"m-task{stage}", None, f"Accuracy: {score}.00%")
    run = one(tmp_path / "in", Asked(tasks=["RS", "Med"]))
    assert rows(run) == [[80.0, None], [70.0, 60.0]]
    assert run.cells[UNTOUCHED, "Med"].value == 0.2


def test_two_methods_in_one_folder_are_refused_and_links_are_followed(tmp_path: Path) -> None:
    write_stage(tmp_path / "in" / "ArxivQA" / "LoRA-task1", None, "Accuracy: 80.00%")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "ArxivQA").symlink_to(tmp_path / "in" / "ArxivQA")
    assert rows(one(tmp_path / "linked")) == [[80.0]]
    write_stage(tmp_path / "in" / "ArxivQA" / "MoE-task2", None, "Accuracy: 80.00%")
    with pytest.raises(UnreadableError, match=r"stages of LoRA and of MoE in one folder"):
        one(tmp_path / "in", Asked(tasks=["ArxivQA", "IconQA"]))


def test_answers_that_cannot_be_scored_are_counted(tmp_path: Path) -> None:
    folder = write_stage(tmp_path / "ArxivQA" / "X-task1", answers(0, 3, 1), "Samples: 4\nAccuracy: 75.00%")
    judged = folder / "ans_gt.json"
    judged.write_text(judged.read_text()[:-20])
    assert any("1 answers cannot be scored" in line for line in one(tmp_path).said)


def test_a_lone_task_of_two_benchmarks_is_nobodys(tmp_path: Path) -> None:
    write_stage(tmp_path / "VizWiz" / "X-task1", None, "Accuracy: 75.00%")
    assert one(tmp_path).benchmark is None
    write_stage(tmp_path / "UCIT" / "VizWiz" / "X-task3", None, "Average: 61.60")
    assert one(tmp_path / "UCIT").cells[2, "VizWiz"].value == pytest.approx(0.616)


def test_chunks_alone_are_a_stage(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "ScienceQA" / "Finetune"
    folder.mkdir(parents=True)
    (folder / "8_0.jsonl").write_text(json.dumps({"question_id": "q", "text": "B"}) + "\n")
    (tmp_path / "data" / "scienceqa").mkdir(parents=True)
    (tmp_path / "data" / "scienceqa" / "test.json").write_text(json.dumps([{"id": "q", "text": "?", "answer": "B"}]))
    assert rows(one(tmp_path / "in", Asked(golds=tmp_path / "data"))) == [[100.0]]


CAPTIONS: list[tuple[str, str | list[str]]] = [
    ("a cat on a mat", ["A cat on a mat."]),
    ("two dogs", ["Three dogs run."]),
]


@pytest.mark.parametrize("mean", [0.4477, None, 2.3])
def test_captions_are_scored_a_file_at_a_time(
    mean: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the mean of seven figures, and where that cannot be had."""

    def figures(said: list[str], told: list[list[str]]) -> dict[str, float]:
        if mean is None:
            raise ModuleNotFoundError("pycocoevalcap")
        return dict.fromkeys(SEVEN, mean)

    monkeypatch.setattr(answers_module, "seven_figures", figures)
    printed = "Samples: 2\nBleu_1: 70.16\nCIDEr: 79.91\nAverage: 50.00\n"
    write_stage(tmp_path / "UCIT" / "Flickr30k" / "X-task1", CAPTIONS, printed)
    found = one(tmp_path / "UCIT", Asked(tasks=["Flickr30k"]))
    cell = found.cells[0, "Flickr30k"]
    assert cell.value == pytest.approx(0.5)
    points = [scorers.score("rouge_l", said, told) for said, told in CAPTIONS]
    assert cell.accuracy_strict == pytest.approx(sum(points) / 2)
    told = [line for line in found.said if "give 44.77 by Flickr30k's published rule" in line]
    assert len(told) == (mean == 0.4477)


def test_captions_without_a_score_say_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def figures(said: list[str], told: list[list[str]]) -> dict[str, float]:
        raise ModuleNotFoundError("pycocoevalcap")

    monkeypatch.setattr(answers_module, "seven_figures", figures)
    write_stage(tmp_path / "UCIT" / "ArxivQA" / "X-task1", answers(0, 3, 1), "Accuracy: 75.00%")
    write_stage(tmp_path / "UCIT" / "Flickr30k" / "X-task2", CAPTIONS, "")
    found = one(tmp_path / "UCIT", Asked(tasks=["ArxivQA", "Flickr30k"]))
    assert any("captions want pycocoevalcap and Java" in line for line in found.said)
