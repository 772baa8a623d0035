"""What a plan finds in a stage store: what need not be made again, and what it took."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mcit_core.config import Experiment
from mcit_core.data.workbench import workbench_for
from mcit_core.methods import build_experiment
from mcit_core.stages.fingerprint import untouched_code
from mcit_core.stages.numerics import numerics
from mcit_core.stages.results import Cell, Evaluation
from mcit_core.training.sequence import Sequence
from orchestration.keep.stage_store import StageStore
from orchestration.plan.bill import Amount, bill
from orchestration.plan.stage_tree import Look, costs, stage_tree
from orchestration.plan.stored import Stored, read_store, shows
from orchestration.plan.timings import LIKE, evaluation_likeness, rows_name, training_likeness
from orchestration.plan.trials import Trial
from tests.support.timed import keep, seen_from, trial

TINY = {"train.steps": 2, "train.batch_size": 4, "pool.size": 4, "pool.top_k": 2, "evaluation.rows": 1000}


def read(folder: Path, trials: list[Trial]) -> tuple[Stored, list[str]]:
    tree = stage_tree(trials)
    return read_store(str(folder), trials, tree, "cpu"), tree.chains[trials[0].id]


def test_nothing_is_stored_where_there_is_no_folder(tmp_path: Path) -> None:
    found, _ = read(tmp_path / "none", [trial("sequential")])
    assert found == Stored()
    assert not (tmp_path / "none").exists()


def test_stored_stages_and_their_evaluations(tmp_path: Path) -> None:
    one = trial("sequential")
    keep(tmp_path, [one.experiment], stages=1)
    found, chain = read(tmp_path, [one])
    assert found.stages.keys() == {chain[0]}
    # after the first of two: its own validation and test rows, the next task's test rows, and those before any training
    looked = [
        Look("attribute", "validation", 100),
        Look("attribute", "test", 100),
        Look("ground", "test", 100),
        Look("ground", "test", 100, untrained=True),
    ]
    there = found.stages[chain[0]]
    assert len(there) == len(looked)
    assert all([shows(made, one.experiment, look) for made in there].count(True) == 1 for look in looked)
    assert not any(shows(made, one.experiment, look._replace(most=101)) for made in there for look in looked)


@pytest.mark.parametrize(
    "other",
    [
        {"evaluation__max_new_tokens": 4},
        {"evaluation__batch_size": 10},
        {"train__threads": 2},
        {"train__precision": "bfloat16"},
    ],
)
def test_an_evaluation_with_other_settings_is_not_the_one(other: dict[str, object]) -> None:
    one, look = trial("sequential").experiment, Look("attribute", "test", 100)
    made = seen_from(one, *look[:3])
    assert shows(made, one, look)
    assert not shows(made, trial("sequential", **other).experiment, look)
    assert not shows({**made, "rules": {"scoring": "exact"}}, trial("sequential", **other).experiment, look)


def test_a_benchmarks_own_length_of_answers_counts_for_any() -> None:
    look = Look("attribute", "test", 100)
    other = trial("sequential", evaluation__max_new_tokens=4).experiment
    assert shows(seen_from(other, *look[:3], answer_tokens=30, max_new_tokens=30), other, look)


@pytest.mark.parametrize(("rows", "known"), [(None, 500), (100, None), (500, None), (501, 500), (9_999, 500)])
def test_the_rows_of_a_split_are_known_where_all_were_evaluated(tmp_path: Path, rows: int, known: int | None) -> None:
    """Those of a pilot with `evaluation.rows` are not all that there are."""
    one = trial("sequential", evaluation__rows=rows)
    keep(tmp_path, [one.experiment])
    found, _ = read(tmp_path, [one])
    assert found.timings.rows.get(rows_name("mini", "ground", "test")) == known


def test_the_untouched_model_as_this_code_evaluates_it(tmp_path: Path) -> None:
    one = trial("sequential").experiment
    here = {"device": "cpu", "numerics": {**numerics(torch.device("cpu"))}, **untouched_code(one)}
    store = StageStore(tmp_path)
    of_others = [
        {"model": "smol"},
        {"benchmark": "easy_vqa"},
        {"code": {"mcit_core.x": "old"}},
        {"libraries": {}},
        {"numerics": {"cpu": "other"}},
        {"device": "cuda"},
    ]
    for number, other in enumerate([{}, *of_others]):
        made = seen_from(one, "ground", "test", 100, **{**here, **other})
        store.put_evaluation(
            str(number) * 64, Evaluation([Cell("ground", "test", 0.5, None, 100)], None, None, 1.0, made_from=made)
        )
    found, _ = read(tmp_path, [trial("sequential", seed=3)])
    assert [shows(made, one, Look("ground", "test", 100)) for made in found.untouched] == [True]


def test_a_sequence_that_has_been_run_is_stored_whole(tmp_path: Path) -> None:
    """As the sequence itself names its evaluations; with more rows asked for than there are."""
    trials = [
        Trial(method, build_experiment("tiny", "tiny", method, ("attribute", "ground"), 0, TINY), {})
        for method in ("sequential", "blind", "zero_shot")
    ]
    for one in trials:
        for _ in Sequence(one.experiment, workbench_for(one.experiment, tmp_path), StageStore(tmp_path / "stages")):
            pass
    tree = stage_tree(trials)
    found = bill(trials, tree, costs(trials, tree), read_store(str(tmp_path / "stages"), trials, tree, "cpu"), "cpu")
    assert found.total == Amount(kept=found.total.kept)
    assert found.total.kept == len(tree.made_from)


def test_a_chain_with_a_gap_is_stored_up_to_it(tmp_path: Path) -> None:
    one = trial("sequential")
    keep(tmp_path, [one.experiment])
    found, chain = read(tmp_path, [one])
    assert found.stages.keys() == {*chain}
    other, chain = read(tmp_path, [trial("sequential", seed=1)])
    assert not other.stages
    assert other.timings.train(
        training_likeness(stage_tree([one]).made_from[stage_tree([one]).chains[one.id][0]], "cpu")
    )


def test_what_other_code_trained_gives_times_and_is_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = trial("sequential")
    keep(tmp_path, [one.experiment], step=lambda one: 0.25, row=0.002)
    monkeypatch.setattr(
        "mcit_core.stages.fingerprint.stage_code", lambda *_: {"code": {"mcit_core.x": "new"}, "libraries": {}}
    )
    found, chain = read(tmp_path, [one])
    assert not found.stages
    made_from = stage_tree([one]).made_from[chain[1]]
    trained = found.timings.train(training_likeness(made_from, "cpu"))
    assert trained is not None
    assert (trained.each, trained.samples, trained.alike, trained.units) == (0.25, 1, LIKE, (10, 10))
    timing = found.timings.evaluate(evaluation_likeness(made_from, "cpu", "ground", "test"))
    assert timing is not None
    assert timing.seconds(100) == pytest.approx(0.2)


def test_another_device_gives_nothing(tmp_path: Path) -> None:
    one = trial("sequential")
    keep(tmp_path, [one.experiment], device="cuda")
    found, _ = read(tmp_path, [one])
    assert found == Stored()


def test_damaged_records_and_evaluations_are_passed_over_and_stay(tmp_path: Path) -> None:
    one = trial("sequential")
    keep(tmp_path, [one.experiment])
    records = sorted(tmp_path.rglob("record.json"))
    records[0].write_text("{")
    for path in tmp_path.rglob("evaluations/*.json"):
        path.write_text(path.read_text()[:-9])
    found, _ = read(tmp_path, [one])
    assert len([*tmp_path.rglob("record.json")]) == 2
    assert not found.timings.evaluation
    assert found.timings.training


def test_steps_of_epochs_and_the_peak_come_from_what_was_trained(tmp_path: Path) -> None:
    def epochs(seed: int) -> Experiment:
        one = trial("sequential_lora", seed).experiment
        return one.model_copy(update={"train": one.train.model_copy(update={"epochs": 0.5})})

    keep(tmp_path, [epochs(0)], **{"memory/peak": 4e9})
    found, chain = read(tmp_path, [Trial("x", epochs(1), {})])
    made_from = stage_tree([Trial("x", epochs(1), {})]).made_from[chain[0]]
    assert found.timings.memory(training_likeness(made_from, "cpu")) == 4e9
    assert {*found.timings.steps.values()} == {24}  # half of 1,500 rows, 32 at a time
