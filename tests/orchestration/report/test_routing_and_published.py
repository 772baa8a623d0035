"""Two sections that most runs do not have: which group answered, and what others have published."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcit_core.benchmarks.layouts import UCIT
from orchestration.report.blocks import Table, Text, figures_of
from orchestration.report.context import Context
from orchestration.report.published import published_section
from orchestration.report.routing import routing_section
from orchestration.results.reading import read_results
from tests.orchestration.results.test_results import trial, write_run

SENT = {
    "grouping/group/digits": 0.0,
    "grouping/group/charts": 1.0,
    "grouping/group/shapes": 0.0,
    "grouping/sent/digits/0": 0.75,
    "grouping/sent/digits/1": 0.25,
    "grouping/sent/charts/0": 0.0,
    "grouping/sent/charts/1": 1.0,
    "grouping/sent/shapes/0": 1.0,
    "grouping/sent/shapes/1": 0.0,
}


def context(folder: Path, measured: dict[str, float], **sweep: object) -> Context:
    row = trial("one", order="digits>charts>shapes", average_accuracy=0.5)
    stages = [
        {"trial": "one", "stage": stage, "task": "shapes", "name": name, "value": value * (stage == 2)}
        for stage in (1, 2)
        for name, value in measured.items()
    ]
    return Context.of(read_results(write_run(folder / "run", [row], [], stages, **sweep)))


def test_rows_are_shown_by_the_group_that_answered_them(tmp_path: Path) -> None:
    found = routing_section(context(tmp_path, SENT))
    assert found is not None
    title, blocks = found
    assert title == "Which group answered"
    (figure,) = figures_of(blocks)
    cells = {(row["row"], row["column"]): (row["value"], row["framed"]) for row in figure.panels[0].rows}
    assert cells["digits", "digits + shapes"] == (75, True)
    assert cells["digits", "charts"] == (25, False)
    assert cells["charts", "digits + shapes"] == (0, False)
    assert cells["charts", "charts"] == (100, True)


def test_without_groups_there_is_no_such_section(tmp_path: Path) -> None:
    assert routing_section(context(tmp_path, {"loss/last": 1.0})) is None


@pytest.mark.parametrize("benchmark", ["ucit", {"kind": "ucit", "root": "data"}])
def test_published_figures_stand_beside_a_run_on_their_benchmark(benchmark: object, tmp_path: Path) -> None:
    found = published_section(context(tmp_path, {}, benchmark=benchmark))
    assert found is not None
    _, blocks = found
    cells = {cell.text for one in blocks if isinstance(one, Table) for line in one.lines for cell in line.cells[1:]}  # type: ignore[union-attr]
    assert cells >= {"56.73", "−16.65"}
    texts = [one for one in blocks if isinstance(one, Text)]
    assert "https://github.com/Ghy0501/MCITlib/issues/6" in [one.link for one in texts]
    assert "This run learned other tasks" in texts[0].text


def test_a_run_of_the_same_tasks_is_not_told_to_be_another(tmp_path: Path) -> None:
    row = trial("one", order=">".join(UCIT.tasks), average_accuracy=0.5)
    run = write_run(tmp_path / "run", [row], benchmark="ucit")
    found = published_section(Context.of(read_results(run)))
    assert found is not None
    assert not [one for one in found[1] if isinstance(one, Text) and "This run learned other tasks" in one.text]


def test_nothing_is_known_of_the_embedded_benchmark(tmp_path: Path) -> None:
    assert published_section(context(tmp_path, {})) is None
