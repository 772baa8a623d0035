"""A metric is added in one place, and is then in every file and view of a sweep."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from mcit_core.metric_table import Table
from mcit_core.metrics import CATALOGUE, FORMULAS, METRICS, Metric, add, headline_names, metric, reason_undefined
from orchestration.keep.provenance import write_sweep
from orchestration.keep.tables import read_rows
from orchestration.plan.sweep_file import resolved
from orchestration.report import write_report
from orchestration.report.console import print_summary
from orchestration.tracking.tracker import Tracker
from tests.orchestration.tracking.test_tracking import fill, make_records, provenance, seen, uri_of


@pytest.fixture
def added() -> Iterator[None]:
    """Two more metrics for the time of a test: a headline one over accuracy, and one that stages measure."""

    @metric("worst task", "higher", "accuracy on the task that is known worst in the end", place="headline")
    def worst_task(table: Table) -> float:
        return min(table.cell(table.tasks - 1, j) for j in range(table.tasks))

    add(Metric("answer_words", "answer length", "lower", "mean words of an answer", "count"))
    yield
    for name in ("worst_task", "answer_words"):
        CATALOGUE.pop(name)
        METRICS.pop(name, None)


def test_a_metric_added_in_one_place_is_everywhere(added: None, tmp_path: Path) -> None:
    records = fill(make_records(tmp_path))
    for record in records.records.values():
        record.stages[-1].metrics["answer_words"] = 7.5
    records.write()
    write_sweep(records.run, resolved(records.spec), provenance())
    trials = read_rows(records.run / "trials.parquet")
    assert [row["worst_task"] for row in trials] == [0.15, 0.15]  # (1 + 2) / 20, on the first task
    assert [row["validation/worst_task"] for row in trials] == [0.15, 0.15]
    assert [row["answer_words"] for row in trials] == [7.5, 7.5]

    Tracker(uri_of(tmp_path), records, provenance()).sync(final=True)
    points = seen(uri_of(tmp_path), "tracked")[next(iter(records.records))][2]
    assert [point for point in points if point[0] == "worst_task"] == [("worst_task", 0, 0.1), ("worst_task", 1, 0.15)]
    assert ("answer_words", 1, 7.5) in points

    page = write_report(records.run).read_text()
    assert page.count("accuracy on the task that is known worst in the end") == 1  # in the glossary
    assert "worst task ↑" in page
    assert "answer length ↓" in page
    with (records.run / "tables.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["worst_task.mean"] for line in lines] == ["0.15", "0.15"]
    assert [line["answer_words.mean"] for line in lines] == ["7.5", "7.5"]
    assert r"worst task $\uparrow$" in (records.run / "tables.tex").read_text()

    said = io.StringIO()
    print_summary(records.run, Console(file=said, width=160))
    assert "worst" in said.getvalue()
    assert "15.0" in said.getvalue()
    assert "answer" not in said.getvalue()  # no headline metric


def test_a_metric_stands_once_and_where_it_was_put() -> None:
    with pytest.raises(ValueError, match="already"):
        add(Metric("forgetting", "forgetting", "lower", "again"))
    with pytest.raises(ValueError, match="not in list"):
        add(Metric("new", "new", "lower", "new"), before="nothing")
    assert "new" not in CATALOGUE
    shown = [name for name in CATALOGUE if name in METRICS]
    assert shown != list(METRICS)
    assert sorted(shown) == sorted(METRICS)
    assert headline_names() == ["average_accuracy", "forgetting", "forward_transfer", "transfer_to_direct"]
    names = ["content_average_accuracy", "content_forgetting", "content_forward_transfer"]
    assert list(FORMULAS["content_accuracy"]) == names


def test_why_a_formula_has_no_value() -> None:
    assert reason_undefined(METRICS["forward_transfer"], 2, zero_shot=False, direct=True) == "no zero_shot reference"
    assert reason_undefined(METRICS["intransigence"], 1, zero_shot=True, direct=False) == "no direct reference"
    assert reason_undefined(METRICS["forgetting"], 1, zero_shot=True, direct=True) == "only one task"
    assert reason_undefined(METRICS["intransigence"], 1, zero_shot=False, direct=True) == ""
