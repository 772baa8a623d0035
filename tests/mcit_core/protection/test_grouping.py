"""Instruction grouping: which tasks share a set of weights, and which set an instruction is sent to."""

from __future__ import annotations

import numpy as np
import pytest

from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.protection.grouping import TfidfGroups
from mcit_core.training.sequence import Sequence
from mcit_core.training.stage import groups_at, train_stage

COUNTING = ["how many balls are there", "how many cubes are there"]
READING = ["read the word aloud", "spell the word"]
PLACES = ["how many balls are left of it", "how many cubes are left of it"]
ALL = {"counting": COUNTING, "reading": READING, "places": PLACES}


def test_tasks_with_like_instructions_share_a_group() -> None:
    groups = TfidfGroups(ALL, 0.3)
    assert groups.members == [["counting", "places"], ["reading"]]
    assert [groups.of(task) for task in ALL] == [0, 1, 0]


def test_the_threshold_decides() -> None:
    assert TfidfGroups(ALL, 0.0).members == [["counting", "reading", "places"]]
    assert TfidfGroups(ALL, 1.0).members == [["counting"], ["reading"], ["places"]]


def test_the_instruction_alone_finds_its_group() -> None:
    groups = TfidfGroups(ALL, 0.3)
    assert groups.choose([*COUNTING, *READING, *PLACES]) == [0, 0, 1, 1, 0, 0]
    assert groups.choose(["spell the cubes"]) == [1]
    assert groups.choose(["was anders"]) == [0]  # no word is known: the first group answers


def test_nearness_is_the_mean_cosine_over_all_pairs() -> None:
    groups = TfidfGroups({"one": ["a b", "a c"], "two": ["d"]}, 0.5)
    # one vocabulary of a, b, c, d over 3 texts: idf(a) = ln(4/3) + 1, of the others ln(4/2) + 1
    a, other = np.log(4 / 3) + 1, np.log(2) + 1
    cosine_b = a * a / np.hypot(a, other) / np.hypot(a, other)  # between "a b" and "a c"
    assert groups._nearness(["a b"])[0] == pytest.approx([(1 + cosine_b) / 2, 0])


def test_how_often_an_instruction_is_asked_does_not_matter() -> None:
    assert TfidfGroups({**ALL, "reading": READING * 5}, 0.3).members == TfidfGroups(ALL, 0.3).members


def test_a_task_that_comes_later_leaves_earlier_groups_together() -> None:
    early, late = TfidfGroups({"counting": COUNTING, "reading": READING}, 0.3), TfidfGroups(ALL, 0.3)
    for before, after in zip(early.members, late.members, strict=False):
        assert after[: len(before)] == before


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
