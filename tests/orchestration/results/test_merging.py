"""`python -m orchestration.report RUN RUN`: one table of what belongs together, and why not of what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestration.keep.tables import Row
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import make_trials
from orchestration.report.__main__ import main
from orchestration.results.merging import _evaluated, merge
from orchestration.results.reading import read_results
from orchestration.results.settings import rows_by_setting
from tests.orchestration.results.test_results import write_run
from tests.support.places import ROOT

PROVENANCE = {"data": {"attribute": "a", "ground": "b"}, "weights": "w"}


def run_of(folder: Path, provenance: dict[str, Any] | None = None, **content: Any) -> Path:
    """A RUN of a sweep of two tasks and three seeds, every trial finished; accuracies follow from names."""
    sweep: dict[str, Any] = {
        "name": folder.name,
        "benchmark": "mini",
        "model": "mini",
        "tasks": ["attribute", "ground"],
        "method": "fwd_prompt",
        "base": {"train.steps": 60},
        "axes": {"projection.task_energy": [0.5, 0.9]},
        "seeds": [0, 1, 2],
        "references": ["sequential"],
        **content,
    }
    folder.mkdir(parents=True)
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    rows: list[Row] = []
    for trial in make_trials(load_spec(folder / "sweep.yaml")):
        row: Row = {
            "trial": trial.id,
            "method": trial.method,
            "tuner": trial.experiment.tuner,
            "tuner_settings": None,
            "seed": trial.experiment.seed,
            "order": trial.order,
            "status": "FINISHED",
            "error": None,
            "seconds": 1.0,
            "key": f"k {trial.id}",
            "average_accuracy": len(rows) / 100,
            "validation/average_accuracy": len(rows) / 100,
        }
        rows.append({**row, **{path: value for path, value in trial.settings.items() if path != "method"}})
    write_run(folder, rows, **{**sweep, "provenance": provenance or PROVENANCE})
    return folder


def test_what_differs_becomes_an_axis(tmp_path: Path) -> None:
    one = run_of(tmp_path / "one")
    two = run_of(tmp_path / "two", base={"train.steps": 120}, axes={"projection.task_energy": [0.9]})
    merged = merge([one, two], tmp_path / "both")
    assert merged.axes == {"projection.task_energy": [0.5, 0.9], "train.steps": [60, 120]}
    settings = {
        (s.method, *dict(s.values).values()): len(rows)
        for s, rows in rows_by_setting(merged.trials, merged.axes).items()
    }
    assert settings == {
        ("fwd_prompt", 0.5, 60): 3,
        ("fwd_prompt", 0.9, 60): 3,
        ("fwd_prompt", 0.9, 120): 3,
        ("sequential", 60): 3,
        ("sequential", 120): 3,
    }
    read = {str(row["trial"]): row["average_accuracy"] for run in (one, two) for row in read_results(run).trials}
    assert {str(row["trial"]): row["average_accuracy"] for row in merged.trials} == read


def test_methods_of_two_runs_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = run_of(tmp_path / "one")
    two = run_of(tmp_path / "two", method="l2p", axes={"pool.top_k": [2, 4]})
    merged = merge([one, two], tmp_path / "both")
    assert merged.axes["method"] == ["sequential", "fwd_prompt", "l2p"]
    # fwd_prompt's K is the default one of the other
    values = {(row["method"], row["pool.top_k"], row["projection.task_energy"]) for row in merged.trials}
    assert {("l2p", 2, None), ("l2p", 4, None), ("fwd_prompt", 4, 0.5), ("fwd_prompt", 4, 0.9)} <= values
    assert main([str(one), str(two), "--out", str(tmp_path / "both")]) == 0
    assert "l2p" in capsys.readouterr().out
    page = (tmp_path / "both" / "report.html").read_text()
    assert "<h1>one + two</h1>" in page
    assert (tmp_path / "both" / "tables.csv").exists()
    assert not (one / "report.html").exists()


def test_a_trial_of_both_counts_once(tmp_path: Path) -> None:
    one, two = run_of(tmp_path / "one"), run_of(tmp_path / "two", seeds=[1, 2, 3])
    merged = merge([one, two], tmp_path / "both")
    names = [row["trial"] for row in merged.trials]
    assert len(names) == len({*names}) == 12  # three trials for each of four seeds


@pytest.mark.parametrize(
    ("provenance", "content", "why"),
    [
        (None, {"benchmark": {"kind": "mini", "test_rows": 100}}, "differ in benchmark"),
        (None, {"model": {"kind": "mini", "path": "elsewhere"}}, "differ in model"),
        ({**PROVENANCE, "weights": "others"}, {}, "differ in the model's weights"),
        ({**PROVENANCE, "data": {"attribute": "a", "ground": "c"}}, {}, "differ in training data"),
        (None, {"tasks": ["ground", "attribute"]}, "differ in the orders of tasks"),
        (None, {"base": {"train.steps": 60, "evaluation.rows": 100}}, "differ in what is evaluated"),
    ],
)
def test_rows_that_do_not_belong_together_are_refused(
    provenance: dict[str, Any] | None,
    content: dict[str, Any],
    why: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, two = run_of(tmp_path / "one"), run_of(tmp_path / "two", provenance, **content)
    assert main([str(one), str(two), "--out", str(tmp_path / "both")]) == 2
    said = capsys.readouterr().err
    assert why in said
    assert "one and" in said
    assert not (tmp_path / "both").exists()


def test_a_trial_of_other_code_is_refused(tmp_path: Path) -> None:
    one, two = run_of(tmp_path / "one"), run_of(tmp_path / "two")
    rows = [{**row, "key": "another"} for row in read_results(two).trials]
    write_run(two, rows, **read_results(two).sweep)
    with pytest.raises(ValueError, match="of other code, data or versions"):
        merge([one, two], tmp_path / "both")


@pytest.mark.parametrize("finished_first", [True, False])
@pytest.mark.parametrize("key", [None, "as before"])
def test_of_a_trial_in_both_the_finished_one_counts(key: str | None, finished_first: bool, tmp_path: Path) -> None:
    one, two = run_of(tmp_path / "one"), run_of(tmp_path / "two")
    rows = [
        {**row, "status": "FAILED", "average_accuracy": None, "key": key and row["key"]}
        for row in read_results(two).trials
    ]
    write_run(two, rows, **read_results(two).sweep)
    merged = merge([one, two] if finished_first else [two, one], tmp_path / "both")
    assert {row["status"] for row in merged.trials} == {"FINISHED"}


def test_folders_of_one_name_keep_their_provenance(tmp_path: Path) -> None:
    one, two = run_of(tmp_path / "here" / "one"), run_of(tmp_path / "there" / "one", seeds=[3])
    provenance = merge([one, two], tmp_path / "both").sweep["provenance"]
    assert isinstance(provenance, dict)
    assert [*provenance] == [str(one), str(two)]
    with pytest.raises(ValueError, match="is given twice"):
        merge([one, one], tmp_path / "both")


def test_a_run_keeps_its_own_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = run_of(tmp_path / "one"), run_of(tmp_path / "two", seeds=[3])
    assert main([str(one), str(two), "--out", str(one)]) == 2
    assert "is a RUN with a report of its own" in capsys.readouterr().err


def test_the_example_of_the_readme_belongs_together() -> None:
    (line,) = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("mcit report ")]
    one, two = (load_spec(ROOT / "sweeps" / f"{name.removeprefix('runs/')}.yaml") for name in line.split()[2:4])
    for name in ("benchmark", "model", "orders", "orders_drawn"):
        assert getattr(one, name) == getattr(two, name)
    assert _evaluated(one) == _evaluated(two)


def test_one_run_is_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = run_of(tmp_path / "one")
    assert main([str(one)]) == 0
    assert (one / "report.html").exists()
    assert main([str(one), str(one)]) == 2
    assert "--out DIR is wanted" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert "is no RUN" in capsys.readouterr().err
