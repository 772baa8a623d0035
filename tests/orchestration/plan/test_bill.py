"""What trials cost, by hand: `sequential` and `ewc` share their first stage; 10 steps a stage, 100 rows a split."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.plan.bill import ROW_SECONDS, STEP_SECONDS, Amount, Bill, bill, critical_path, gpus_held, settings_of
from orchestration.plan.stage_tree import costs, stage_tree
from orchestration.plan.stored import read_store
from orchestration.plan.timings import LIKE, USUAL
from orchestration.plan.trials import Trial
from tests.support.timed import experiment, keep, trial


def billed(folder: Path, trials: list[Trial]) -> Bill:
    tree = stage_tree(trials)
    return bill(trials, tree, costs(trials, tree), read_store(str(folder), trials, tree, "cpu"), "cpu")


def test_by_hand_from_stored_timings(tmp_path: Path) -> None:
    keep(tmp_path, [experiment("sequential_lora", seed=9)], step=lambda one: 0.5, row=0.01)
    keep(tmp_path, [experiment("ewc", seed=9)], step=lambda one: 1.0, row=0.01)  # its second stage is the dearer one
    found = billed(tmp_path, [trial("sequential_lora"), trial("ewc")])
    # training: a shared first stage of 5 s, then 5 s and 10 s
    assert found.total.train == pytest.approx(20.0)
    # rows: 300 test rows and 100 validation rows after the shared one (the next task before any training, too), after
    # each second stage two splits of two tasks and retention's 300, and the untouched model on two tasks and retention
    assert found.total.evaluate == pytest.approx(0.01 * (400 + 2 * 700 + 500))
    assert (found.total.stages, found.total.kept, found.total.untimed) == (3.0, 0.0, 0.0)
    assert [line.setting for line in found.lines] == ["sequential_lora", "ewc"]
    assert [line.amount.train for line in found.lines] == pytest.approx([7.5, 12.5])
    assert [line.amount.stages for line in found.lines] == [1.5, 1.5]
    assert {timing.alike for line in found.lines for timing in line.timings} == {LIKE}
    assert critical_path(found.tree, found.stages) == (pytest.approx(5 + 10 + 4 + 7), 2)


def test_lines_add_up_to_the_total(tmp_path: Path) -> None:
    trials = [trial(method, seed) for method in ("sequential", "ewc", "fwd_prompt", "zero_shot") for seed in (0, 1)]
    found = billed(tmp_path, trials)
    total = sum((line.amount for line in found.lines), Amount())
    for name in ("train", "evaluate", "disk", "stages", "kept", "untimed", "unsized"):
        assert getattr(total, name) == pytest.approx(getattr(found.total, name)), name
    assert sum(len(line.trials) for line in found.lines) == len(trials)


def test_the_embedded_model_has_a_usual_figure(tmp_path: Path) -> None:
    found = billed(tmp_path / "none", [trial("sequential")])
    assert found.total.train == pytest.approx(2 * 10 * STEP_SECONDS)
    assert found.total.evaluate == pytest.approx((400 + 700 + 500) * ROW_SECONDS)
    assert {timing.alike for timing in found.lines[0].timings} == {USUAL}
    assert found.total.unsized == 2.0
    assert (found.steps, found.rows, found.nominal) == (20, 1100, False)


def test_what_is_stored_costs_nothing(tmp_path: Path) -> None:
    one = trial("sequential")
    keep(tmp_path, [one.experiment], stages=1)
    found = billed(tmp_path, [one])
    assert (found.total.stages, found.total.kept) == (1.0, 1.0)
    assert found.total.train == pytest.approx(5.0)
    assert found.total.evaluate == pytest.approx(0.01 * (700 + 500))  # the untouched model is not there
    first = found.stages[found.tree.chains[one.id][0]]
    assert first == Amount(kept=1.0)


def test_a_stored_stage_is_looked_at_again_on_more_rows(tmp_path: Path) -> None:
    keep(tmp_path, [experiment("sequential")])
    found = billed(tmp_path, [trial("sequential", evaluation__rows=150)])
    assert found.total.kept == 2.0
    assert found.total.train == 0.0
    # retention is always whole, and stored; a split of 200 validation rows or 500 test rows is cut at 150
    assert sum(amount.evaluate for amount in found.stages.values()) == pytest.approx(0.01 * 8 * 150)


def test_a_cap_above_all_rows_is_stored_as_it_was_asked_for(tmp_path: Path) -> None:
    one = trial("sequential", evaluation__rows=9_999)
    keep(tmp_path, [one.experiment])
    found = billed(tmp_path, [one])
    assert sum(amount.evaluate for amount in found.stages.values()) == 0.0


def test_a_pilots_rows_are_not_all_rows(tmp_path: Path) -> None:
    """Of a benchmark whose rows are counted in what was evaluated."""

    def of(rows: int | None, seed: int = 0) -> Trial:
        made = experiment("sequential", seed)
        settings = made.evaluation.model_copy(update={"rows": rows})
        return Trial("x", made.model_copy(update={"benchmark": "easy_vqa", "evaluation": settings}), {})

    keep(tmp_path, [of(20).experiment])
    whole, more, fewer = (billed(tmp_path, [of(rows, seed=1)]) for rows in (None, 50, 10))
    assert whole.rows is None
    assert whole.total.untimed > 0
    assert more.rows == 8 * 50 + 300
    assert fewer.rows == 8 * 10 + 300
    keep(tmp_path, [of(None, seed=2).experiment])
    assert billed(tmp_path, [of(None, seed=1)]).rows == 3 * 200 + 5 * 500 + 300


def test_another_model_has_no_time_and_no_rows(tmp_path: Path) -> None:
    one = trial("sequential_lora")
    other = one.experiment.model_copy(update={"model": "smol", "benchmark": "easy_vqa"})
    found = billed(tmp_path, [Trial("x", other, {})])
    assert found.total.train == found.total.evaluate == 0.0
    assert found.total.untimed == 2.0 + 2.0  # two stages; two tasks that the untouched model is asked
    # evaluation.rows is known, and the model has no sample of its own: 4 splits after the first stage, 4 after the last
    assert found.rows == 8 * 100
    everything = one.experiment.evaluation.model_copy(update={"rows": None})
    unbounded = billed(tmp_path, [Trial("x", other.model_copy(update={"evaluation": everything}), {})])
    assert unbounded.rows is None


def test_settings_name_the_tuner_where_a_method_has_several() -> None:
    pool, lora = experiment("sequential"), experiment("sequential_lora").model_copy(update={"method": "sequential"})
    trials = [
        Trial("a", pool, {"method": None}),
        Trial("b", lora, {"method": None}),
        Trial("c", experiment("fwd_prompt"), {"method": "fwd_prompt", "projection.task_energy": 0.5}),
    ]
    assert settings_of(trials) == ["sequential (prompt_pool)", "sequential (lora)", "fwd_prompt (task_energy 0.5)"]


@pytest.mark.parametrize(("workers", "gpus", "held"), [(3, 1, 3), (3, 0.5, 2), (3, 0.4, 2), (2, 2, 4), (1, 0.3, 1)])
def test_gpus_that_workers_hold(workers: int, gpus: float, held: int) -> None:
    assert gpus_held(workers, gpus) == held
