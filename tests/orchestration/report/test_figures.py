"""`python -m orchestration.figures`: every figure as files, and the numbers in them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import vl_convert
from PIL import Image

from mcit_core import subspace
from mcit_core.data.workbench import Workbench
from orchestration.figures import main
from orchestration.report.blocks import figures_of
from orchestration.report.charts import Figure, names_of, whole
from orchestration.report.context import Context
from orchestration.report.figure_files import FORMS
from orchestration.report.paper import _harm, space_figures
from orchestration.report.sections import sections
from orchestration.results.estimates import estimate
from orchestration.results.reading import read_results
from tests.orchestration.report.test_report import MATRIX, full_run
from tests.orchestration.results.test_results import AXIS, energy, trial, write_run

TASKS = ["digits", "charts", "scenes"]
#: what the figures of a run with a matrix, two seeds and a projection are called
WANTED = {
    "differences_from_sequential",
    "average_accuracy_against_forgetting",
    "headline_metrics_along_projection_task_energy",
    "seconds_per_trial",
    "prompt_usage",
    "forward_transfer_task_energy_0_5",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = full_run(tmp_path_factory.mktemp("figures") / "runs" / "full", tasks=TASKS)
    assert main([str(run)]) == 0
    return run


def table(run: Path, name: str) -> list[dict[str, str]]:
    with (run / "figures" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_figure_is_there_in_every_form(run: Path) -> None:
    names = {*json.loads((run / "figures" / "captions.json").read_text())}
    assert names >= WANTED
    for name in names:
        assert {path.suffix[1:] for path in (run / "figures").glob(f"{name}.*")} == {*FORMS, "csv"}
        with Image.open(run / "figures" / f"{name}.png") as picture:
            assert picture.convert("L").getextrema() != (255, 255)
        assert "<text" in (run / "figures" / f"{name}.svg").read_text()
        assert (run / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert table(run, name), name


def test_an_axis_has_the_values_that_were_tried(run: Path) -> None:
    rows = table(run, "headline_metrics_along_projection_task_energy")
    assert {row["x"] for row in rows} == {"0.5", "0.99", ""}
    across = {row["series"] for row in rows if not row["x"]}
    assert "sequential" in across


def test_the_numbers_of_the_forest_plot_are_those_of_the_comparison(run: Path) -> None:
    context = Context.of(read_results(run))
    rows = table(run, "differences_from_sequential")
    wanted = {
        (one.metric, context.label(one.setting)): 100 * one.difference.mean
        for one in context.compared.with_sequential
        if one.difference.mean is not None and one.metric in ("average_accuracy", "forgetting")
    }
    found = {(panel, row["setting"]): float(row["difference"]) for row in rows for panel in wanted_panels(row)}
    assert found == pytest.approx(wanted)


def wanted_panels(row: dict[str, str]) -> list[str]:
    return [
        name
        for name, words in (("average_accuracy", "average accuracy"), ("forgetting", "forgetting"))
        if row["panel"].startswith(words)
    ]


def test_a_matrix_has_its_cells(run: Path) -> None:
    found = [row for row in table(run, "accuracy_matrices") if row["panel"].startswith("task_energy 0.5 ")]
    cells = {(row["row"], row["column"]): float(row["value"]) for row in found}
    for t, values in enumerate(MATRIX):
        for j, value in enumerate(values):
            assert cells[f"{t + 1} {TASKS[t]}", TASKS[j]] == pytest.approx(100 * value)
    gains = {(row["row"], row["column"]): float(row["value"]) for row in table(run, "forward_transfer_task_energy_0_5")}
    assert gains["digits", "scenes"] == pytest.approx(100 * (MATRIX[0][2] - 0.1))


@pytest.mark.parametrize(
    ("seeds", "told"),
    [
        (
            [-10.0, -11.0, -12.0],
            "−11.0 ± 2.5 (95 %, 3 seeds, this setting by itself): the harm to them that the paper observed shows",
        ),
        ([10.0, 11.0, 12.0], "does not show"),
        ([-10.0, 11.0, 12.0], "cannot be told"),
        ([-10.0, -11.0], "−10.5 (no interval from 2 seeds)"),
    ],
)
def test_the_harm_is_told_where_the_interval_leaves_zero_out(seeds: list[float], told: str) -> None:
    assert told in _harm(estimate(seeds))
    assert "no harm could show" in _harm(estimate(seeds), floor=True)


def test_every_specification_is_one_of_vega_lite(run: Path) -> None:
    context = Context.of(read_results(run))
    for _, blocks in sections(context):
        for figure in figures_of(blocks):
            compiled = vl_convert.vegalite_to_vega(dict(whole(figure)))
            assert "@" not in json.dumps(compiled.get("scales", [])), figure.name


def test_no_two_figures_have_one_name() -> None:
    alts = ["rank 2", "rank", "rank", "m -1.2", "m -1", "m -1", "m 1", "m 1 2"]
    names = names_of(Figure(alt, "", []) for alt in alts)
    assert len({*names}) == len(alts)
    assert names[3:5] == ["m_minus_1_2", "m_minus_1"]


def test_figures_that_are_no_more_go_and_files_of_others_stay(tmp_path: Path) -> None:
    run = full_run(tmp_path / "run", tasks=TASKS)
    assert main([str(run)]) == 0
    folder = run / "figures"
    (folder / "mine.png").write_bytes(b"")
    rows = [row for row in read_results(run).trials if row.get(AXIS) != 0.99]
    write_run(run, rows, **read_results(run).sweep)
    assert (folder / "forward_transfer_task_energy_0_99.pdf").exists()
    assert main([str(run)]) == 0
    assert not list(folder.glob("forward_transfer_task_energy_0_99*"))
    assert (folder / "differences_from_sequential.pdf").exists()
    assert (folder / "mine.png").exists()


def test_two_seeds_have_no_error(tmp_path: Path) -> None:
    rows = [trial(f"s{seed}", "sequential", seed, average_accuracy=0.4 + seed / 10) for seed in (0, 1)]
    for value in (0.5, 0.99):
        rows += [energy(f"t{value}-{seed}", value, seed, average_accuracy=value) for seed in (0, 1)]
    run = write_run(tmp_path / "run", rows, tasks=TASKS)
    assert main([str(run)]) == 0
    found = table(run, "differences_from_sequential")
    assert found
    assert {(row["low"], row["verdict"]) for row in found} == {("", "too few seeds to tell")}


def test_the_spaces_are_those_of_the_model(bench: Workbench) -> None:
    tasks = ("attribute", "ground")
    drawn = space_figures(bench, tasks)
    assert names_of(drawn) == [
        "rank_of_input_embeddings",
        "energy_inside_the_pre_trained_space",
        "overlap_of_the_tasks_spaces",
    ]
    grams = {task: bench.statistics(task, "unit").gram.numpy() for task in ("pretraining", *tasks)}
    values = {(row["task"], row["measure"]): row["directions"] for row in drawn[0].panels[0].rows}
    for task, gram in grams.items():
        squared = np.sort(np.linalg.eigvalsh(gram))[::-1].clip(0)
        reached = np.cumsum(squared) / squared.sum()
        rank = int(np.argmax(reached >= 0.9)) + 1
        found = values[task, "90 % of the energy"]
        assert found == rank
    inside = {(row["row"], row["column"]): row["value"] for row in drawn[1].panels[0].rows}
    _, vectors = np.linalg.eigh(grams["pretraining"])
    space = vectors[:, ::-1][:, : subspace.energy_rank(np.sort(np.linalg.eigvalsh(grams["pretraining"]))[::-1], 0.5)]
    share = np.trace(space.T @ grams["ground"] @ space) / np.trace(grams["ground"])
    assert inside["ground", "50 %"] == pytest.approx(share)
    overlap = {(row["row"], row["column"]): row["value"] for row in drawn[2].panels[0].rows}
    assert overlap["ground", "ground"] == pytest.approx(1)
    assert overlap["ground", "attribute"] == pytest.approx(overlap["attribute", "ground"])


def test_what_cannot_be_drawn_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "is no RUN" in capsys.readouterr().err
    empty = write_run(tmp_path / "empty", [energy("a", 0.5, 0, status="FAILED")])
    assert main([str(empty)]) == 2
    assert "nothing to draw" in capsys.readouterr().err
    assert not (empty / "figures").exists()


def test_figures_without_model_and_data_are_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tasks of this run are nobody's."""
    assert main([str(run)]) == 0
    said = capsys.readouterr().out
    assert (
        "not made: the spaces of the tasks' input embeddings, for which the sweep's model and data are needed" in said
    )
    assert "not made: contours and ranks of input embeddings after tuning, for which the sweep" in said
