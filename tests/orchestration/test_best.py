"""`python -m orchestration.best` on the stored RUNs of the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mcit_core.experiment_file import load_experiment
from orchestration.best import main
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import make_trials
from orchestration.results.choosing import choice
from orchestration.results.reading import read_results
from orchestration.results.settings import estimate_rows
from orchestration.results.wanted import Limit, Wish, pick
from tests.orchestration.results.test_results import energy, trial, write_run
from tests.support.places import ROOT

RUNS = ("threshold", "pool", "compare", "fwd_prompt", "pegp", "llaca_groups")


@pytest.mark.parametrize("name", RUNS)
def test_the_experiment_is_that_of_a_trial(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, file = ROOT / "docs" / "data" / name, tmp_path / "next.yaml"
    assert main([str(run), "--out", str(file)]) == 0
    said = capsys.readouterr().out
    assert said.endswith(file.read_text())
    made = load_experiment(file)
    assert made in [one.experiment for one in make_trials(load_spec(run / "sweep.yaml"))]


def test_null_is_a_value(tmp_path: Path) -> None:
    sweep = {
        "benchmark": "mini",
        "model": "mini",
        "tasks": ["attribute", "ground"],
        "method": "fwd_prompt",
        "base": {"train.steps": 60},
        "axes": {"train.clip": [1.0, None]},
        "seeds": [0],
        "references": [],
    }
    run, file = tmp_path / "run", tmp_path / "next.yaml"
    run.mkdir()
    (run / "sweep.yaml").write_text(yaml.safe_dump({"name": "run", **sweep}))
    rows = []
    for one in make_trials(load_spec(run / "sweep.yaml")):
        clip = one.settings["train.clip"]
        row = trial(one.id, "fwd_prompt", 0, average_accuracy=0.5) | {"train.clip": clip, "order": one.order}
        rows.append(row | {"validation/average_accuracy": 0.4 if clip else 0.6})
    write_run(run, rows, **{"name": "run", **sweep})
    assert main([str(run), "--out", str(file)]) == 0
    assert load_experiment(file).train.clip is None


@pytest.mark.parametrize("name", RUNS)
def test_without_limits_it_is_what_the_report_chooses(name: str) -> None:
    results = read_results(ROOT / "docs" / "data" / name)
    reported = choice(results.trials, results.axes, results.design)
    found = pick(results.trials, results.axes, Wish("average_accuracy"), results.design)
    assert reported is not None
    assert found.kept[0].setting == reported.chosen
    assert found.held_out == reported.held_out
    assert found.times == reported.times
    assert not found.left_out


def test_limits_are_kept_on_validation_rows() -> None:
    results = read_results(ROOT / "docs" / "data" / "compare")
    most = Limit("forgetting", 0.01, most=True)
    found = pick(results.trials, results.axes, Wish("average_accuracy", (most,)), results.design)
    assert found.kept
    assert found.left_out
    for summaries, kept in ((found.kept, True), (found.left_out, False)):
        for summary in summaries:
            rows = [row for row in results.finished if summary.setting.matches(row)]
            mean = estimate_rows(rows, "validation/forgetting", results.design).mean
            assert mean is not None
            assert (mean <= 0.01) == kept
    accuracies = [summary.metric("validation/average_accuracy").mean or 0.0 for summary in found.kept]
    assert accuracies == sorted(accuracies, reverse=True)
    least = Limit("average_accuracy", 0.6, most=False)
    found = pick(results.trials, results.axes, Wish("trained_parameters", (least,)), results.design)
    sizes = [summary.metric("trained_parameters").mean or 0.0 for summary in found.kept]
    assert sizes == sorted(sizes)


def test_the_pick_is_judged_on_seeds_that_did_not_make_it(tmp_path: Path) -> None:
    """Each setting is the best on its own seed's validation rows and the worst on its test rows."""
    rows = [trial(f"s{seed}", "sequential", seed, average_accuracy=0.5) for seed in (0, 1)]
    for value, test in ((0.5, (0.9, 0.1)), (0.99, (0.1, 0.9))):
        for seed in (0, 1):
            row = energy(f"t{value}-{seed}", value, seed, average_accuracy=test[seed])
            rows.append(row | {"validation/average_accuracy": test[seed]})
    results = read_results(write_run(tmp_path / "run", rows))
    found = pick(results.trials, results.axes, Wish("average_accuracy"), results.design)
    assert found.held_out.mean == pytest.approx(-0.4)
    assert sorted(found.times.values()) == [1, 1]


def test_what_cannot_be_picked_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(ROOT / "docs" / "data" / "compare")
    unfinished = write_run(tmp_path / "run", [energy("a", 0.5, 0, status="FAILED")])
    damaged = write_run(tmp_path / "damaged", [energy("a", 0.5, 0)])
    (damaged / "sweep.yaml").write_text("{")
    for arguments, said in (
        ([run, "--objective", "acuracy"], "acuracy is no metric; expected one of average_accuracy"),
        ([run, "--objective", "forward_transfer"], "is measured on test rows alone"),
        ([run, "--max", "forgetting"], "--max forgetting: expected METRIC=NUMBER"),
        ([run, "--max", "forgetting=5"], "did you mean forgetting=0.05?"),
        ([run, "--max", "forgetting=nan"], "expected METRIC=NUMBER"),
        ([run, "--max", "=0.1"], "expected METRIC=NUMBER"),
        ([run, "--out", str(damaged / "sweep.yaml")], "is there already, with something else in it"),
        ([run, "--out", str(damaged / "none" / "x.yaml")], "--out"),
        ([run, "--max", "forgeting=0.1"], "did you mean 'forgetting'"),
        (
            [run, "--max", "forgetting=-0.5"],
            "none of 16 settings keeps to forgetting of −50.0 at the most; the nearest",
        ),
        ([str(tmp_path)], "is no RUN: it has no trials.parquet"),
        ([str(unfinished)], "no setting has a finished trial with validation/average_accuracy"),
        ([str(damaged)], "sweep.yaml is damaged"),
    ):
        assert main(arguments) == 2, arguments
        assert said in capsys.readouterr().err
