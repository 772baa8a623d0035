"""How much is read at once and how long an answer may be: in the key, and what they say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mcit_core.config import EvaluationSettings, Value
from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.models import Batch, Encoded
from mcit_core.stages.digest import digest
from mcit_core.training.evaluation import evaluate
from mcit_core.training.sequence import Sequence


def test_rows_read_at_once_give_the_same_scores(bench: Workbench) -> None:
    rows = bench.rows("attribute", "test")
    found = [
        evaluate(bench.model, None, rows, bench.benchmark, "attribute", settings=EvaluationSettings(batch_size=size))
        for size in (100, 7)
    ]
    assert found[0].points == found[1].points
    assert found[0].answers == found[1].answers


def test_what_does_not_fit_into_memory_is_read_in_halves(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, read, sizes = bench.rows("attribute", "test"), bench.model.read, list[int]()

    def small(batch: Batch, front: Tensor | None) -> Encoded:
        sizes.append(len(batch))
        if len(batch) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return read(batch, front)

    usual = evaluate(bench.model, None, rows, bench.benchmark, "attribute")
    monkeypatch.setattr(bench.model, "read", small)
    most = 9
    halved = evaluate(bench.model, None, rows, bench.benchmark, "attribute", settings=EvaluationSettings(batch_size=28))
    assert (halved.points, halved.answers) == (usual.points, usual.answers)
    assert sizes[:3] == [28, 14, 7]
    assert max(sizes[2:]) == 7
    most = 0
    with pytest.raises(torch.cuda.OutOfMemoryError):
        evaluate(bench.model, None, rows, bench.benchmark, "attribute", settings=EvaluationSettings(batch_size=2))


def test_an_answer_is_no_longer_than_asked(bench: Workbench) -> None:
    rows = bench.rows("caption", "test")
    settings = EvaluationSettings(max_new_tokens=1)
    score = evaluate(bench.model, None, rows, bench.benchmark, "caption", settings=settings, teacher_forcing=False)
    assert max(len(bench.model.answer_ids([answer])[0]) for answer in score.answers) <= 2  # and its end
    with torch.no_grad():
        encoded = bench.model.read(rows[torch.arange(4)], None)
        assert bench.model.generate(encoded, 16) != bench.model.generate(encoded, 1)


def test_both_are_in_an_evaluations_key_and_in_no_stages(bench: Workbench) -> None:
    def keys(**settings: Value) -> tuple[str, str]:
        experiment = build_experiment("tiny", "tiny", "sequential", ("attribute", "ground"), 0, settings)
        sequence = Sequence(experiment, bench)
        return sequence.chain[0].key, digest(sequence._made_from(sequence.chain[0], "attribute", "test"))

    usual = keys()
    assert keys(**{"evaluation.batch_size": 100}) == usual
    for name in ("evaluation.batch_size", "evaluation.max_new_tokens"):
        stage, evaluation = keys(**{name: 5})
        assert stage == usual[0]
        assert evaluation != usual[1]


def test_the_limit_counts_for_what_teacher_forcing_finds_right(bench: Workbench) -> None:
    rows = bench.rows("pretraining", "retention")
    for most in (16, 2, 1):
        settings = EvaluationSettings(max_new_tokens=most)
        quick, slow = (
            evaluate(
                bench.model, None, rows, bench.benchmark, "pretraining", settings=settings, teacher_forcing=forcing
            ).points.accuracy
            for forcing in (True, False)
        )
        assert quick == slow, most


def test_the_forms_of_answers_are_counted(bench: Workbench) -> None:
    experiment = build_experiment("tiny", "mini", "sequential", ("attribute", "ground"), 0, {"train.steps": 1})
    last = list(Sequence(experiment, bench))[-1].metrics
    for task in ("attribute", "ground"):
        shares = [value for name, value in last.items() if name.startswith(f"answer_shape/{task}/")]
        assert sum(shares) == pytest.approx(1)
