"""What becomes of answers: how they score by the data set's own rule, in content, and whether they keep their form."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise

from mcit_core.stages.results import Cell as Tested
from mcit_core.stages.results import StageResult
from orchestration.keep.tables import text_in
from orchestration.report.blocks import Block, Cell, Line, Section, Table, Text
from orchestration.report.context import Context
from orchestration.results.estimates import present

#: a fall of so many points of accuracy within one stage is marked
FALL = 0.2
#: a form that fewer answers have is not shown
RARE = 0.02
#: trials that are shown
MOST = 6


def answers_section(context: Context) -> Section | None:
    """None where no trial's answers were looked at by their form."""
    tables: list[list[Block]] = []
    for row in context.results.trials:
        stages = context.results.stages.get(text_in(row, "trial"), [])
        order = text_in(row, "order").split(">")
        lines = [line for task in order if (line := _line(stages, order, task))]
        if any(_known(stages)) and lines:
            tables.append([Text(text_in(row, "trial"), "label"), Table(HEAD, lines, "numbers")])
    if not tables:
        return None
    words = (
        "Per cent, right after a task's own stage and after the last one that tested it. Strict: by the data set's "
        "own rule, where accuracy follows the benchmark's published one. Content: right whatever its form. Form: an "
        "answer has the shape of a right one (letter, digit, word, phrase, sentence, box or list). Where content stays "
        "and form is lost, a model has forgotten how to answer and not what. The largest fall is that of "
        f"accuracy from one stage to the next; {100 * FALL:.0f} points and more are marked."
    )
    left = f" {len(tables) - MOST} trials more are in accuracy.parquet." if len(tables) > MOST else ""
    return "Answers: form and content", [Text(words + left, "note"), *chain.from_iterable(tables[:MOST])]


HEAD = ("task", "accuracy", "strict", "content", "form", "largest fall", "what answers look like")


def _known(stages: Sequence[StageResult]) -> list[bool]:
    return [cell.format_accuracy is not None for stage in stages for cell in stage.accuracy]


def _line(stages: Sequence[StageResult], order: Sequence[str], task: str) -> Line | None:
    """None where the task was not tested from its own stage on."""
    own = order.index(task)
    cells = {
        stage.stage: cell
        for stage in stages
        for cell in stage.accuracy
        if cell.task == task and cell.split == "test" and stage.stage >= own
    }
    if not cells:
        return None
    first, last = cells[min(cells)], cells[max(cells)]
    columns = ("accuracy", "accuracy_strict", "content_accuracy", "format_accuracy")
    looks = [_looks(stages, task, stage) for stage in (min(cells), max(cells))]
    shown = " → ".join(dict.fromkeys(looks)) if all(looks) else "–"
    return Line([task, *(_change(first, last, name) for name in columns), _fall(cells, order), shown])


def _change(first: Tested, last: Tested, column: str) -> Cell:
    found = [getattr(first, column), getattr(last, column)]
    values = [f"{100 * value:.1f}" for value in present(found)]
    return Cell(" → ".join(values) if len(values) == 2 else "–")


def _looks(stages: Sequence[StageResult], task: str, number: int) -> str:
    """The forms of a task's answers after a stage, the most frequent first; empty where they were not counted."""
    start = f"answer_shape/{task}/"
    found = [
        (value, name.removeprefix(start))
        for stage in stages
        if stage.stage == number
        for name, value in stage.metrics.items()
        if name.startswith(start) and value >= RARE
    ]
    return ", ".join(f"{name} {100 * value:.0f}" for value, name in sorted(found, reverse=True))


def _fall(cells: dict[int, Tested], order: Sequence[str]) -> Cell:
    steps = sorted(cells)
    falls = [(cells[a].accuracy - cells[b].accuracy, b) for a, b in pairwise(steps) if b == a + 1]
    if not falls or max(falls)[0] <= 0:
        return Cell("–", value=0)
    fall, stage = max(falls)
    text = f"{100 * fall:.1f} with {order[stage]}"
    return Cell(text, strong=fall >= FALL, value=fall)
