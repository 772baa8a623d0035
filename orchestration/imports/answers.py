"""Answers in a result folder, scored again by both conventions of their benchmark."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mcit_core.benchmarks import Points, mean_points
from mcit_core.benchmarks.captions import mean_of_seven, seven_figures
from mcit_core.benchmarks.json_rows import BadRow, Row, name_of, read_objects, rows_of
from mcit_core.benchmarks.layouts import CAPTION, TEST
from mcit_core.benchmarks.scorers import Scoring, best_score, content_score
from mcit_core.benchmarks.shapes import shape
from orchestration.imports.found import UnreadableError, plain

#: answers with golds beside them, by what is looked for first
JUDGED = ("ans_gt.json", "Result.json", "result.json")
#: answers alone; chunks of them are `<n>_<i>.jsonl`
MERGED, CHUNK = "merge.jsonl", re.compile(r"\d+_\d+\.jsonl")
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
    """Means over `n` answers, in [0, 1]. published: by the benchmark's own rule; of captions the mean of seven figures,
    None where that cannot be had here. constant: the answer given to nearly all of them, if there is one. shapes: form
    of an answer -> share of them."""

    n: int
    published: float | None
    points: Points
    constant: str | None
    shapes: dict[str, float]


def golds_of(folder: Path, task: str) -> dict[str, Row]:
    """id -> row of a task's test file below a folder of data; empty where there is none. Raises UnreadableError where
    there are several."""
    places = [place for place in folder.rglob("*") if place.is_dir() and plain(place.name) == plain(task)]
    files = sorted({file for place in places for form in TEST for file in place.glob(form)})
    if len(files) > 1:
        raise UnreadableError(
            f"--golds {folder}: several test files of {task}: {', '.join(map(str, files))}; leave one"
        )
    found: dict[str, Row] = {}
    for number, element in read_objects(files[0]) if files else ():
        try:
            found |= {row.id: row for row in rows_of(element, number)}
        except BadRow:
            continue
    return found


def answers_in(folder: Path, golds: Mapping[str, Row]) -> tuple[list[Answer], int]:
    """The answers of one stage and task that have a gold, and how many there are that cannot be read, have none or
    stand there again."""
    lost = 0
    answers: list[Answer] = []
    judged = next((folder / name for name in JUDGED if (folder / name).exists()), None)
    if judged is not None:
        for _, found in read_objects(judged):
            given = _texts(found.get("ground_truth")) if isinstance(found, dict) else []
            if isinstance(found, dict) and isinstance(found.get("pred"), str) and given:
                answers.append(Answer(found["pred"], given, found))
            else:
                lost += 1
        return answers, lost
    if not golds:
        return answers, lost
    merged = folder / MERGED
    chunks = sorted(file for file in folder.iterdir() if CHUNK.fullmatch(file.name))
    seen: set[str] = set()
    for file in [merged] if merged.exists() and merged.stat().st_size else chunks:
        for number, found in read_objects(file):
            name = name_of(found, number) if isinstance(found, dict) else ""
            row = golds.get(name)
            if not isinstance(found, dict) or not isinstance(found.get("text"), str) or row is None or name in seen:
                lost += 1
                continue
            seen.add(name)
            told: dict[str, object] = {"image": row.images[0] if row.images else "", **row.told}
            answers.append(Answer(found["text"], row.golds, {"question": row.instruction, **told}))
    return answers, lost + len(golds) - len(seen)


def _texts(gold: object) -> list[str]:
    golds = gold if isinstance(gold, list) else [gold]
    return [str(each) for each in golds if isinstance(each, str | int | float)]


def score_answers(answers: Sequence[Answer], scoring: Scoring) -> Scored | None:
    """None where there is no answer with a gold."""
    points: list[Points] = []
    said: Counter[str] = Counter()
    asked: set[str] = set()
    for answer in answers:
        text = answer.prediction.strip()
        told = (text, answer.golds, answer.told)
        try:
            published, strict = best_score(scoring.published, *told), best_score(scoring.strict, *told)
            content = content_score(scoring, *told)
        except ValueError:  # a gold that the rule cannot compare with
            continue
        points.append(Points(published, content, strict, float(shape(text) in map(shape, answer.golds))))
        said[text] += 1
        asked.add(answer.golds[0])
    if not points:
        return None
    commonest, times = said.most_common(1)[0]
    constant = commonest if times >= CONSTANT * len(points) and len(asked) > 1 else None
    means = mean_points(points)
    own = _captions(answers) if scoring == CAPTION else means.accuracy
    shapes: Counter[str] = Counter()
    for text, count in said.items():
        shapes[shape(text)] += count
    shares = {name: count / len(points) for name, count in sorted(shapes.items())}
    return Scored(len(points), own, means, constant, shares)


def _captions(answers: Sequence[Answer]) -> float | None:
    """The mean of seven figures, in [0, 1]; None where it cannot be had here, or is above 1, which no accuracy is."""
    try:
        found = seven_figures([answer.prediction for answer in answers], [answer.golds for answer in answers])
    except (ModuleNotFoundError, OSError, ValueError, AssertionError):  # the last ones of a Java that breaks off
        return None
    mean = mean_of_seven(found)
    return mean if mean is not None and mean <= 1 else None
