"""Evaluation by greedy decoding, batched; where the scorer is exact match, one teacher-forced pass decides it."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor

from mcit_core.benchmarks import Benchmark, Points, mean_points, scored
from mcit_core.benchmarks.shapes import shape
from mcit_core.config import EvaluationSettings
from mcit_core.data.features import Rows, ahead
from mcit_core.data.workbench import Workbench
from mcit_core.models import Batch, Encoded, Model
from mcit_core.protection import Groups
from mcit_core.stages.results import Cell, Evaluation
from mcit_core.tuners import Tuner

USUAL = EvaluationSettings()


@dataclass(frozen=True)
class Score:
    points: Points  # means over the rows
    n: int
    chosen: Tensor | None  # [n, K] the tuner's choices, for key drift and usage
    answers: frozenset[str]  # what was said, each answer once
    shapes: Counter[str]  # how many answers have which form


def encode(model: Model, tuner: Tuner | None, batch: Batch) -> tuple[Encoded, Tensor | None]:
    """A batch as it is read, through the attached tuner or (None) of the untouched model."""
    if tuner is None:
        return model.read(batch, None), None
    inputs = tuner.inputs(batch, training=False)
    return model.read(batch, inputs.front), inputs.chosen


def teacher_forced_exact(model: Model, encoded: Encoded, labels: Tensor) -> Tensor:
    """bool [N]: greedy decoding would give exactly the label. Equal to it because greedy decoding that has followed the
    answer so far sees the same prefix as the teacher-forced pass, and one wrong token already decides the verdict."""
    predicted = model.logits(encoded, labels).argmax(-1)
    return ((predicted == labels) | (labels == -100)).all(1)


@torch.no_grad()
def evaluate(
    model: Model,
    tuner: Tuner | None,
    rows: Rows,
    benchmark: Benchmark,
    task: str,
    *,
    picked: Tensor | None = None,
    teacher_forcing: bool = True,
    settings: EvaluationSettings = USUAL,
) -> Score:
    """Mean score and content score of `tuner` (None: the untouched model) on `rows`, or on those `picked` (at least
    one row number).

    Where the scorer is exact match, rows that the teacher-forced pass finds exact are not generated;
    `teacher_forcing=False` generates every answer and gives the same scores. Where `settings.batch_size` rows do not
    fit into memory, half of them are read at once, and so on.
    """
    while True:
        try:
            return _evaluate(model, tuner, rows, benchmark, task, picked, teacher_forcing, settings)
        except RuntimeError as error:
            if settings.batch_size == 1 or not should_reduce_batch_size(error):
                raise
        settings = settings.model_copy(update={"batch_size": settings.batch_size // 2})
        clear_device_cache(garbage_collection=True)  # the error is gone, and with it what its frames held


def _evaluate(
    model: Model,
    tuner: Tuner | None,
    rows: Rows,
    benchmark: Benchmark,
    task: str,
    picked: Tensor | None,
    teacher_forcing: bool,
    settings: EvaluationSettings,
) -> Score:
    points: list[Points] = []
    choices: list[Tensor] = []
    said: set[str] = set()
    shapes: Counter[str] = Counter()
    picked = torch.arange(len(rows)) if picked is None else picked
    with nullcontext() if tuner is None else tuner.attached():
        parts = picked.split(settings.batch_size)
        jobs = (partial(rows.prepared, index) for index in parts)
        for index, ready in zip(parts, ahead(jobs, model.device), strict=True):
            encoded, chosen = encode(model, tuner, rows.encoded(ready))
            if chosen is not None:
                choices.append(chosen.cpu())
            exact = torch.zeros(len(index), dtype=torch.bool)
            if teacher_forcing and benchmark.exact_match:
                labels = rows.labels_at(index)
                short = (labels != -100).sum(1) - 1 <= settings.max_new_tokens  # its end need not be said
                exact = (teacher_forced_exact(model, encoded, labels) & short).cpu()
            open_rows = (~exact).nonzero().flatten()
            answers = []
            if len(open_rows):
                answers = model.generate(encoded[open_rows.to(model.device)], settings.max_new_tokens)
            # scored even where teacher forcing said no: two spellings in tokens can be one answer in text
            told = [(i, rows.answers[i]) for i in index[exact].tolist()]
            told += zip(index[open_rows].tolist(), answers, strict=True)
            said.update(answer for _, answer in told)
            shapes.update(shape(answer) for _, answer in told)
            points += [
                scored(benchmark, task, answer, rows.answers[i], rows.content_kinds[i], rows.scoring(i))
                for i, answer in told
            ]
    return Score(mean_points(points), len(picked), torch.cat(choices) if choices else None, frozenset(said), shapes)


def evaluate_task(
    bench: Workbench,
    tuners: list[Tuner | None],
    task: str,
    split: str,
    groups: Groups | None = None,
    settings: EvaluationSettings = USUAL,
) -> Evaluation:
    """Scores on a split of a task, its first `settings.rows`, of `tuners`, one per instruction group (None: the
    untouched model); the instruction alone decides which group answers."""
    start, start_cpu = time.perf_counter(), time.process_time()
    rows = bench.rows(task, split)
    n = min(len(rows), settings.rows or len(rows))
    route = torch.zeros(n, dtype=torch.long)
    if groups is not None and len(tuners) > 1:
        route = torch.tensor(groups.choose(rows.instructions[:n]))
    scores: list[Score] = []
    for number, tuner in enumerate(tuners):
        picked = (route == number).nonzero().flatten()
        if len(picked):
            scores.append(evaluate(bench.model, tuner, rows, bench.benchmark, task, picked=picked, settings=settings))
    points = mean_points([score.points for score in scores], [score.n for score in scores])
    cell = Cell(task, split, n=n, **points._asdict())
    chosen = scores[0].chosen if len(tuners) == 1 else None  # choices of different groups cannot be compared
    shapes = sum((score.shapes for score in scores), Counter[str]())
    routed = torch.bincount(route, minlength=len(tuners)).div(n).tolist() if groups else None
    return Evaluation(
        [cell],
        None if chosen is None else chosen.tolist(),
        routed,
        time.perf_counter() - start,
        distinct=len(frozenset[str]().union(*(score.answers for score in scores))),
        cpu_seconds=time.process_time() - start_cpu,
        shapes={name: count / n for name, count in sorted(shapes.items())},
    )
