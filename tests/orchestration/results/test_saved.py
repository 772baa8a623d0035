"""What sharing and early stopping saved, worked by hand."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from orchestration.keep.provenance import write_sweep
from orchestration.keep.tables import Row
from orchestration.plan.sweep_file import resolved
from orchestration.report import write_report
from orchestration.results.reading import Results, read_results
from orchestration.results.saved import Part, saved
from tests.support.examples import example
from tests.support.searching import run_search, write_sweep_file

#: six trials of two stages: three thresholds share the first one, in which there is nothing to protect
GRID = {"pool.size": [20, 40], "projection.task_energy": [0.5, 0.8, 0.9], "train.lr": [0.03]}


def run(folder: Path, **keys: object) -> Results:
    spec = write_sweep_file(folder, axes=GRID, **keys)
    run_search(spec, folder / "run", 2, random.Random(0))
    write_sweep(folder / "run", resolved(spec), {})
    return read_results(folder / "run")


def spending(results: Results, first: float, *second: float, **metrics: float) -> Results:
    """With these CPU seconds for the first stages, and for the second ones of the trials that came to them."""
    left = [*second]
    stages = {}
    for name, found in results.stages.items():
        seconds = {stage.stage: first if stage.stage == 0 else left.pop(0) for stage in found}
        stages[name] = [
            replace(one, metrics={**one.metrics, "seconds/train_cpu": seconds[one.stage], **metrics}) for one in found
        ]
    assert not left
    return replace(results, stages=stages)


def test_shared_and_stopped_stages(tmp_path: Path) -> None:
    results = spending(run(tmp_path, halving={"min_stages": 1, "reduction": 2}), 4.0, 2.0, 3.0, 7.0)
    found = saved(results)
    assert found is not None
    assert found.cpu
    assert found.made == Part(2 + 3, 2 * 4.0 + 12.0)
    assert found.shared == Part(4, 4 * 4.0)
    assert found.stopped == Part(3, 3 * 4.0)  # at the mean of 2, 3 and 7


def test_without_halving_only_sharing_saves(tmp_path: Path) -> None:
    results = run(tmp_path)
    found = saved(spending(results, 4.0, *[3.0] * 6))
    assert found is not None
    assert (found.made, found.shared, found.stopped) == (Part(8, 26.0), Part(4, 16.0), Part(0, 0))
    on_a_gpu = saved(spending(results, 4.0, *[3.0] * 6, **{"memory/peak": 1e9}))
    assert on_a_gpu is not None
    assert not on_a_gpu.cpu
    assert (on_a_gpu.made, on_a_gpu.shared) == (Part(8, 8.0), Part(4, 4.0))  # a second each by the clock
    page = write_report(results.folder).read_text()
    assert "What sharing and early stopping saved" in page
    printed = example("saved").table([results.folder]).splitlines()
    assert printed[2:] == ["| `run` | 8 stages, 8 s | 4 stages, 4 s | – |"]


def test_nothing_is_told_of_what_is_no_sweep(tmp_path: Path) -> None:
    results = run(tmp_path)
    assert saved(results) is not None
    assert saved(replace(results, folder=tmp_path / "elsewhere")) is None  # as of merged RUNs
    assert saved(replace(results, stages={})) is None
    outdated: list[Row] = [{**row, "status": "OUTDATED"} for row in results.trials]
    assert saved(replace(results, trials=outdated)) is None
    (results.folder / "sweep.yaml").write_text("tasks: 3\n")
    assert saved(results) is None
