"""Accuracy matrices as people write them down: CSV, Markdown, JSON. A row is a stage, a column a task."""

from __future__ import annotations

import csv
import io
import math
import re
from itertools import takewhile
from pathlib import Path
from typing import Any

from orchestration.imports.found import (
    AFTER,
    BEFORE,
    THEIRS,
    FoundRun,
    Printed,
    UnreadableError,
    check_tasks,
    counted_from,
    json_object,
    number,
    plain,
    stage_of,
)

#: columns beside the tasks: aggregates, by their plain names
AGGREGATES = {
    *("meanall", "meanseen", "mean", "avg", "average", "overall", "last", "new", "final", "acc", "maa", "mfn", "mft"),
    *("bwt", "fwt", "forgetting", "samples", "numsamples"),
}
#: keys of a JSON object, by what is looked for first
MATRIX = ("A_matrix", "performance_matrix", "accuracy_matrix", "acc_matrix", "acc_table", "matrix")
TASKS = ("tasks", "task_order", "task_names", "order")
UNTOUCHED_ROW = ("untouched", "zero_shot", "zeroshot")


def read_csv(path: Path, tasks: list[str] | None) -> FoundRun:
    """CoIN++'s `trained_until,<task>,..`, MCITlib-Train's `stage,<task>,..,mean_all,mean_seen`, this project's
    accuracy_matrix.csv, or numbers alone. Raises UnreadableError."""
    text = path.read_text(encoding="utf-8-sig")
    delimiter = max(",;\t", key=text.split("\n", 1)[0].count)
    try:
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    except csv.Error as error:
        raise UnreadableError(f"{path}: no CSV: {error}") from error
    return _table(path, rows, tasks)


def read_markdown(path: Path, tasks: list[str] | None) -> FoundRun:
    """The first table of a page. Raises UnreadableError."""
    lines = [_cells(line) for line in path.read_text(encoding="utf-8-sig").splitlines()]
    rows: list[list[str]] = []
    for i, line in enumerate(lines[1:], 1):
        if len(line) > 1 and all(re.fullmatch(r":?-+:?", cell) for cell in line) and len(lines[i - 1]) == len(line):
            rows = [lines[i - 1], *takewhile(len, lines[i + 1 :])]
            break
    if not rows:
        raise UnreadableError(f"{path}: no table; expected lines with |, the second of them | --- | --- |")
    return _table(path, rows, tasks)


def _cells(line: str) -> list[str]:
    """Of a line of a table; none of another line."""
    if "|" not in line:
        return []
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def read_json(path: Path, tasks: list[str] | None) -> FoundRun:
    """coin_metrics.json, continual_metrics.json, or any object with a matrix under one of MATRIX. Raises
    UnreadableError."""
    found: dict[str, Any] = json_object(path, f"an object with one of {', '.join(MATRIX)}")
    key = next((key for key in MATRIX if isinstance(found.get(key), list)), None)
    if key is None:
        raise UnreadableError(f"{path}: no matrix; expected one of {', '.join(MATRIX)}")
    rows = found[key]
    if not all(isinstance(row, list) for row in rows):
        raise UnreadableError(f"{path}: {key}: expected a list of rows")
    told = next((found[name] for name in TASKS if isinstance(found.get(name), list)), None)
    width = max(map(len, rows), default=0)
    names = [str(name) for name in told] if told is not None else [f"task {i + 1}" for i in range(width)]
    untouched = next((found[name] for name in UNTOUCHED_ROW if isinstance(found.get(name), list)), None)
    labelled = [[str(i + 1), *map(_text, row)] for i, row in enumerate(rows)]
    if untouched is not None:
        labelled.insert(0, ["untouched", *map(_text, untouched)])
    run = _table(path, [["stage", *names], *labelled], tasks)
    metrics = found.get("metrics")
    printed = metrics if isinstance(metrics, dict) else found
    run.figures = {
        name: float(printed[name])
        for name in THEIRS
        if isinstance(printed.get(name), int | float) and math.isfinite(printed[name])
    }
    if isinstance(found.get("ratio"), int | float):  # of coin_metrics.json: the share of replayed rows
        run.settings["ratio"] = found["ratio"]
    return run


def _text(cell: object) -> str:
    return "" if cell is None else str(cell)


def _table(path: Path, rows: list[list[str]], tasks: list[str] | None) -> FoundRun:
    while rows and not any(cell.strip() for cell in rows[-1]):
        rows = rows[:-1]
    if not rows:
        raise UnreadableError(
            f"{path}: it is empty; expected a row with the name of each task, then a row for each stage"
        )
    head, body = rows[0], rows[1:]
    if head[0].strip() and all(_is_cell(cell) for cell in head):  # numbers alone
        if [*map(_value, head)] in ([*range(len(head))], [*range(1, len(head) + 1)]):
            raise UnreadableError(
                f"{path}: is {head} a row of accuracies or of names? Give it a first column and names"
            )
        names = [f"task {i + 1}" for i in range(len(head))]
        head, body = ["stage", *names], [[str(i + 1), *row] for i, row in enumerate(rows)]
    columns = [(i, name.strip("* `")) for i, name in enumerate(head) if i and plain(name) not in AGGREGATES]
    names = [name for _, name in columns]
    if not names:
        raise UnreadableError(f"{path}: expected a first row with the name of each task, got {head}")
    check_tasks(path, names)
    aside = [name for name in head[1:] if plain(name) in AGGREGATES]
    aside += [row[0] for row in body if plain(row[0]) in AGGREGATES]
    body = [row for row in body if plain(row[0]) not in AGGREGATES]
    longer = next((row for row in body if len(row) > len(head)), None)
    if longer is not None:
        raise UnreadableError(f"{path}: the row {longer} has more cells than the first row, {head}")
    labels = [row[0] for row in body]
    order = _ordered(path, names, labels, tasks)
    by_name = {plain(task): task for task in order}
    known = {name: by_name.get(plain(name), order[i]) for i, name in enumerate(names)}
    run = FoundRun(path, order)
    if aside:
        run.said.append(f"{path}: left out, as they are no tasks or stages: {', '.join(aside)}")
    for stage, row in zip(_stages(path, labels, order), body, strict=True):
        for i, name in columns:
            text = row[i] if i < len(row) else ""
            try:
                value = number(text)
            except ValueError:
                raise UnreadableError(f"{path}: row {row[0]!r}, column {name}: {text!r} is no number") from None
            if value is not None:
                run.put(stage, known[name], Printed(value, percent=True if "%" in text else None))
    return run


def _value(text: str) -> float | None:
    try:
        return number(text)
    except ValueError:
        return math.nan


def _is_cell(text: str) -> bool:
    value = _value(text)
    return value is None or not math.isnan(value)


def _ordered(path: Path, names: list[str], labels: list[str], tasks: list[str] | None) -> list[str]:
    """The tasks in the order of training: `tasks`, which are these names or names for columns that have others; or that
    of the rows, where each is named by a task; or that of the columns."""
    places = {plain(name): name for name in names}
    if tasks is not None:
        same = {*map(plain, tasks)}
        if len(tasks) != len(names) or (same != {*places} and same & {*places}):
            raise UnreadableError(f"{path}: its tasks are {', '.join(names)}, those of --tasks {', '.join(tasks)}")
        return tasks
    trained = [plain(AFTER.sub("", label)) for label in labels if plain(label) not in BEFORE]
    if trained and all(label in places for label in trained):
        return [*dict.fromkeys([*(places[label] for label in trained), *names])]
    return names


def _stages(path: Path, labels: list[str], order: list[str]) -> list[int]:
    found = [stage_of(label, order) for label in labels]
    trained = [label for label in labels if plain(label) not in BEFORE]
    if trained and not any(label.strip() for label in trained) and len(trained) == len(order):
        rows = iter(range(len(order)))  # nameless rows, one for each task
        return [stage if isinstance(stage, int) else next(rows) for stage in found]
    first = counted_from([each for each in found if isinstance(each, str)], len(order))
    stages: list[int] = []
    for label, each in zip(labels, found, strict=True):
        if each is None or re.fullmatch(r"\d*\.\d+", label.strip()):
            raise UnreadableError(
                f"{path}: the row {label!r} names no stage; expected a number, a task or `after TASK` in the first "
                "cell of each row (a table with a row for each method has no matrix)"
            )
        stages.append(int(each) - first if isinstance(each, str) else each)
    if len({*stages}) < len(stages) or max(stages, default=0) >= len(order):
        raise UnreadableError(
            f"{path}: rows {', '.join(labels)}: a stage twice, or more stages than the {len(order)} tasks; number them "
            f"from 1 to {len(order)}"
        )
    return stages
