"""The public easy-VQA data as six tasks: nothing lost, nothing twice, no picture in two splits."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter

import pytest

from mcit_core.benchmarks.easy_vqa import BOOLEANS, COLOURS, SHAPES, TASKS, EasyVqaBenchmark, EasyVqaSettings, task_of

ALL = EasyVqaSettings(validation_rows=None)


@pytest.fixture(scope="module")
def benchmark() -> EasyVqaBenchmark:
    return EasyVqaBenchmark(ALL)


def test_every_published_question_is_in_one_task(benchmark: EasyVqaBenchmark) -> None:
    """38,575 and 9,673 by the data's own README."""
    sizes = {
        split: sum(benchmark.rows(task, split).num_rows for task in TASKS) for split in ("train", "validation", "test")
    }
    assert sizes["train"] + sizes["validation"] == 38575
    assert sizes["test"] == 9673
    pairs: Counter[tuple[str, str]] = Counter()
    for task in TASKS:
        table = benchmark.rows(task, "test")
        pairs.update(zip(table["instruction"].to_pylist(), table["answer"].to_pylist(), strict=True))
    told = json.loads((benchmark._folder / "test" / "questions.json").read_text())
    assert pairs == Counter((question, answer) for question, answer, _ in told)


def test_no_picture_is_for_training_and_for_validation(benchmark: EasyVqaBenchmark) -> None:
    numbers = {
        split: {path.name for task in TASKS for _, _, path in benchmark._questions[task, split]}
        for split in ("train", "validation")
    }
    assert not numbers["train"] & numbers["validation"]
    assert len(numbers["train"]) + len(numbers["validation"]) == 4000


@pytest.mark.parametrize(
    ("question", "answer", "task"),
    [
        ("what is the blue shape?", "rectangle", "shape"),
        ("what color is the circle?", "teal", "colour"),
        ("is there a circle?", "no", "has_shape"),
        ("does the image contain a rectangle?", "yes", "has_shape"),
        ("is a black shape present?", "no", "has_colour"),
        ("is no triangle present?", "yes", "lacks_shape"),
        ("does the image not contain a circle?", "no", "lacks_shape"),
        ("is there not a gray shape in the image?", "no", "lacks_colour"),
        ("is no red shape present?", "yes", "lacks_colour"),
    ],
)
def test_a_task_is_what_is_asked_and_how(question: str, answer: str, task: str) -> None:
    assert task_of(question, answer) == task


def test_answers_are_of_their_task(benchmark: EasyVqaBenchmark) -> None:
    for task in TASKS:
        kinds = {"shape": SHAPES, "colour": COLOURS}
        assert {*benchmark.rows(task, "test")["answer"].to_pylist()} == {*kinds.get(task, BOOLEANS)}


def test_fewer_rows_are_the_first_of_more(benchmark: EasyVqaBenchmark) -> None:
    few = EasyVqaBenchmark(EasyVqaSettings(train_rows=20)).rows("colour", "train")
    assert few.equals(benchmark.rows("colour", "train").slice(0, 20))


@pytest.mark.parametrize(
    ("prediction", "answer", "strict", "content"),
    [
        ("circle", "circle", 1, 1),
        (" circle\n", "circle", 1, 1),
        ("Circle", "circle", 0, 1),
        ("It is a circle.", "circle", 0, 1),
        ("a circle or a triangle", "circle", 0, 0),
        ("semicircle", "circle", 0, 0),
        ("", "circle", 0, 0),
    ],
)
def test_scores(benchmark: EasyVqaBenchmark, prediction: str, answer: str, strict: float, content: float) -> None:
    assert benchmark.score("shape", prediction, answer) == strict
    assert benchmark.content_score("shape", prediction, answer, "shape") == content


def test_pictures_are_64_by_64_in_colour(benchmark: EasyVqaBenchmark) -> None:
    example = benchmark.open(benchmark.rows("shape", "test").slice(0, 1).to_pylist()[0])
    (picture,) = example.images
    assert (picture.size, picture.mode) == ((64, 64), "RGB")


def test_without_its_package_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"easy-vqa: `pip install '.\[smol\]'`"):
        EasyVqaBenchmark()
