"""Searches with Optuna, whole sweeps on real Ray: killed drivers and other numbers of workers change nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.sweeping import Sweep, mlflow_runs, without_counts

SEARCH = """\
name: tiny
benchmark: {embedded}
tasks: [attribute, ground]
model: {embedded}
method: sequential
base: {{tuner: noting, train.batch_size: 8, evaluation.rows: 40, pool.size: 12, pool.top_k: 8}}
axes:
  train.steps: {{low: 4, high: 24}}
  train.lr: {{low: 0.003, high: 0.3, log: true}}
references: []
search:
  kind: optuna
  sampler: tpe
  trials: {trials}
  batch: {batch}
  objectives: {{average_accuracy: maximize, forgetting: minimize}}
  constraints: {{forgetting: 0.5}}
"""
#: the tables that must not differ by a bit, but for seconds and counts of one command
TABLES = ("accuracy", "stages")


def searching(folder: Path, trials: int, embedded: str = "mini", batch: int = 3) -> Sweep:
    """`embedded`: the model and benchmark; the weights of tiny answer nothing right, in little time."""
    sweep = Sweep(folder)
    sweep.file.write_text(SEARCH.format(trials=trials, embedded=embedded, batch=batch))
    return sweep


def same(one: Sweep, other: Sweep) -> None:
    for name in TABLES:
        assert one.table(name) == other.table(name)
    assert without_counts(one.table("trials")) == without_counts(other.table("trials"))
    files = [(sweep.storage / sweep.name / "proposals").read_bytes() for sweep in (one, other)]
    assert files[0] == files[1]


def whole(sweep: Sweep, trials: int) -> None:
    """Every setting told, each once."""
    rows = sweep.table("trials")
    assert sorted(int(str(row["setting"])) for row in rows) == list(range(trials))
    assert {row["state"] for row in rows} == {"complete"}
    assert len({row["trial"] for row in rows}) == trials
    assert mlflow_runs(sweep) == []


def killed(sweep: Sweep, begun: int) -> None:
    """Begin, and kill the driver once so many stages have been begun."""
    sweep.begin().wait_for(begun)
    assert sweep.process
    sweep.process.kill()
    sweep.process.communicate()


def test_a_killed_search_goes_on_with_the_same_suggestions(tmp_path: Path) -> None:
    """So few that TPE has not begun to model; the slow one below goes on to where it does."""
    plain = searching(tmp_path / "plain", 5, "tiny", batch=2)
    plain.begin(0.0, "--workers", "1").end()
    whole(plain, 5)
    sweep = searching(tmp_path / "killed", 5, "tiny", batch=2)
    killed(sweep, 4)
    sweep.begin(0.0, "--workers", "2").end()
    whole(sweep, 5)
    same(sweep, plain)


@pytest.mark.slow
def test_three_kills_and_other_numbers_of_workers_change_nothing(tmp_path: Path) -> None:
    plain = searching(tmp_path / "plain", 24)
    plain.begin(0.0, "--workers", "2").end()
    whole(plain, 24)
    sweep = searching(tmp_path / "killed", 24)
    rng = random.Random()
    at = sorted(rng.sample(range(3, 46), 3))
    print(f"killed after {at} begun stages")
    for begun in at:
        killed(sweep, begun)
    sweep.begin().end()
    whole(sweep, 24)
    same(sweep, plain)
    for workers in ("1", "4"):
        other = searching(tmp_path / workers, 24)
        # by Ray's count this machine has fewer processors than four
        other.file.write_text(other.file.read_text() + "resources: {cpus: 0.5}\n")
        other.begin(0.0, "--workers", workers).end()
        whole(other, 24)
        for name in TABLES:
            assert other.table(name) == plain.table(name)
        assert without_counts(other.table("trials")) == without_counts(plain.table("trials"))
