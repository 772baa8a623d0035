"""What the table of published figures says follows from what stands beside it."""

from __future__ import annotations

import re

import pytest

from mcit_core.benchmarks.layouts import COIN, MLLM_ACL, MLLM_DCL, UCIT
from mcit_core.metrics import CATALOGUE, summarise
from orchestration.results.published import Published, published, published_on
from tests.support.places import ROOT

LAYOUTS = {"coin": COIN, "ucit": UCIT, "mllm_dcl": MLLM_DCL, "mllm_acl": MLLM_ACL}


@pytest.mark.parametrize("source", published(), ids=lambda source: source.source[:40])
def test_tasks_metrics_and_figures_are_ours(source: Published) -> None:
    known = [*LAYOUTS[source.benchmark].tasks]
    assert source.tasks == [task for task in known if task in source.tasks]
    for row in source.rows.values():
        assert {*row} <= {*CATALOGUE}
        assert all(-100 <= figure <= 100 for figure in row.values())


@pytest.mark.parametrize("source", [one for one in published() if one.matrix], ids=lambda source: source.source[:40])
def test_figures_follow_from_the_matrix(source: Published) -> None:
    assert source.matrix is not None
    tasks = len(source.tasks)
    found = summarise([[cell / 100 for cell in row] + [None] * (tasks - len(row)) for row in source.matrix])
    (row,) = source.rows.values()
    for name, figure in row.items():
        value = found[name]
        assert value is not None
        assert f"{100 * value:.2f}" == f"{figure:.2f}"


def test_three_figures_of_a_row_follow_from_two_of_them() -> None:
    """average = learning + backward transfer (T - 1) / T, to the rounding of the two."""
    rows = 0
    for source in published():
        tasks = len(source.tasks)
        for row in source.rows.values():
            if {"average_accuracy", "backward_transfer", "learning_accuracy"} <= {*row}:
                rows += 1
                expected = row["learning_accuracy"] + row["backward_transfer"] * (tasks - 1) / tasks
                assert abs(expected - row["average_accuracy"]) < 0.0151
    assert rows == 6


def test_a_benchmark_without_a_row_has_none() -> None:
    assert published_on("mini") == []
    assert len(published_on("ucit")) == 1


def test_the_table_of_the_page_is_that_of_the_file() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    final = published_on("coin")[0]
    found = re.findall(r"^\| ([\w-]+) \| ([\d.−–]+) \| ([\d.−–]+) \| ([\d.−–]+) \|$", page, re.MULTILINE)
    names = ("average_accuracy", "backward_transfer", "learning_accuracy")
    told = {
        method: {name: float(text.replace("−", "-")) for name, text in zip(names, row, strict=True) if text != "–"}
        for method, *row in found
    }
    assert told == final.rows
