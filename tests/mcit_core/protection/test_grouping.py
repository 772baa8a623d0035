"""Instruction grouping: which tasks share a set of weights, and which set an instruction is sent to."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.protection.grouping import GroupingSettings, TfidfGroups, compared
from mcit_core.training.sequence import Sequence
from mcit_core.training.stage import groups_at, train_stage

COUNTING = ["how many balls are there", "how many cubes are there"]
READING = ["read the word aloud", "spell the word"]
PLACES = ["how many balls are left of it", "how many cubes are left of it"]
ALL = {"counting": COUNTING, "reading": READING, "places": PLACES}


def grouped(
    instructions: dict[str, list[str]], threshold: float, **settings: Literal["pretrained", "question", "file"]
) -> TfidfGroups:
    return TfidfGroups(instructions, GroupingSettings.model_validate({"threshold": threshold, **settings}))


def test_tasks_with_like_instructions_share_a_group() -> None:
    groups = grouped(ALL, 0.3)
    assert groups.members == [["counting", "places"], ["reading"]]
    assert [groups.of(task) for task in ALL] == [0, 1, 0]


def test_the_threshold_decides() -> None:
    assert grouped(ALL, 0.0).members == [["counting", "reading", "places"]]
    assert grouped(ALL, 1.0).members == [["counting"], ["reading"], ["places"]]


def test_the_instruction_alone_finds_its_group() -> None:
    groups = grouped(ALL, 0.3)
    assert groups.choose([*COUNTING, *READING, *PLACES]) == [0, 0, 1, 1, 0, 0]
    assert groups.choose(["spell the cubes"]) == [1]
    assert groups.choose(["was anders"]) == [0]  # no word is known: the first group answers


def test_nearness_is_the_mean_cosine_over_all_pairs() -> None:
    groups = grouped({"one": ["a b", "a c"], "two": ["d"]}, 0.5)
    # one vocabulary of a, b, c, d over 3 texts: idf(a) = ln(4/3) + 1, of the others ln(4/2) + 1
    a, other = np.log(4 / 3) + 1, np.log(2) + 1
    cosine_b = a * a / np.hypot(a, other) / np.hypot(a, other)  # between "a b" and "a c"
    assert groups._nearness(["a b"])[0] == pytest.approx([(1 + cosine_b) / 2, 0])


def test_how_often_an_instruction_is_asked_does_not_matter() -> None:
    assert grouped({**ALL, "reading": READING * 5}, 0.3).members == grouped(ALL, 0.3).members


def test_a_task_that_comes_later_leaves_earlier_groups_together() -> None:
    early, late = grouped({"counting": COUNTING, "reading": READING}, 0.3), grouped(ALL, 0.3)
    for before, after in zip(early.members, late.members, strict=False):
        assert after[: len(before)] == before


#: two answer formats over three kinds of question
TEMPLATES = {
    "counting": [f"{text}\nanswer with one number" for text in COUNTING],
    "reading": [f"{text}\nspell the word" for text in READING],
    "places": [f"{text}\nanswer with one number" for text in ["where is it", "which place is it"]],
}


def test_groups_go_by_the_last_line_or_by_all_before_it() -> None:
    assert compared("a\nb\nc", "template") == "c"
    assert compared("a\nb\nc", "question") == "a\nb"
    assert compared("a", "template") == compared("a", "question") == "a"
    assert grouped(TEMPLATES, 0.9).members == [["counting", "places"], ["reading"]]
    assert grouped(TEMPLATES, 0.3, by="question").members == [["counting"], ["reading"], ["places"]]
    # a row is sent by the same text
    assert grouped(TEMPLATES, 0.9).choose(["how many\nspell the word"]) == [1]
    assert grouped(TEMPLATES, 0.3, by="question").choose(["how many\nspell the word"]) == [0]


def test_a_file_is_sent_as_a_whole() -> None:
    rows = [COUNTING[0], READING[0], COUNTING[1]]
    assert grouped(ALL, 0.3).choose(rows) == [0, 1, 0]
    assert grouped(ALL, 0.3, route="file").choose(rows) == [0, 0, 0]
    assert grouped(ALL, 0.3, route="file").choose(["was anders"]) == [1]  # below the threshold: the last group


def test_how_often_a_row_is_asked_sends_no_file_elsewhere() -> None:
    """Groups are formed on distinct texts, and a file is near them by its own."""
    groups = grouped(ALL, 0.3, route="file")
    rows = [COUNTING[0], *PLACES, *["read the word aloud"] * 20]
    assert groups.choose(sorted(set(rows))) == [0] * 4
    assert groups.choose(rows) == [0] * len(rows)


def test_what_a_new_groups_weights_begin_as() -> None:
    groups = grouped(ALL, 0.3)
    assert [groups.begins_from(task) for task in ALL] == [None, 0, 0]  # the third joins the first's group
    groups = grouped({"reading": READING, **ALL}, 0.3)
    assert groups.members == [["reading"], ["counting", "places"]]
    assert [groups.begins_from(task) for task in ("reading", "counting", "places")] == [None, 0, 1]
    alone = grouped(ALL, 0.3, start="pretrained")
    assert [alone.begins_from(task) for task in ALL] == [None, None, 0]


SETTINGS = {"train.steps": 2, "train.batch_size": 8, "grouping.enabled": True}


def test_a_stage_leaves_the_weights_of_other_groups_alone(bench: Workbench) -> None:
    order = ("attribute", "ground")
    config = build_experiment("tiny", "mini", "sequential_lora", order, 0, {**SETTINGS, "grouping.threshold": 1.0})
    groups = groups_at(config, bench, 1)
    assert groups is not None
    assert [groups.of(task) for task in order] == [0, 1]
    first, _ = train_stage(config, bench, 0, None)
    second, _ = train_stage(config, bench, 1, first)
    kept, new = second.group(0), second.group(1)
    assert kept is not None
    assert kept.equals(first)
    assert new is not None
    assert not new.equals(first)


@pytest.mark.parametrize("start", ["previous", "pretrained"])
def test_a_new_group_trains_from_where_it_is_said_to(start: str, bench: Workbench) -> None:
    settings = {**SETTINGS, "train.steps": 1, "train.lr": 1e-6, "grouping.threshold": 1.0, "grouping.start": start}
    config = build_experiment("tiny", "mini", "sequential_lora", ("attribute", "ground"), 0, settings)
    far = build_experiment("tiny", "mini", "sequential_lora", ("attribute", "ground"), 0, {**settings, "train.lr": 0.1})
    first, _ = train_stage(far, bench, 0, None)
    second, _ = train_stage(config, bench, 1, first)
    new = second.group(1)
    assert new is not None
    moved = max(float((new.tensors[name] - first.tensors[name]).abs().max()) for name in first.tensors)
    assert (moved < 1e-3) == (start == "previous")


def test_the_accuracy_of_the_choice_is_told(bench: Workbench) -> None:
    order = ("attribute", "ground")
    config = build_experiment("tiny", "mini", "sequential_lora", order, 0, {**SETTINGS, "grouping.threshold": 1.0})
    last = list(Sequence(config, bench))[-1].metrics
    assert last["grouping/groups"] == 2
    for task in order:
        rows = bench.rows(task, "test")
        groups = groups_at(config, bench, 1)
        assert groups is not None
        chosen = groups.choose(rows.instructions)
        assert last[f"grouping/accuracy/{task}"] == pytest.approx(chosen.count(groups.of(task)) / len(rows))
        assert last[f"grouping/group/{task}"] == groups.of(task)
        sent = [last[f"grouping/sent/{task}/{group}"] for group in range(2)]
        assert sent == pytest.approx([chosen.count(group) / len(rows) for group in range(2)])


def test_one_group_is_the_sequence_without_groups(bench: Workbench) -> None:
    order = ("attribute", "ground")
    one = build_experiment("tiny", "mini", "sequential_lora", order, 0, {**SETTINGS, "grouping.threshold": 0.0})
    none = build_experiment("tiny", "mini", "sequential_lora", order, 0, {**SETTINGS, "grouping.enabled": False})
    for config in (one, none):
        first, _ = train_stage(config, bench, 0, None)
        second, _ = train_stage(config, bench, 1, first)
        if config is one:
            wanted = second
    assert wanted.equals(second)
