"""Result folders of CoIN, MCITlib, HiDe-LLaVA and Prism: `.../<Task>/<stage>/{Result.text, merge.jsonl, ..}`."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mcit_core.benchmarks.json_rows import Row
from mcit_core.benchmarks.layouts import COIN, MLLM_ACL, MLLM_DCL, UCIT, Layout, Task
from mcit_core.benchmarks.scorers import Scoring
from mcit_core.stages.results import UNTOUCHED
from orchestration.imports.answers import CHUNK, JUDGED, MERGED, answers_in, golds_of, score_answers
from orchestration.imports.found import BEFORE, FoundRun, Printed, UnreadableError, counted_from, plain, stage_of

RESULT = "Result.text"
EVIDENCE = {RESULT, MERGED, *JUDGED}
LAYOUTS: dict[str, Layout] = {"ucit": UCIT, "mllm_dcl": MLLM_DCL, "mllm_acl": MLLM_ACL, "coin": COIN}
VALUE = r"\s*(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*(%?)(?=[\s,;)]|$)"
#: lines of Result.text that hold the figure of a stage, by what is looked for first
FIGURES = (
    re.compile(rf"^Count Accuracy:{VALUE}"),
    re.compile(rf"^(?:Average|Accuracy|Overall|Total accuracy):{VALUE}", re.IGNORECASE),
)
COUNTS = 0
SAMPLES = re.compile(r"^(?:Samples|Total|Count):\s*(\d+)", re.IGNORECASE)
FINAL = re.compile(r"^Final_score_dict:\s*(\{.*\})\s*$")


@dataclass(frozen=True)
class Result:
    """What Result.text says. again: how many results it holds, one for each time it was run. only_counts: the figure
    is that of the questions that count something, which MLLM-ACL publishes of its task VP."""

    value: float
    n: int
    percent: bool | None
    decimals: int
    again: int
    only_counts: bool


def read_result(path: Path) -> Result | None:
    """One of its four shapes; the rest of the file, as the JSON of wrong answers behind it, is passed over, and the
    last result counts. None where it holds none."""
    samples = 0
    found: list[tuple[int, float, int, bool | None, str]] = []
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for line in file:
            line = line[:100_000].strip()
            counted = SAMPLES.match(line)
            if counted:
                samples = int(counted[1])
            final = FINAL.match(line)
            if final:
                value = _final(final[1])
                if value is not None:
                    found.append((len(FIGURES), value, samples, True, f"{value}"))
            for rank, pattern in enumerate(FIGURES):
                match = pattern.match(line)
                if match:
                    percent = True if match[2] else None
                    found.append((rank, float(match[1]), samples, percent, match[1]))
    if not found:
        return None
    best = min(rank for rank, *_ in found)
    counting = [each for each in found if each[0] == best]
    _, value, n, percent, text = counting[-1]
    return Result(value, n, percent, len(text.partition(".")[2]), len(counting), best == COUNTS)


def _final(text: str) -> float | None:
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    value = found.get("Final Score Norm") if isinstance(found, dict) else None
    return float(value) if isinstance(value, int | float) else None


def stage_folders(root: Path) -> dict[Path, dict[str, dict[str, Path]]]:
    """Folder of a run -> task's folder -> stage's folder -> its path, of all folders with results below `root`."""
    found: dict[Path, dict[str, dict[str, Path]]] = {}
    seen: set[str] = set()
    root = root.resolve()
    for place, folders, files in os.walk(root, onerror=_refuse, followlinks=True):
        if os.path.realpath(place) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(os.path.realpath(place))
        answered = EVIDENCE & {*files} or any(CHUNK.fullmatch(file) for file in files)
        if answered and Path(place) != root:
            stage = Path(place)
            run = found.setdefault(stage.parent.parent, {})
            run.setdefault(stage.parent.name, {})[stage.name] = stage
    return found


def _refuse(error: OSError) -> None:
    raise UnreadableError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _forms(name: str, task: Task) -> Iterator[str]:
    yield from map(plain, (name, *task.folders, *task.test_folders))


def benchmark_of(tasks: list[str], folder: Path) -> tuple[str, dict[str, str]] | None:
    """The public benchmark that has all these tasks, and the name there of each; of several that one which a folder on
    the way is named after, as MCITlib's are UCIT, DCL and ACL."""
    fitting = []
    for kind, layout in LAYOUTS.items():
        named = {
            folder: name
            for folder in tasks
            for name, task in layout.tasks.items()
            if plain(folder) in (*_forms(name, task), *(plain(name + tail) for tail in ("test", "caption")))
        }
        if len(named) == len(tasks):
            fitting.append((kind, named))
    way = {plain(part) for part in folder.parts}
    named_so = [each for each in fitting if plain(each[0].removeprefix("mllm_")) in way]
    chosen = fitting if len(fitting) == 1 else named_so
    return chosen[0] if len(chosen) == 1 else None


def read_run(folder: Path, found: dict[str, dict[str, Path]], tasks: list[str] | None, golds: Path | None) -> FoundRun:
    """One run of `stage_folders`. Raises UnreadableError where the order of its tasks is not known."""
    known = benchmark_of([*found], folder)
    kind, names = known if known else (None, {name: name for name in found})
    order = tasks or _order(folder, found, kind, names)
    scorings = {name: task.scoring for name, task in LAYOUTS[kind].tasks.items()} if kind else {}
    places = {plain(name): name for name in order}
    first = counted_from(_numbers(found, order), len(order))
    run = FoundRun(folder, order, benchmark=kind)
    for task_folder, stages in sorted(found.items()):
        task = places.get(plain(names[task_folder])) or places.get(plain(task_folder))
        if task is None:
            run.said.append(f"{folder / task_folder}: none of the tasks {', '.join(order)}; left out")
            continue
        scoring = scorings.get(names[task_folder])
        rows = golds_of(golds, task_folder) if golds is not None else {}
        for name, path in sorted(stages.items()):
            label = stage_of(name, order, task)
            stage = int(label) - first if isinstance(label, str) else label
            if stage is None or not UNTOUCHED <= stage < len(order):
                run.said.append(f"{path}: {name!r} names none of the {len(order)} stages; left out")
                continue
            _put(run, stage, task, path, scoring, rows)
            method = _method(name)
            if None not in (method, run.method) and method != run.method:
                raise UnreadableError(
                    f"{folder}: stages of {run.method} and of {method} in one folder; move each method's to its own"
                )
            run.method = run.method or method
    if not run.cells:
        why = "; ".join(run.said[:3])
        raise UnreadableError(f"{folder}: no stage has a result ({why}); name all tasks by --tasks if some are missing")
    return run


def _numbers(found: dict[str, dict[str, Path]], order: list[str]) -> list[str]:
    labels = [stage_of(name, order, order[0]) for stages in found.values() for name in stages]
    return [label for label in labels if isinstance(label, str)]


def _order(folder: Path, found: dict[str, dict[str, Path]], kind: str | None, names: dict[str, str]) -> list[str]:
    """The tasks in the order of their benchmark: those that are there where there is a stage for each, otherwise all;
    of no public benchmark, in that of the first stage in which each was tested."""
    stages = {
        names[task]: [stage_of(name, [*names.values()], names[task]) for name in there] for task, there in found.items()
    }
    numbers = [int(each) for labels in stages.values() for each in labels if isinstance(each, str)]
    if kind is not None:
        there = [name for name in LAYOUTS[kind].tasks if name in stages]
        return there if not numbers or max(numbers) <= len(there) else [*LAYOUTS[kind].tasks]
    first = {
        task: min((int(each) for each in labels if isinstance(each, str)), default=None)
        for task, labels in stages.items()
    }
    begun = [each for each in first.values() if each is not None]
    if len({*begun}) < len(first):
        raise UnreadableError(
            f"{folder}: in which order were {', '.join(sorted(first))} trained? Its folders do not tell; name them by "
            "--tasks"
        )
    return sorted(first, key=lambda task: first[task] or 0)


def _put(run: FoundRun, stage: int, task: str, path: Path, scoring: Scoring | None, golds: Mapping[str, Row]) -> None:
    result = read_result(path / RESULT) if (path / RESULT).exists() else None
    answers, lost = answers_in(path, golds)
    if result is not None and result.only_counts:
        answers = [answer for answer in answers if answer.told.get("task") == "Count"]
    scored = score_answers(answers, scoring) if scoring is not None else None
    if scored is not None and lost + len(answers) > scored.n:
        run.said.append(f"{path}: {lost + len(answers) - scored.n} answers cannot be scored; they count for nothing")
    if result is None and (scored is None or scored.published is None):
        empty = [file.name for file in path.iterdir() if file.is_file() and not file.stat().st_size]
        why = (
            f"empty files ({', '.join(sorted(empty))}): interrupted"
            if empty
            else "no score, and captions want pycocoevalcap and Java, and a mean of seven of at most 100"
            if scored is not None
            else "no score, and no golds beside answers"
        )
        run.said.append(f"{path}: {why}; not measured")
        return
    if result is None and scored is not None and scored.published is not None:
        cell = Printed(100 * scored.published, scored.n, percent=True)
        run.said.append(
            f"{path}: no printed score; {cell.value:.2f} % by the benchmark's own rule on {scored.n} answers"
        )
    elif result is not None:
        cell = Printed(result.value, result.n, result.percent)
        if result.again > 1:
            run.said.append(f"{path / RESULT}: {result.again} results; the last counts")
    if scored is not None:
        cell = replace(
            cell,
            accuracy_strict=scored.points.accuracy_strict,
            content_accuracy=scored.points.content_accuracy,
            format_accuracy=scored.points.format_accuracy,
            shapes=scored.shapes,
        )
        run.said += _doubts(path, task, result, scored.published, scored.n)
        if scored.constant is not None:
            run.said.append(f"{path}: nearly every answer is {scored.constant[:60]!r}")
    run.put(stage, task, cell)


def _doubts(path: Path, task: str, result: Result | None, published: float | None, n: int) -> list[str]:
    if result is None or published is None:
        return []
    said = []
    apart = 0.5001 * 10.0**-result.decimals
    scale = 100.0 if result.percent or abs(published - result.value) > apart else 1.0
    if abs(scale * published - result.value) > apart:
        said.append(
            f"{path}: printed {result.value:g}, the answers beside it give {scale * published:.{result.decimals}f} by "
            f"{task}'s published rule"
        )
    if result.n and result.n != n:
        said.append(f"{path}: printed of {result.n} answers, {n} are there with a gold")
    return said


def _method(stage: str) -> str | None:
    """What stands before the number of a stage's folder."""
    found = re.match(r"(.+?)[-_ ]*task[-_ ]*\d+$", stage, re.IGNORECASE)
    return found[1] if found and plain(found[1]) not in BEFORE else None
