"""What training scripts and frameworks write at each stage: O-LoRA's and Hugging Face's all_results.json, Mammoth's
logs.pyd, Avalanche's eval_results.csv."""

from __future__ import annotations

import ast
import csv
import math
import re
from collections.abc import Mapping
from pathlib import Path

from mcit_core.stages.results import UNTOUCHED
from orchestration.imports.found import FoundRun, Printed, UnreadableError, counted_from, json_object, plain

#: the key of an accuracy in all_results.json, by what is looked for first
KEYS = (
    "predict_exact_match",
    "predict_accuracy",
    "test_exact_match",
    "test_accuracy",
    "eval_exact_match",
    "eval_accuracy",
)
#: settings of a Mammoth run that say nothing of how it was trained
MAMMOTH = re.compile(r"^(accmean_|accuracy_|forward_transfer|backward_transfer|forgetting|conf_|seed$|model$|dataset$)")


def read_stage_folders(path: Path, tasks: list[str] | None) -> FoundRun:
    """`<k>-<task>/all_results.json` of O-LoRA and its like, k from 1 (or 0). Raises UnreadableError."""
    files = {}
    for file in path.glob("*/all_results.json"):
        named = re.fullmatch(r"(\d+)[-_](.+)", file.parent.name)
        if named:
            files[named[1], named[2]] = file
    if not files:
        raise UnreadableError(f"{path}: no <number>-<task>/all_results.json below it")
    first = counted_from([number for number, _ in files], len(files))
    trained = {int(number) - first: task for number, task in files}
    if len(trained) < len(files):
        raise UnreadableError(
            f"{path}: two folders of one number: {', '.join(sorted(f.parent.name for f in files.values()))}"
        )
    order = tasks or [trained[stage] for stage in sorted(trained)]
    if any(stage >= len(order) for stage in trained):
        raise UnreadableError(f"{path}: {len(order)} tasks, but a stage {max(trained) + first}; name all by --tasks")
    wrong = [task for stage, task in trained.items() if plain(order[stage]) != plain(task)]
    if wrong:
        raise UnreadableError(f"{path}: its folders say {', '.join(trained.values())}, --tasks {', '.join(order)}")
    run = FoundRun(path, order)
    for (number, task), file in sorted(files.items()):
        found = json_object(file)
        for key in KEYS:
            ours = re.compile(rf"{key}_for_(.+)")
            cells = {match[1]: value for name, value in found.items() if (match := ours.fullmatch(name))}
            if cells:
                break
        for name, value in cells.items():
            match_task = next((each for each in order if each.lower() == name.lower()), None)
            if match_task is None:
                run.said.append(f"{file}: {name} is none of the tasks {', '.join(order)}; left out")
            elif isinstance(value, int | float) and math.isfinite(value):
                run.put(int(number) - first, match_task, Printed(float(value)))
            else:
                run.said.append(f"{file}: {name}: {value!r} is no number; not measured")
        if not cells:
            run.said.append(f"{file}: no predict_exact_match_for_<task>: {task} has no results after its stage")
    return run


def read_mammoth(path: Path, tasks: list[str] | None) -> list[FoundRun]:
    """logs.pyd: a dict of Python a line, each a run, read as literals: nothing in it is evaluated. Raises
    UnreadableError."""
    runs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            runs.append(_mammoth(path, _literals(path, number, line), tasks))
    if not runs:
        raise UnreadableError(f"{path}: no run; expected a dict of Python in each line")
    return runs


def _literals(path: Path, number: int, line: str) -> dict[str, object]:
    """The entries of a dict that are plain values; others, as `device(type='cuda')`, are left out."""
    try:
        tree = ast.parse(line.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnreadableError(f"{path}:{number}: no dict of Python: {error}") from error
    if not isinstance(tree, ast.Dict):
        raise UnreadableError(f"{path}:{number}: expected a dict of Python")
    found: dict[str, object] = {}
    for key, value in zip(tree.keys, tree.values, strict=True):
        try:
            if key is not None:
                found[str(ast.literal_eval(key))] = ast.literal_eval(value)
        except (ValueError, TypeError, RecursionError, MemoryError):
            continue
    return found


def _mammoth(path: Path, found: Mapping[str, object], tasks: list[str] | None) -> FoundRun:
    cells: dict[tuple[int, int], float] = {}
    for name, value in found.items():
        match = re.fullmatch(r"accuracy_([1-9]\d*)_task([1-9]\d*)", name)
        if match and isinstance(value, int | float) and math.isfinite(value):
            cells[int(match[2]) - 1, int(match[1]) - 1] = float(value)
    if not cells:
        raise UnreadableError(f"{path}: no accuracy_<j>_task<i> in a line; run Mammoth with its logs on")
    count = 1 + max(max(place) for place in cells)
    order = tasks or [f"task {i + 1}" for i in range(count)]
    if len(order) != count:
        raise UnreadableError(f"{path}: {count} tasks, --tasks has {len(order)}")
    seed, method, benchmark = (found.get(name) for name in ("seed", "model", "dataset"))
    run = FoundRun(path, order, method=_name(method), benchmark=_name(benchmark))
    run.seed = seed if isinstance(seed, int) else None
    run.settings |= {
        name: value
        for name, value in found.items()
        if not MAMMOTH.match(name) and isinstance(value, str | int | float | bool)
    }
    for (stage, task), value in cells.items():
        run.put(stage, order[task], Printed(value))
    return run


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def read_avalanche(path: Path, tasks: list[str] | None) -> FoundRun:
    """CSVLogger's eval_results.csv: `eval_exp,training_exp,eval_accuracy,..`, both counted from 0; of one pair the last
    line counts. Raises UnreadableError."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    needed = ("eval_exp", "training_exp", "eval_accuracy")
    if not rows or any(name not in rows[0] for name in needed):
        raise UnreadableError(f"{path}: expected the columns {', '.join(needed)}")
    cells: dict[tuple[int, int], float] = {}
    for number, row in enumerate(rows, 2):
        try:
            trained = UNTOUCHED if row["training_exp"] in ("", "None") else int(row["training_exp"])
            if int(row["eval_exp"]) < 0:
                raise ValueError
            cells[max(trained, UNTOUCHED), int(row["eval_exp"])] = float(row["eval_accuracy"])
        except (TypeError, ValueError):
            raise UnreadableError(f"{path}:{number}: no row of eval_results.csv: {[*row.values()]}") from None
    count = 1 + max(max(place) for place in cells)
    order = tasks or [f"experience {i}" for i in range(count)]
    if len(order) != count:
        raise UnreadableError(f"{path}: {count} experiences, --tasks has {len(order)}")
    run = FoundRun(path, order)
    for (stage, task), value in cells.items():
        if math.isfinite(value):
            run.put(stage, order[task], Printed(value))
    if len(rows) > len(cells):
        run.said.append(f"{path}: {len(rows) - len(cells)} pairs stand there again; of each the last line counts")
    return run
