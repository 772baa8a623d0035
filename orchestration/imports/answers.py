"""Answers in a result folder, scored again by both conventions of their benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mcit_core.benchmarks.answers import shape
from mcit_core.benchmarks.json_rows import BadRow, Row, name_of, read_objects, rows_of
from mcit_core.benchmarks.layouts import CAPTION
from mcit_core.benchmarks.scorers import Scoring, best_score, content_score

#: answers with golds beside them, by what is looked for first
JUDGED = ("ans_gt.json", "Result.json", "result.json")
#: answers alone; chunks of them are `<n>_<i>.jsonl`
MERGED, CHUNKS = "merge.jsonl", "[0-9]*_[0-9]*.jsonl"
#: an answer given to so large a share of rows, of which not all ask for the same, is told
CONSTANT = 0.95


@dataclass(frozen=True)
class Answer:
    """`told`: the row, for rules that look at more than the answer."""

    prediction: str
    golds: list[str]
    told: dict[str, object]


@dataclass(frozen=True)
class Scored:
    """Means over `n` answers, in [0, 1]. constant: the answer given to nearly all of them, if there is one."""

    n: int
    accuracy: float
    accuracy_strict: float
    content_accuracy: float
    format_accuracy: float
    constant: str | None


def golds_of(folder: Path, task: str) -> dict[str, Row]:
    """id -> row of a task's test file below a folder of data; empty where there is none."""
    found: dict[str, Row] = {}
    for path in sorted([*folder.glob(f"**/{task}/test*.json"), *folder.glob(f"**/{task}/val*.json")])[:1]:
        for number, element in read_objects(path):
            try:
                for row in rows_of(element, number):
                    found[row.id] = row
            except BadRow:
                continue
    return found


def answers_in(folder: Path, golds: Mapping[str, Row]) -> Iterator[Answer]:
    """The answers of one stage and task whose golds are known; what cannot be read is passed over."""
    for name in JUDGED:
        if (folder / name).exists():
            for _, found in read_objects(folder / name):
                if isinstance(found, dict) and isinstance(found.get("pred"), str):
                    golds_here = _texts(found.get("ground_truth"))
                    if golds_here:
                        yield Answer(found["pred"], golds_here, found)
            return
    merged = folder / MERGED
    files = [merged] if merged.exists() and merged.stat().st_size else sorted(folder.glob(CHUNKS))
    for file in files:
        for number, found in read_objects(file):
            if isinstance(found, dict) and isinstance(found.get("text"), str):
                row = golds.get(name_of(found, number))
                if row is not None:
                    told: dict[str, object] = {"image": row.images[0] if row.images else "", **row.told}
                    yield Answer(found["text"], row.golds, {"question": row.instruction, **told})


def _texts(gold: object) -> list[str]:
    golds = gold if isinstance(gold, list) else [gold]
    return [str(each) for each in golds if isinstance(each, str | int | float)]


def score_answers(answers: Iterator[Answer], scoring: Scoring) -> Scored | None:
    """None where there is no answer with a gold, or the task's captions are scored a whole file at a time."""
    if scoring == CAPTION:
        return None
    totals = [0.0] * 4
    said: Counter[str] = Counter()
    asked: set[str] = set()
    for answer in answers:
        text = answer.prediction.strip()
        try:
            points = (
                best_score(scoring.published, text, answer.golds, answer.told),
                best_score(scoring.strict, text, answer.golds, answer.told),
                content_score(scoring, text, answer.golds, answer.told),
                float(shape(text) in map(shape, answer.golds)),
            )
        except ValueError:  # a gold that the rule cannot compare with
            continue
        said[text] += 1
        asked.add(answer.golds[0])
        totals = [total + point for total, point in zip(totals, points, strict=True)]
    n = said.total()
    if not n:
        return None
    commonest, times = said.most_common(1)[0]
    constant = commonest if times >= CONSTANT * n and len(asked) > 1 else None
    published, strict, content, form = (total / n for total in totals)
    return Scored(n, published, strict, content, form, constant)
