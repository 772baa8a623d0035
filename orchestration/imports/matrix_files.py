"""Accuracy matrices as people write them down: CSV, Markdown, JSON. A row is a stage, a column a task."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path

from orchestration.imports.found import (
    BEFORE,
    FoundRun,
    Printed,
    UnreadableError,
    counted_from,
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
UNTOUCHED_ROW = ("untouched", "zero_shot", "zeroshot", "random_baseline")
#: what their authors call the aggregates that we can hold against ours
FIGURES = ("MFN", "MFT", "MAA", "BWT")


def read_csv(path: Path, tasks: list[str] | None) -> FoundRun:
    """CoIN++'s `trained_until,<task>,..`, MCITlib-Train's `stage,<task>,..,mean_all,mean_seen`, this project's
    accuracy_matrix.csv, or numbers alone. Raises UnreadableError."""
    text = path.read_text(encoding="utf-8-sig")
    delimiter = max(",;\t", key=text.split("\n", 1)[0].count)
    return _table(path, [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(row)], tasks)


def read_markdown(path: Path, tasks: list[str] | None) -> FoundRun:
    """The first table of a page. Raises UnreadableError."""
    rows: list[list[str]] = []
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        if "|" in line:
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                rows.append(cells)
        elif rows:
            break
    if not rows:
        raise UnreadableError(f"{path}: no table; expected lines with |")
    return _table(path, rows, tasks)


def read_json(path: Path, tasks: list[str] | None) -> FoundRun:
    """coin_metrics.json, continual_metrics.json, or any object with a matrix under one of MATRIX. Raises
    UnreadableError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{path}: no JSON: {' '.join(str(error).split())[:120]}") from error
    if not isinstance(found, dict):
        raise UnreadableError(f"{path}: expected an object with one of {', '.join(MATRIX)}")
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
        for name in FIGURES
        if isinstance(printed.get(name), int | float) and math.isfinite(printed[name])
    }
    if isinstance(found.get("ratio"), int | float):  # of coin_metrics.json: the share of replayed rows
        run.settings["ratio"] = found["ratio"]
    return run


def _text(cell: object) -> str:
    return "" if cell is None else str(cell)


def _table(path: Path, rows: list[list[str]], tasks: list[str] | None) -> FoundRun:
    head, body = rows[0], rows[1:]
    if all(_is_cell(cell) for cell in head):  # numbers alone
        head, body = (
            ["stage", *(f"task {i + 1}" for i in range(len(head)))],
            [[str(i + 1), *r] for i, r in enumerate(rows)],
        )
    columns = [(i, name.strip("* `")) for i, name in enumerate(head) if i and plain(name) not in AGGREGATES]
    names = [name for _, name in columns]
    if not names or "" in names or len({*names}) < len(names):
        raise UnreadableError(f"{path}: expected a first row with the name of each task once, got {head}")
    body = [row for row in body if row and plain(row[0]) not in AGGREGATES]
    order = _ordered(path, names, tasks)
    known = {name: name if {*order} == {*names} else order[i] for i, name in enumerate(names)}
    run = FoundRun(path, order)
    aside = [name for name in head[1:] if plain(name) in AGGREGATES]
    if aside:
        run.said.append(f"{path}: columns left out, as they are no tasks: {', '.join(aside)}")
    stages = _stages(path, [row[0] for row in body], order, names)
    for stage, row in zip(stages, body, strict=True):
        for i, name in columns:
            text = row[i] if i < len(row) else ""
            try:
                value = number(text)
            except ValueError:
                raise UnreadableError(f"{path}: row {row[0]!r}, column {name}: {text!r} is no number") from None
            if value is not None and math.isfinite(value):
                run.put(stage, known[name], Printed(value, percent=True if "%" in text else None))
    return run


def _is_cell(text: str) -> bool:
    try:
        number(text)
    except ValueError:
        return False
    return True


def _ordered(path: Path, names: list[str], tasks: list[str] | None) -> list[str]:
    """`tasks` are the names in the order of training, or names for columns that have others."""
    if tasks is None:
        return names
    if len(tasks) != len(names) or ({*tasks} != {*names} and {*tasks} & {*names}):
        raise UnreadableError(f"{path}: its tasks are {', '.join(names)}, those of --tasks {', '.join(tasks)}")
    return tasks


def _stages(path: Path, labels: list[str], order: list[str], names: list[str]) -> list[int]:
    found = [stage_of(label, order) for label in labels]
    numbers = [each for each in found if isinstance(each, str)]
    first = counted_from(numbers)
    stages = [int(each) - first if isinstance(each, str) else each for each in found]
    if any(stage is None for stage in stages):
        trained = [label for label in labels if plain(label) not in BEFORE]
        if len(trained) != len(names):
            told = next(label for label, stage in zip(labels, stages, strict=True) if stage is None)
            raise UnreadableError(
                f"{path}: the row {told!r} names no stage; expected a number, a task or `after TASK` in each, or a row "
                f"for each of the {len(names)} tasks (a table with a row for each method has no matrix)"
            )
        stages = [trained.index(label) if label in trained else -1 for label in labels]
    known = [stage for stage in stages if stage is not None]
    if len({*known}) < len(known) or max(known, default=0) >= len(order):
        raise UnreadableError(f"{path}: rows {labels}: a stage twice, or more stages than the {len(order)} tasks")
    return known
