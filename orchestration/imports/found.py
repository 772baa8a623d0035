"""What a reader of somebody else's results gives: runs, each an accuracy matrix with holes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from mcit_core.stages.results import UNTOUCHED

#: what is written where nothing was measured
BLANK = {"", "-", "--", "–", "—", "nan", "none", "null", "n/a", "na", "/"}
#: names of the model before the first stage
BEFORE = {"untouched", "zeroshot", "pretrained", "pretrain", "base", "before", "init"}
#: CoIN's name for the stage in which a task itself is learned
OWN = {"finetune", "own"}
#: accuracies are in [0, 1] or in per cent
MOST = 100.0
#: what an aggregate that somebody printed may be among our metrics
THEIRS = {
    "MFN": ("average_accuracy",),
    "MFT": ("learning_accuracy",),
    "MAA": ("mean_average_accuracy", "average_by_column"),
    "BWT": ("backward_transfer", "backward_transfer_over_tasks", "backward_transfer_all_cells"),
}
AFTER = re.compile(r"^\s*after[\s_-]+", re.IGNORECASE)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class UnreadableError(ValueError):
    """Results that cannot be read; the text names the file and says what to do."""


@dataclass(frozen=True)
class Printed:
    """An accuracy as it stands in a file. percent: whether it says so itself, None where it does not."""

    value: float
    n: int = 0
    percent: bool | None = None
    accuracy_strict: float | None = None
    content_accuracy: float | None = None
    format_accuracy: float | None = None
    shapes: dict[str, float] | None = None


@dataclass
class FoundRun:
    """One sequence. tasks: in the order of training. cells: (stage, task) -> accuracy, the stage counted from 0,
    UNTOUCHED for the model before. figures: aggregates as their authors printed them. said: what is missing or
    doubtful."""

    source: Path
    tasks: list[str]
    cells: dict[tuple[int, str], Printed] = field(default_factory=dict)
    method: str | None = None
    seed: int | None = None
    settings: dict[str, JsonValue] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    benchmark: str | None = None
    said: list[str] = field(default_factory=list)
    percent: bool = False  # whether its numbers were per cent

    def put(self, stage: int, task: str, cell: Printed) -> None:
        """Raises UnreadableError where the cell is taken, or its number is no accuracy."""
        if not 0 <= cell.value <= MOST:
            raise UnreadableError(
                f"{self.source}: {task} {after(stage)}: {cell.value:g} is no accuracy; expected 0 to 1, or 0 to 100"
            )
        if (stage, task) in self.cells:
            raise UnreadableError(f"{self.source}: {task} {after(stage)} stands there twice; keep one of them")
        self.cells[stage, task] = cell


def after(stage: int) -> str:
    return "before any stage" if stage == UNTOUCHED else f"after stage {stage + 1}"


def plain(name: str) -> str:
    """A name without case and marks, by which forms of one name are told to be the same."""
    return re.sub(r"[\W_]", "", name.lower()) or name.strip()


def check_tasks(source: Path, tasks: Sequence[str]) -> None:
    """Raises UnreadableError where two names are one, or a name cannot stand in an order."""
    if len({*map(plain, tasks)}) < len(tasks) or any(">" in task or not task for task in tasks):
        raise UnreadableError(
            f"{source}: tasks {', '.join(tasks)}: expected names that differ in letters or digits, without '>'"
        )


def json_object(path: Path, expected: str = "an object") -> dict[str, object]:
    """Raises UnreadableError where the file holds something else than `expected`."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{path}: no JSON: {' '.join(str(error).split())[:120]}") from error
    if not isinstance(found, dict):
        raise UnreadableError(f"{path}: expected {expected}")
    return found


def number(text: str) -> float | None:
    """What stands in a cell of a table, None for a blank. Raises ValueError for anything else."""
    text = text.strip().strip("*_` ").replace("\\%", "%").replace("−", "-")
    if text.lower() in BLANK:
        return None
    text = re.split(r"±|\+/-|\\pm", text)[0].replace("%", "").replace("$", "").strip()
    if not NUMBER.fullmatch(text):
        raise ValueError(f"no number: {text!r}")
    return float(text)


def stage_of(name: str, tasks: Sequence[str], own: str | None = None) -> int | str | None:
    """Which stage a folder or a row is of: UNTOUCHED, the position of the task it names, or its own number as text,
    which may count from 0 or from 1. `own`: the task in whose folder it lies. None where the name tells nothing."""
    word = plain(AFTER.sub("", name))
    if word in BEFORE:
        return UNTOUCHED
    places = {plain(task): i for i, task in enumerate(tasks)}
    if word in OWN and own is not None:
        return places[plain(own)]
    if word in places:
        return places[word]
    numbered = re.search(r"(?:^|task|stage|step|session|[\s_-])[\s_-]*(\d+)$", name.strip(), re.IGNORECASE)
    return numbered[1] if numbered else None


def counted_from(numbers: Sequence[str], tasks: int) -> int:
    """The number of the first stage: 0 where one of them is 0, but 1 where there is one for each of the tasks besides:
    that of 0 is then the untouched model's."""
    known = {int(each) for each in numbers}
    return 0 if 0 in known and tasks not in known else 1
