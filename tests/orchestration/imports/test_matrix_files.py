"""Matrices that people write down come back as they were, whatever the file; what cannot be read is told."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcit_core.metrics import summarise
from mcit_core.stages.results import UNTOUCHED
from orchestration.imports.found import UnreadableError
from orchestration.imports.reading import Asked, read_path

TASKS = ["vqa", "ocr", "grounding", "captions", "maths"]
Matrix = list[list[float | None]]

#: worked by hand
WORKED: Matrix = [[90.0, None, None], [80.0, 70.0, None], [60.0, 65.0, 50.0]]
FIGURES = {
    "average_accuracy": 175 / 3,
    "learning_accuracy": 70.0,
    "mean_average_accuracy": (90 + 75 + 175 / 3) / 3,
    "backward_transfer": -17.5,
    "backward_transfer_over_tasks": -35 / 3,
    "average_by_column": (230 / 3 + 67.5 + 50) / 3,
    "average_lower_triangle": 415 / 6,
    "backward_transfer_all_cells": -15.0,
    "forgetting": 17.5,
}


def write(path: Path, tasks: list[str], matrix: Matrix) -> Path:
    """As its name says: .csv, .md or .json."""
    cells = [["" if cell is None else repr(cell) for cell in row] for row in matrix]
    head = ["stage", *tasks]
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([head, *([f"after {tasks[i]}", *row] for i, row in enumerate(cells))])
    elif path.suffix == ".md":
        lines = [head, ["---"] * len(head), *([f"task {i + 1}", *row] for i, row in enumerate(cells))]
        path.write_text("Results\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n\nmore text\n")
    else:
        path.write_text(json.dumps({"tasks": tasks, "A_matrix": matrix}))
    return path


def read(path: Path, asked: Asked | None = None) -> Matrix:
    (run,) = read_path(path, asked or Asked())
    return [
        [run.cells[i, task].value if (i, task) in run.cells else None for task in run.tasks]
        for i in range(len(run.tasks))
    ]


@pytest.mark.parametrize("form", [".csv", ".md", ".json"])
@given(data=st.data(), size=st.integers(1, 5), percent=st.booleans())
def test_a_matrix_comes_back_as_it_was(form: str, data: st.DataObject, size: int, percent: bool) -> None:
    value = st.floats(1.5, 100) if percent else st.floats(0, 1)
    matrix: Matrix = [
        [data.draw(value if j <= i else st.none() | value.filter(bool)) for j in range(size)] for i in range(size)
    ]
    with TemporaryDirectory() as folder:
        found = read(write(Path(folder) / f"m{form}", TASKS[:size], matrix))
    scale = 100 if percent else 1
    assert found == [[None if cell is None else pytest.approx(cell / scale) for cell in row] for row in matrix]


@pytest.mark.parametrize("form", [".csv", ".md", ".json"])
def test_every_convention_gives_what_is_worked_by_hand(form: str, tmp_path: Path) -> None:
    figures = summarise(read(write(tmp_path / f"m{form}", TASKS[:3], WORKED)), variants=True)
    for name, value in FIGURES.items():
        assert 100 * (figures[name] or 0.0) == pytest.approx(value), name


def test_zeros_above_the_diagonal_are_asked_about(tmp_path: Path) -> None:
    zeros: Matrix = [[0.0 if cell is None else cell for cell in row] for row in WORKED]
    path = write(tmp_path / "coin_metrics.json", TASKS[:3], zeros)
    with pytest.raises(
        UnreadableError, match=r"3 zeros above the diagonal \(ocr after stage 1 first\): give --zeros missing"
    ):
        read(path)
    assert read(path, Asked(zeros="missing"))[0] == [0.9, None, None]
    assert read(path, Asked(zeros="measured"))[0] == [0.9, 0.0, 0.0]


def test_a_zero_on_or_below_the_diagonal_is_a_score(tmp_path: Path) -> None:
    assert read(write(tmp_path / "m.csv", TASKS[:2], [[0.0, None], [0.0, 50.0]])) == [[0.0, None], [0.0, 0.5]]


def test_the_unit_is_told_by_size_or_by_its_option(tmp_path: Path) -> None:
    low = write(tmp_path / "m.csv", TASKS[:2], [[0.5, None], [0.4, 0.9]])
    assert read(low) == [[0.5, None], [0.4, 0.9]]
    assert read(low, Asked(unit="percent")) == [[0.005, None], [0.004, pytest.approx(0.009)]]
    with pytest.raises(UnreadableError, match="--unit fraction, but there is an accuracy of 90"):
        read(write(tmp_path / "n.csv", TASKS[:3], WORKED), Asked(unit="fraction"))


def test_layouts_of_coin_plus_plus_and_mcitlib_train(tmp_path: Path) -> None:
    path = tmp_path / "matrix_visual.csv"
    path.write_text("trained_until,photo,chart\nphoto,0.421500,0.283000\nchart,0.400000,0.500000\n")
    assert read(path) == [[0.4215, 0.283], [0.4, 0.5]]
    path.write_text("stage,photo,chart,mean_all,mean_seen\n1,42.1,,42.1,42.1\n2,40,50,45,45\n")
    assert read(path) == [[pytest.approx(0.421), None], [0.4, 0.5]]


def test_an_untouched_row_blanks_and_signs(tmp_path: Path) -> None:
    path = tmp_path / "m.md"
    path.write_text(
        "| Method | VQA | OCR | Last | BWT |\n|:--|--:|--:|--:|--:|\n| Zero-shot | 10.5% | — | - | |\n"
        "| after VQA | **73.26%** | 20 ± 0.3 | 1 | |\n| after OCR | 70 | nan | 1 | -3 |\n"
    )
    (run,) = read_path(path, Asked())
    assert run.tasks == ["VQA", "OCR"]
    assert {place: cell.value for place, cell in run.cells.items()} == {
        (UNTOUCHED, "VQA"): pytest.approx(0.105),
        (0, "VQA"): pytest.approx(0.7326),
        (0, "OCR"): pytest.approx(0.2),
        (1, "VQA"): pytest.approx(0.7),
    }


def test_tasks_give_an_order_or_names(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("stage,b,a\n1,,90\n2,50,80\n")
    assert read(path, Asked(tasks=["a", "b"])) == [[0.9, None], [0.8, 0.5]]
    path.write_text("90,\n80,50\n")
    assert read_path(path, Asked(tasks=["a", "b"]))[0].tasks == ["a", "b"]
    assert read_path(path, Asked())[0].tasks == ["task 1", "task 2"]
    path.write_text("stage,b,a\n1,,90\n2,50,80\n")
    with pytest.raises(UnreadableError, match="its tasks are b, a, those of --tasks a, c"):
        read(path, Asked(tasks=["a", "c"]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stage,a,b\n1,x,\n2,1,2\n", "row '1', column a: 'x' is no number"),
        ("stage,a,a\n1,1,\n2,1,2\n", "tasks a, a: expected names that differ"),
        ("stage,a,b\n1,1,\n1,1,2\n", "a stage twice"),
        ("stage,a,b\n1,101,\n2,1,2\n", "a after stage 1: 101 is no accuracy"),
        ("stage,a,b\n1,-1,\n2,1,2\n", "is no accuracy"),
        ("method,a,b\nLoRA,1,2\nEWC,1,2\nLwF,3,4\n", "the row 'LoRA' names no stage"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(UnreadableError, match=words):
        read(path)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("m.csv", "0,1\n0.9,0.1\n", "a row of accuracies or of names"),
        ("m.csv", "A,B,C\n0.95,0.1,0.1\n0.4,0.6,0.2\n", "the row '0.95' names no stage"),
        ("m.csv", "method,A,B\nLoRA,.5,.6\nMoE,.7,.8\n", "the row 'LoRA' names no stage"),
        ("m.csv", "stage,A,B\nafter A,.5,\nfoo,.7,.8\n", "the row 'foo' names no stage"),
        ("m.csv", "stage,A,B\n1,.5,.2,.9\n2,.5,.2\n", "more cells than the first row"),
        ("m.json", '{"tasks": ["A", "B"], "matrix": [[0.9, 0.1, 0.3], [0.8, 0.7, 0.2]]}', "more cells"),
        ("m.csv", "stage,A,B\n1,inf,\n2,1,2\n", "'inf' is no number"),
        ("m.csv", "stage,A,B\n1,4_5,\n2,1,2\n", "'4_5' is no number"),
        ("m.csv", "stage,A,B\n1,0.9,\n2,0.8,75\n", "is 0.8 beside the others 0.8 % or 80 %"),
        ("m.csv", "stage,A,B\n1,0.5%,\n2,0.4,0.3\n", "Give --unit"),
        ("m.csv", "stage,A>B,C\n1,1,\n2,1,2\n", "without '>'"),
        ("m.csv", "stage,C,C++\n1,1,\n2,1,2\n", "differ in letters or digits"),
        ("m.csv", "", "it is empty"),
        ("m.csv", "stage,A,B\n", "it holds no accuracy"),
        ("m.md", "a | b in words\n\nno table\n", "no table"),
    ],
)
def test_what_could_be_read_in_two_ways_or_in_none_is_refused(name: str, text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UnreadableError, match=re.escape(words)):
        read(tmp_path / name)


def test_names_of_digits_and_orders_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(",1,2,3\n1,0.9,,\n2,0.7,0.8,\n3,0.5,0.5,0.6\n")  # as pandas writes it
    assert read(path) == [[0.9, None, None], [0.7, 0.8, None], [0.5, 0.5, 0.6]]
    path.write_text("trained_until,A,B,C\nC,,,0.9\nA,0.8,,0.7\nB,0.6,0.5,0.4\n")  # columns in the alphabet's order
    (run,) = read_path(path, Asked())
    assert run.tasks == ["C", "A", "B"]
    assert read(path) == [[0.9, None, None], [0.7, 0.8, None], [0.4, 0.6, 0.5]]
    path.write_text("stage,ScienceQA,TextVQA\n1,,0.9\n2,0.5,0.8\n")
    assert read(path, Asked(tasks=["textvqa", "scienceqa"])) == [[0.9, None], [0.8, 0.5]]


def test_a_page_with_words_and_an_empty_first_cell(tmp_path: Path) -> None:
    path = tmp_path / "m.md"
    path.write_text("either a | b\n\n|| A | B |\n|---|---|---|\n| 1 | 50 | |\n| 2 | 40 | 60 |\n")
    assert read(path) == [[0.5, None], [0.4, 0.6]]


@pytest.mark.parametrize("text", ["[1, 2]", "{}", '{"A_matrix": [1]}', "{", "[" * 100_000])
def test_json_that_is_no_matrix_is_told(text: str, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(UnreadableError, match=r"m\.json"):
        read(path)
