"""The report opens without network, survives what is missing and says so, and escapes what others wrote."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from orchestration.figures import main
from orchestration.keep.tables import Row, text_in
from orchestration.report import write_report
from orchestration.report.blocks import Cell, Section, Text, figures_of
from orchestration.report.context import Context
from orchestration.report.page import render
from orchestration.report.sections import SECTIONS, sections
from orchestration.report.tables import settings_table
from orchestration.results.reading import read_results
from orchestration.results.words import format_number
from tests.orchestration.results.test_results import AXIS, ORDER, cells, energy, trial, write_run
from tests.support.places import ROOT

MATRIX = [[0.8, 0.2, 0.1], [0.6, 0.7, 0.2], [0.5, 0.6, 0.9]]
FINAL = {
    "average_accuracy": 0.6667,
    "learning_accuracy": 0.8,
    "forgetting": 0.2,
    "forward_transfer": 0.05,
    "transfer_to_direct": -0.02,
    "pretrained_retention": 0.97,
    "trained_parameters": 5000.0,
    "memory_bytes": 1e6,
}
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects what a page points to and checks that every tag is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.targets: list[str] = []
        self.charts = 0
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open += [tag] if tag not in VOID else []
        self.charts += ("class", "chart") in attrs
        self.targets += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        assert tag not in ("iframe", "object", "img")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def stages_of(row: Row) -> list[Row]:
    values = {
        "subspace/rank": 4,
        "subspace/dims_left": 20,
        "subspace/exhausted": 1,
        "subspace/gradient_allowed": 0.5,
        "subspace/gradient_occupied": 0.3,
        "subspace/gradient_other": 0.2,
        "seconds/train": 3,
        "seconds/evaluate": 1,
        "pool/usage_entropy": 1.2,
        "key_drift/digits": 0.1,
        "ema/mean_weight": 0.9,
        "prompt_usage/digits/3": 0.6,
        "prompt_usage/charts/0": 0.4,
    }
    return [
        {"trial": row["trial"], "stage": stage, "task": task, "name": name, "value": float(value)}
        for stage, task in enumerate(text_in(row, "order").split(">"))
        for name, value in values.items()
    ]


def full_run(folder: Path, **sweep: Any) -> Path:
    """Two energies and three references, two seeds each; one trial failed."""
    trials, accuracy, stages = [], [], []
    for seed in range(2):
        for value in (0.5, 0.99):
            final = FINAL | {"average_accuracy": 0.6 + 0.1 * value + 0.02 * seed, "forgetting": 0.2 * value}
            row = energy(f"t{value}-{seed}", value, seed, **final) | {"validation/average_accuracy": 0.6 + 0.1 * value}
            trials.append(row)
            accuracy += cells(row, MATRIX, [0.1, 0.1, 0.1])
            stages += stages_of(row)
        trials.append(trial(f"sequential-{seed}", "sequential", seed, **FINAL | {"average_accuracy": 0.55}))
        accuracy += cells(trials[-1], MATRIX)
        trials.append(trial(f"direct-{seed}", "direct", seed, average_accuracy=0.8, learning_accuracy=0.8))
        accuracy += cells(trials[-1], [[0.8, None, None], [None, 0.8, None], [None, None, 0.8]])
        trials.append(trial(f"zero-{seed}", "zero_shot", seed, average_accuracy=0.1))
        accuracy += cells(trials[-1], [], [0.1, 0.1, 0.1])
    trials.append(energy("broken", 0.5, 2, status="FAILED", error="ValueError: <b>bad</b> & worse\n  line two"))
    return write_run(folder, trials, accuracy, stages, **sweep)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = full_run(tmp_path_factory.mktemp("runs") / "a<b>&c")
    write_report(run)
    return run


def test_report_stands_alone(full: Path) -> None:
    page = Page(full / "report.html")
    assert page.charts >= 8
    assert page.targets
    assert all(target == "data:," or target.startswith("#") for target in page.targets)
    assert not re.search(r"@import|url\(", page.source[: page.source.index("</style>")])
    assert len(page.source) < 5e6


def test_text_is_escaped(full: Path) -> None:
    source = (full / "report.html").read_text()
    assert "ValueError: &lt;b&gt;bad&lt;/b&gt; &amp; worse\n  line two" in source
    assert "<b>bad" not in source
    assert "<h1>a&lt;b&gt;&amp;c</h1>" in source


def test_the_words_follow_from_the_numbers(full: Path) -> None:
    source = (full / "report.html").read_text()
    assert "10 of 11 trials finished, 1 failed." in source
    assert "With task_energy 0.99 instead of 0.5, average accuracy changed by +4.9 points" in source
    assert "Chosen by average accuracy on the validation split, not the test split: task_energy 0.99." in source
    assert "exhausted in at least one trial of: task_energy 0.5" in source
    assert not re.search(r"\bnan\b", re.sub(r"<script>.*?</script>", "", source, flags=re.DOTALL).lower())


def test_seconds_are_of_the_cpu_where_all_have_them(full: Path, tmp_path: Path) -> None:
    told = "CPU seconds are those of the worker"
    assert told not in (full / "report.html").read_text()
    trials = [energy(f"a{s}", 0.5, s, average_accuracy=0.3 + 0.1 * s) for s in range(2)]
    spent = {"seconds/train": 3.0, "seconds/train_cpu": 2.0, "seconds/evaluate": 3.0, "seconds/evaluate_cpu": 2.0}
    stages: list[Row] = [
        {"trial": row["trial"], "stage": 0, "task": "digits", "name": name, "value": value}
        for row in trials
        for name, value in spent.items()
    ]
    for written, shown in ((stages, True), (stages[:-1], False)):
        run = write_run(tmp_path / "run", trials, cells(trials[0], MATRIX) + cells(trials[1], MATRIX), written)
        write_report(run)
        assert (told in (run / "report.html").read_text()) == shown


def test_the_answer_stands_first_and_settings_by_their_rank(full: Path) -> None:
    source = (full / "report.html").read_text()
    order = ["The answer", "Trials without a final result", "What was run", "Settings and metrics", "How to read"]
    places = [source.index(f"<h2>{title}") for title in order]
    assert places == sorted(places)
    assert 'aria-label="Differences from sequential"' in source


def test_settings_are_ranked_on_validation_rows_and_the_best_value_is_bold(full: Path) -> None:
    context = Context.of(read_results(full))
    assert [summary.setting.value(AXIS) for summary in context.ranked if not summary.setting.is_reference] == [
        0.99,
        0.5,
    ]
    table = settings_table(context)
    assert [line.setting for line in table.lines][:2] == ["task_energy 0.99", "task_energy 0.5"]
    column = [head.startswith("forgetting") for head in table.head].index(True)
    cells = [cell for line in table.lines[:2] if isinstance(cell := line.cells[column], Cell)]
    means = [summary.metric("forgetting").mean or 0.0 for summary in context.ranked[:2]]
    assert [cell.text for cell in cells] == [format_number("forgetting", mean) for mean in means]
    assert [cell.strong for cell in cells] == [mean == min(means) for mean in means]


def test_same_run_same_report(full: Path) -> None:
    before = (full / "report.html").read_bytes()
    assert write_report(full).read_bytes() == before


def test_tables(full: Path) -> None:
    with (full / "tables.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row[AXIS]) for row in rows] == [
        ("fwd_prompt", "0.5"),
        ("fwd_prompt", "0.99"),
        ("zero_shot", ""),
        ("sequential", ""),
        ("direct", ""),
    ]
    assert float(rows[0]["average_accuracy.mean"]) == pytest.approx(0.66)
    assert (rows[0]["trials"], rows[0]["finished"], rows[0]["average_accuracy.n"]) == ("3", "2", "2")
    assert rows[2]["forgetting.mean"] == ""
    latex = (full / "tables.tex").read_text()
    assert r"task\_energy 0.5 & 2 & $66.0$" in latex  # two seeds allow no interval
    assert latex.count(r"\\") == 6 + 4
    # as papers print it: the last row of the mean matrix, per cent, two decimals
    assert r"sequential & 50.00 & 60.00 & 90.00 & 55.00 & -- \\" in latex


def test_empty_run(tmp_path: Path) -> None:
    source = Page(write_report(tmp_path)).source
    assert "holds no trial yet" in source
    assert "No trial has finished" in source


def test_nothing_finished(tmp_path: Path) -> None:
    trials = [energy("a", 0.5, 0, status="FAILED", error="boom"), energy("b", 0.99, 0, status="UNFINISHED")]
    source = Page(write_report(write_run(tmp_path, trials))).source
    assert "0 of 2 trials finished, 1 failed, 1 did not get to the end." in source
    assert "boom" in source


def test_only_references_finished(tmp_path: Path) -> None:
    direct = trial("d", "direct", average_accuracy=0.8)
    trials = [direct, energy("a", 0.5, 0, status="UNFINISHED")]
    source = Page(write_report(write_run(tmp_path, trials, stages=stages_of(direct)))).source
    assert "No trial that learns the tasks in sequence has finished" in source
    assert "No trial has finished, references aside" in source
    assert "No finished trial of a sequence recorded prompt usage" in source


def test_one_trial_without_axes_or_references(tmp_path: Path) -> None:
    row = trial("only", average_accuracy=0.5, forgetting=0.1) | {"validation/average_accuracy": 0.5}
    run = write_run(tmp_path, [row], cells(row, MATRIX), axes={})
    source = Page(write_report(run)).source
    assert "no zero_shot reference: forward transfer undefined" in source
    assert "no direct reference: transfer to direct undefined" in source
    assert "No sequential reference" in source
    assert "Along the axes" not in source


def test_one_task(tmp_path: Path) -> None:
    row = energy("only", 0.5, 0, average_accuracy=0.5) | {"order": "digits"}
    source = Page(write_report(write_run(tmp_path, [row], cells(row, [[0.5]], [0.1])))).source
    assert "only one task: forgetting undefined" in source


def test_many_settings_say_what_is_left_out(tmp_path: Path) -> None:
    modes, sizes = ("none", "both"), range(10, 18)
    trials, accuracy = [], []
    for mode in modes:
        for size in sizes:
            row = trial(f"{mode}{size}", **FINAL, projection__mode=mode, pool__size=size)
            trials.append(row)
            accuracy += cells(row, MATRIX)
    axes = {"projection.mode": list(modes), "pool.size": list(sizes)}
    source = Page(write_report(write_run(tmp_path, trials, accuracy, axes=axes))).source
    assert "12 of 16 are drawn at first." in source
    assert "Averaged over pool.size within each seed and order." in source


def test_orders(tmp_path: Path) -> None:
    orders = [ORDER, "scenes>charts>digits"]
    trials = [
        trial(f"{i}", seed=seed, order=order, average_accuracy=0.5 + 0.1 * i + 0.02 * seed, forgetting=0.1)
        for i, order in enumerate(orders)
        for seed in range(2)
    ]
    accuracy = [cell for row in trials[1:] for cell in cells(row, MATRIX)]  # one trial has none
    run = write_run(tmp_path, trials, accuracy, axes={"order": {"kind": "reverse"}})
    source = Page(write_report(run)).source
    (row,) = re.findall(r"<tr><th[^>]*>2</th><td[^>]*>scenes → charts → digits</td>(.*?)</tr>", source)
    assert "61.0" in row  # the mean over its seeds
    assert "order 2" in source


def shown(source: str, name: str) -> list[dict[str, Any]]:
    """The panels of a figure, as the page has them."""
    figures = [json.loads(found) for found in re.findall(r'<script type="application/json">(.*?)</script>', source)]
    (panels,) = [figure["panels"] for figure in figures if figure["name"] == name]
    return list(panels)


def test_what_is_no_number_is_left_out_and_the_rest_drawn(tmp_path: Path) -> None:
    trials = [energy(f"a{s}", 0.5, s, average_accuracy=0.3 + 0.1 * s, forgetting=0.1) for s in range(2)]
    stages: list[Row] = [
        {"trial": row["trial"], "stage": stage, "task": "digits", "name": "ema/mean_weight", "value": value}
        for row in trials
        for stage, value in enumerate((0.5, math.nan, math.inf))
    ]
    stages += [
        {"trial": "a0", "stage": 0, "task": "digits", "name": f"prompt_usage/digits/{i}", "value": value}
        for i, value in enumerate((0.5, math.nan))
    ]
    source = write_report(write_run(tmp_path / "run", trials, cells(trials[0], MATRIX), stages)).read_text()
    (panel,) = shown(source, "Averaging weights by stage")
    assert [row[1:] for row in panel["rows"]] == [[1, 0.5]]  # stage and value
    (usage,) = shown(source, "Prompt usage")
    assert [row[2] for row in usage["rows"]] == [50]


def test_settings_of_one_label_are_told_apart(tmp_path: Path) -> None:
    trials = [energy(f"t{v}-{s}", v, s, average_accuracy=v, forgetting=0.1) for v in CLOSE for s in range(3)]
    context = Context.of(read_results(write_run(tmp_path / "run", trials, axes={AXIS: list(CLOSE)})))
    assert len({context.label(setting) for setting in context.settings}) == 2
    assert context.value_names(AXIS) == ["0.1234567", "0.1234568"]


CLOSE = (0.1234567, 0.1234568)


@pytest.mark.parametrize("value", ["@ink", "</script><b>", 'a "quoted" one', "", "x.y[0]"])
def test_any_text_may_be_the_value_of_an_axis(value: str, tmp_path: Path) -> None:
    trials = [
        trial(f"{i}-{s}", seed=s, average_accuracy=0.4 + 0.1 * i, forgetting=0.1, projection__mode=mode)
        for i, mode in enumerate((value, "other"))
        for s in range(3)
    ]
    run = write_run(tmp_path / "run", trials, axes={"projection.mode": [value, "other"]})
    page = Page(write_report(run))
    rows = shown(page.source, "Headline metrics along projection.mode")[0]
    places = {row[rows["columns"].index("x")] for row in rows["rows"]}
    assert places >= {value, "other"}
    assert main([str(run)]) == 0


def test_every_figure_shows_something(tmp_path: Path) -> None:
    """Also where only the worst of many settings has subspaces, and where an axis has too many values for pairs."""
    trials, stages = [], []
    for size in range(40):
        for mode in ("none", "both"):
            row = trial(f"{mode}{size}", **FINAL, projection__mode=mode, pool__size=size, pool__top_k=1 + size % 2)
            row |= {"average_accuracy": 0.9 - size / 100, "validation/average_accuracy": 0.9 - size / 100}
            trials.append(row)
    stages = stages_of(trials[-1])
    axes = {"pool.size": list(range(40)), "projection.mode": ["none", "both"], "pool.top_k": [1, 2]}
    run = write_run(tmp_path / "run", trials, cells(trials[-1], MATRIX), stages, axes=axes)
    figures = [figure for _, blocks in sections(Context.of(read_results(run))) for figure in figures_of(blocks)]
    assert {"Pairs of axes", "Shares of gradient energy", "Ranks by stage"} <= {figure.name for figure in figures}
    for figure in figures:
        assert any(figure.drawn(panel) for panel in figure.shown()), figure.name


def test_a_section_of_a_builder_alone(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def figure(context: Context) -> Section | None:
        return "A figure of one's own", [Text(f"{len(context.settings)} settings")]

    monkeypatch.setattr("orchestration.report.sections.SECTIONS", [*SECTIONS, figure])
    source = render(Context.of(read_results(full)))
    assert source.count("A figure of one&#39;s own") == 2  # in the contents, and as a heading
    assert "<p>5 settings</p>" in source


def test_report_needs_neither_ray_nor_mlflow_nor_torch() -> None:
    code = (
        "import sys, orchestration.results, orchestration.report\n"
        "print([name for name in ('ray', 'mlflow', 'torch', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
