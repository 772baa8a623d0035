"""References that use no picture, or no model at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest
import torch
from PIL import Image

from mcit_core.benchmarks.blind import Blind
from mcit_core.data.workbench import Workbench, workbench_for
from mcit_core.example import Example
from mcit_core.methods import build_experiment, reference_experiment
from mcit_core.stages.keys import stage_chain
from mcit_core.stages.results import UNTOUCHED, untouched
from mcit_core.training.evaluation import evaluate
from mcit_core.training.majority import majority_cells
from mcit_core.training.sequence import Sequence

ORDER = ("attribute", "ground")
SETTINGS = {"train.steps": 2, "train.batch_size": 8}


RED, BLUE, TWO = ("color", "red"), ("color", "blue"), ("number", "2")
SPOKEN = {
    "train": [RED, RED, BLUE, TWO, TWO, RED],
    "validation": [RED, ("number", "red")],
    "test": [RED, BLUE, TWO, ("shape", "red")],
}


class Spoken:
    """Two kinds of question; 'red' is the commonest answer of the first, '2' of the second, of all 'red'."""

    name, tasks, exact_match = "spoken", ("only",), True

    def open(self, row: Mapping[str, Any]) -> Example:
        return Example((Image.new("RGB", (48, 48)),), row["instruction"])

    def rows(self, task: str, split: str) -> pa.Table:
        kinds, answers = zip(*SPOKEN[split], strict=True)
        columns = {
            "images": [[b""]] * len(kinds),
            "instruction": ["?"] * len(kinds),
            "answer": answers,
            "content_kind": kinds,
        }
        return pa.table({name: list(values) for name, values in columns.items()})

    def score(self, task: str, prediction: str, answer: str) -> float:
        return float(prediction == answer)

    def content_score(self, task: str, prediction: str, answer: str, content_kind: str) -> float:
        return float(prediction == answer)


def test_the_commonest_answer_of_each_kind_by_hand(bench: Workbench) -> None:
    spoken = Workbench("tiny", "tiny", "cpu")
    spoken.benchmark = Spoken()
    validation, test = majority_cells(spoken, "only")
    assert (validation.split, validation.accuracy, validation.n) == ("validation", 0.5, 2)
    assert (test.split, test.accuracy, test.n) == ("test", 0.75, 4)  # the kind that training never saw: 'red'


def test_majority_is_a_result_without_a_stage(bench: Workbench) -> None:
    config = build_experiment("tiny", "tiny", "majority", ORDER)
    sequence = Sequence(config, bench)
    (result,) = list(sequence)
    assert result.stage == UNTOUCHED
    assert result.metrics  # or else its RUN would read back as damaged
    assert sequence.chain == []
    rows = bench.rows("attribute", "test")
    alone = Counter(bench.rows("attribute", "train").answers).most_common(1)[0][0]
    found = untouched([result], ORDER)
    assert found is not None
    assert found[0] is not None
    assert found[0] >= rows.answers.count(alone) / len(rows) - 0.2
    assert len({cell.task for cell in result.accuracy}) == 2


def test_blind_sees_grey_and_is_direct_in_all_else(bench: Workbench) -> None:
    grey, seen = Blind(bench.benchmark), bench.benchmark
    for row, real in zip(*(each.rows("attribute", "test").to_pylist() for each in (grey, seen)), strict=True):
        assert {**real, "mcit_blind": "grey"} == row
        assert set(grey.open(row).images[0].tobytes()) == {128}
        assert grey.open(row).images[0].size == seen.open(real).images[0].size
        assert grey.open(row).instruction == seen.open(real).instruction
    direct = build_experiment("tiny", "tiny", "direct", ORDER, 0, SETTINGS)
    blind = reference_experiment(direct, "blind", ORDER)
    assert blind == direct.model_copy(update={"method": "blind", "protocol": "blind"})
    # never the same stage, also where the data are not told, as in a plan
    keys = [{stage.key for stage in stage_chain(config, {}, {})} for config in (direct, blind)]
    assert not keys[0] & keys[1]
    dark = bench.blind
    assert dark.model is bench.model
    assert dark.data_digest("attribute") != bench.data_digest("attribute")
    results = list(Sequence(blind, dark))
    assert [[cell.task for cell in result.accuracy if cell.split == "test"] for result in results[1:]] == [
        ["attribute"],
        ["ground"],
    ]
    sighted = list(Sequence(direct, bench))
    assert results[1].traces["loss"] != sighted[1].traces["loss"]


def test_a_worker_takes_the_grey_pictures_for_blind_alone(features) -> None:  # type: ignore[no-untyped-def]
    for method in ("direct", "blind"):
        config = build_experiment("tiny", "tiny", method, ORDER, 0, {**SETTINGS, "train.device": "cpu"})
        assert isinstance(workbench_for(config, features).benchmark, Blind) == (method == "blind")


@pytest.mark.parametrize("name", ["majority", "zero_shot"])
def test_what_trains_nothing_is_there_once(name: str) -> None:
    made = [build_experiment("tiny", "tiny", "fwd_prompt", ORDER, seed, SETTINGS) for seed in (3, 4)]
    references = [reference_experiment(config, name, ORDER) for config in made]
    assert references[0] == references[1]


def test_fewer_rows_are_the_first_ones_and_train_the_same(bench: Workbench) -> None:
    settings = {"train.steps": 1, "train.batch_size": 8}
    whole = build_experiment("tiny", "tiny", "sequential", ORDER, 0, settings)
    few = build_experiment("tiny", "tiny", "sequential", ORDER, 0, {**settings, "evaluation.rows": 7})
    assert [s.key for s in stage_chain(whole, {}, {})] == [s.key for s in stage_chain(few, {}, {})]
    store: dict[str, object] = {}
    results = {}
    for config in (whole, few):
        sequence = Sequence(config, bench)
        results[config.evaluation.rows] = list(sequence)
        store |= {stage.key: None for stage in sequence.chain}
    assert len(store) == len(ORDER)
    cells = [cell for result in results[7] for cell in result.accuracy]
    assert {cell.n for cell in cells} == {min(7, len(bench.rows("attribute", s))) for s in ("validation", "test")}
    assert any(
        a.accuracy != b.accuracy for a, b in zip(results[7][-1].accuracy, results[None][-1].accuracy, strict=True)
    )
    rows = bench.rows("attribute", "test")
    right = evaluate(bench.model, None, rows, bench.benchmark, "attribute", picked=torch.arange(7))
    assert next(c for c in cells if c.split == "test").content_accuracy == right.points.content_accuracy
