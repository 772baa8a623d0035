"""Whose results a path holds, and what they are in our words: accuracies in [0, 1], what is missing left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from mcit_core.methods import REFERENCES
from mcit_core.metrics import CATALOGUE
from mcit_core.stages.results import UNTOUCHED
from mcit_core.yaml_document import load_yaml
from orchestration.imports.found import FoundRun, UnreadableError, check_tasks
from orchestration.imports.matrix_files import read_csv, read_json, read_markdown
from orchestration.imports.result_folders import RESULT, read_run, stage_folders
from orchestration.imports.training_logs import read_avalanche, read_mammoth, read_stage_folders
from orchestration.keep.tables import TRIAL_COLUMNS

Zeros = Literal["measured", "missing"]
Unit = Literal["percent", "fraction"]
#: file's name or its end -> reader of one run
FILES: dict[str, Callable[[Path, list[str] | None], FoundRun]] = {
    "eval_results.csv": read_avalanche,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".md": read_markdown,
    ".json": read_json,
}
FIXED = ("logs.pyd", "eval_results.csv", "coin_metrics.json", "continual_metrics.json")
#: columns of a RUN's trials, which no setting may take
RESERVED = {*TRIAL_COLUMNS, *CATALOGUE}
LAYOUTS = (
    f"folders <Task>/<stage>/{RESULT} (CoIN, MCITlib, HiDe-LLaVA, Prism), <k>-<task>/all_results.json (O-LoRA, Hugging "
    "Face), logs.pyd (Mammoth), eval_results.csv (Avalanche), coin_metrics.json, continual_metrics.json, a matrix as "
    ".csv or .md, or a mapping of several runs as .yaml"
)


class MappedRun(BaseModel):
    """A run of a mapping file; its path is that of the results, from the mapping file on."""

    model_config = ConfigDict(extra="forbid")
    path: Path
    method: str | None = None
    seed: int | None = None
    settings: dict[str, JsonValue] = {}
    tasks: list[str] | None = None
    zeros: Zeros | None = None
    unit: Unit | None = None


class Mapping(BaseModel):
    """A mapping file: results of several places that make one RUN."""

    model_config = ConfigDict(extra="forbid")
    runs: list[MappedRun]
    tasks: list[str] | None = None
    zeros: Zeros | None = None
    unit: Unit | None = None
    model: str | None = None
    benchmark: str | None = None


@dataclass(frozen=True)
class Asked:
    """The options of the command: None where they are not given."""

    tasks: list[str] | None = None
    zeros: Zeros | None = None
    unit: Unit | None = None
    golds: Path | None = None


def read_mapping(path: Path) -> Mapping:
    """Raises UnreadableError, which names the key."""
    try:
        return Mapping.model_validate(load_yaml(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        raise UnreadableError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UnreadableError(f"{path}: no YAML: {' '.join(str(error).split())[:200]}") from error


def read_path(path: Path, asked: Asked) -> list[FoundRun]:
    """The runs of a file or folder, in our words. Raises UnreadableError, also OSError."""
    return [in_our_words(run, asked) for run in _runs(path, asked)]


def _runs(path: Path, asked: Asked) -> list[FoundRun]:
    if not path.exists():
        raise UnreadableError(f"{path} is not there")
    if path.is_dir():
        return _folder(path, asked)
    try:
        if path.name == "logs.pyd":
            return read_mammoth(path, asked.tasks)
        for end, reader in FILES.items():
            if path.name.endswith(end):
                return [reader(path, asked.tasks)]
    except UnicodeDecodeError as error:
        raise UnreadableError(f"{path}: no text in UTF-8: {error}") from error
    raise UnreadableError(f"{path}: unknown layout; known are {LAYOUTS}")


def _folder(path: Path, asked: Asked) -> list[FoundRun]:
    found = stage_folders(path)
    if found:
        runs = [read_run(folder, stages, asked.tasks, asked.golds) for folder, stages in sorted(found.items())]
        if len({tuple(run.tasks) for run in runs}) > 1:
            told = "\n".join(f"  {run.source}: {', '.join(run.tasks)}" for run in runs)
            raise UnreadableError(f"{path} holds runs of different tasks; name one of them, or their tasks:\n{told}")
        for run in runs:
            run.method = _method_of(run, path, len(runs))
        return runs
    if any(path.glob("*/all_results.json")):
        return [read_stage_folders(path, asked.tasks)]
    known = [file for name in FIXED for file in sorted(path.rglob(name))]
    if len(known) == 1:
        return _runs(known[0], asked)
    if known:
        told = "\n".join(f"  {file}" for file in known)
        raise UnreadableError(f"{path} holds several files of results; name one, or all in a mapping file:\n{told}")
    raise UnreadableError(f"{path}: nothing known below it; known are {LAYOUTS}")


def _method_of(run: FoundRun, root: Path, runs: int) -> str | None:
    """Where several runs lie below a folder, the names of the folders between tell them apart."""
    if runs == 1:
        return run.method
    between = [part for part in run.source.relative_to(root.resolve()).parts if part not in ("results", "each_dataset")]
    return "/".join(between) or run.method


def in_our_words(run: FoundRun, asked: Asked) -> FoundRun:
    """Accuracies in [0, 1]; zeros above the diagonal kept or left out as asked. Raises UnreadableError where these are
    there and nothing is asked."""
    ahead = [place for place, cell in run.cells.items() if _is_ahead(run, place) and cell.value == 0]
    if ahead and asked.zeros is None:
        stage, task = ahead[0]
        raise UnreadableError(
            f"{run.source}: {len(ahead)} zeros above the diagonal ({task} after stage {stage + 1} first): give "
            "--zeros missing if these tasks had not been tested then, --zeros measured if zero was their score"
        )
    check_tasks(run.source, run.tasks)
    if not run.cells:
        raise UnreadableError(
            f"{run.source}: it holds no accuracy ({'; '.join(run.said[:3]) or 'all cells are blank'})"
        )
    left = {place for place in ahead if asked.zeros == "missing"}
    untold = [cell.value for place, cell in run.cells.items() if cell.percent is None and place not in left]
    percent = asked.unit == "percent" or (asked.unit is None and any(value > 1 for value in untold))
    if asked.unit == "fraction" and any(value > 1 for value in untold):
        raise UnreadableError(f"{run.source}: --unit fraction, but there is an accuracy of {max(untold):g}")
    told = any(cell.percent for cell in run.cells.values())
    if asked.unit is None and (told or percent) and any(0 < value <= 1 for value in untold):
        low = min(value for value in untold if 0 < value <= 1)
        raise UnreadableError(f"{run.source}: is {low:g} beside the others {low:g} % or {100 * low:g} %? Give --unit")
    cells = {}
    for place, cell in run.cells.items():
        if place not in left:
            of_hundred = percent if cell.percent is None else cell.percent
            cells[place] = replace(cell, value=cell.value / 100 if of_hundred else cell.value)
    return replace(run, cells=cells, percent=percent or told)


def _is_ahead(run: FoundRun, place: tuple[int, str]) -> bool:
    stage, task = place
    return stage != UNTOUCHED and run.tasks.index(task) > stage


def read_all(path: Path, asked: Asked) -> tuple[list[FoundRun], str | None, str | None]:
    """The runs of a path or of a mapping file, each with a method and a seed, and the model and benchmark that the
    file names. Raises UnreadableError."""
    if path.suffix not in (".yaml", ".yml"):
        runs, model, benchmark = read_path(path, asked), None, None
    else:
        mapping = read_mapping(path)
        model, benchmark = mapping.model, mapping.benchmark
        runs = []
        if not mapping.runs:
            raise UnreadableError(f"{path}: runs: expected one run at least")
        for mapped in mapping.runs:
            these = Asked(
                mapped.tasks or mapping.tasks or asked.tasks,
                mapped.zeros or mapping.zeros or asked.zeros,
                mapped.unit or mapping.unit or asked.unit,
                asked.golds,
            )
            found = read_path(path.parent / mapped.path, these)
            if len(found) > 1 and (mapped.method is not None or mapped.seed is not None):
                raise UnreadableError(
                    f"{path}: {mapped.path} holds {len(found)} runs, which one method or seed cannot name; give each "
                    "its own entry, or leave both out"
                )
            for run in found:
                run.method = mapped.method or run.method
                run.seed = run.seed if mapped.seed is None else mapped.seed
                run.settings = {**run.settings, **mapped.settings}
                runs.append(run)
    for run in runs:
        run.method = run.method or _name_of(run.source)
        run.settings = {name: value for name, value in run.settings.items() if value is not None}
        taken = [name for name in run.settings if name in RESERVED or name.startswith(("partial/", "validation/"))]
        if taken:
            raise UnreadableError(f"{run.source}: settings.{taken[0]}: a RUN has a column of this name; give another")
        if run.method in REFERENCES and run.method != "sequential":
            raise UnreadableError(f"{run.source}: {run.method} is no sequence; give its method another name")
    if len({frozenset(run.tasks) for run in runs}) > 1:
        told = "\n".join(f"  {run.source}: {', '.join(run.tasks)}" for run in runs)
        raise UnreadableError(f"{path}: runs of different tasks cannot make one RUN; import them apart:\n{told}")
    _number_seeds(runs)
    return runs, model, benchmark


def _name_of(source: Path) -> str:
    """Of a folder its own name, of a file of a fixed name that of its folder."""
    if source.is_dir():
        return source.name
    return source.resolve().parent.name if source.name in FIXED else source.stem


def _group(run: FoundRun) -> str:
    return repr((run.method, run.tasks, sorted(run.settings.items(), key=lambda item: item[0])))


def _number_seeds(runs: list[FoundRun]) -> None:
    """Runs that nothing tells apart are repetitions, numbered as they come. Raises UnreadableError for two of one
    seed."""
    count: Counter[str] = Counter()
    for run in runs:
        group = _group(run)
        given = {other.seed for other in runs if other.seed is not None and _group(other) == group}
        while run.seed is None:
            run.seed = count[group] if count[group] not in given else None
            count[group] += 1
    told = [repr((run.method, run.tasks, run.seed, sorted(run.settings.items()))) for run in runs]
    twice = [run for run, name in zip(runs, told, strict=True) if told.count(name) > 1]
    if twice:
        raise UnreadableError(
            f"{twice[0].source} and {twice[1].source}: method {twice[0].method} with seed {twice[0].seed} and the same "
            "settings twice; tell them apart by method, seed or settings in a mapping file"
        )
