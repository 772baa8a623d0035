"""The embedded benchmark: deterministic, disjoint, and every answer readable in every style."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest

from mcit_core.benchmarks.mini import HANDWRITTEN, TASKS, MiniBenchmark, endless_rows
from mcit_core.data.features import table_digest
from mcit_core.miniworld.draw import handwritten_digits
from mcit_core.miniworld.language import STYLES, read, write
from mcit_core.miniworld.mixture import is_task_word, mixture_example, mixture_picture, random_word

SMALL = {"train": 60, "validation": 30, "test": 30}


@pytest.mark.parametrize("task", TASKS)
def test_tables_are_deterministic_and_disjoint(task: str) -> None:
    benchmark = MiniBenchmark(SMALL)
    tables = {split: benchmark.rows(task, split) for split in SMALL}
    assert table_digest(tables["test"]) == table_digest(benchmark.rows(task, "test"))
    images = [{row[0] for row in table["images"].to_pylist()} for table in tables.values()]
    assert sum(map(len, images)) == len(set.union(*images)) == sum(SMALL.values())
    assert len(set(tables["train"]["instruction"].to_pylist())) >= 2  # paraphrases


def test_real_digits_are_split_before_anything_is_drawn() -> None:
    ranges = [range(*HANDWRITTEN[split]) for split in ("train", "validation", "test")]
    assert all(a.stop <= b.start for a, b in pairwise(ranges))
    images, labels = handwritten_digits()
    assert ranges[-1].stop == len(images) == len(labels)


@pytest.mark.parametrize("task", TASKS)
def test_the_right_answer_scores_and_other_styles_keep_the_content(task: str) -> None:
    benchmark = MiniBenchmark(SMALL)
    for row in islice(endless_rows(task, "test"), 30):
        answer, kind = str(row["answer"]), str(row["content_kind"])
        assert benchmark.score(task, answer, answer) == 1
        content = read(answer, kind)
        assert content is not None
        assert benchmark.content_score(task, answer, answer, kind) == 1
        assert benchmark.score(task, answer.swapcase() + "x", answer) == 0


def test_content_is_one_value_in_every_style() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(400):
        picture, _ = mixture_picture(rng)
        content = mixture_example(picture, rng).content
        values = {read(write(content, style), content.kind) for style in STYLES[content.kind]}
        assert len(values) == 1, content
        assert None not in values, content
        seen.add(content.kind)
    assert seen == set(STYLES)


def test_the_mixture_is_disjoint_from_the_tasks() -> None:
    rng = np.random.default_rng(0)
    mixture = {mixture_example(mixture_picture(rng)[0], rng).instruction for _ in range(2000)}
    for task in TASKS:
        instructions = {str(row["instruction"]) for row in islice(endless_rows(task, "train"), 100)}
        assert not mixture & instructions, task
    assert is_task_word(random_word(rng, for_tasks=True))
    assert not is_task_word(random_word(rng, for_tasks=False))


def test_at_least_two_pairs_share_style_and_skill() -> None:
    assert TASKS["attribute"].styles == TASKS["bars"].styles
    assert TASKS["ground"].styles == TASKS["locate"].styles


def test_a_list_of_objects_says_the_same_in_any_order() -> None:
    assert "objects" in STYLES
    assert read("a red circle , a blue square", "objects") == read("blue square , red circle", "objects")
    assert read("a red circle , a blue square", "objects") != read("a red square , a blue circle", "objects")
