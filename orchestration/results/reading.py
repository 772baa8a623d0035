"""A RUN folder's tables, read."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import JsonValue

from mcit_core.methods import ORDERLESS
from mcit_core.metrics import CATALOGUE
from mcit_core.stages.results import StageResult
from mcit_core.yaml_document import load_yaml
from orchestration.keep.tables import (
    NOT_IN_SWEEP,
    PARTIAL,
    TOGETHER,
    TRIAL_COLUMNS,
    Row,
    read_rows,
    stage_results,
    text_in,
)
from orchestration.results.estimates import Design

T = TypeVar("T")
#: how often, and seconds between, tables are read that a running sweep is writing
ATTEMPTS = 4
PAUSE = 0.3


@dataclass(frozen=True)
class Results:
    """What one RUN folder holds. axes: name -> the values declared in the sweep file, or None if not a list. A value
    that is itself a list or a mapping stands as its JSON text, here and in the rows. left: the rows of trials that the
    sweep file no longer has, which count for nothing."""

    folder: Path
    sweep: dict[str, JsonValue]
    axes: dict[str, list[JsonValue] | None]
    trials: list[Row]
    stages: dict[str, list[StageResult]]  # by trial, without their traces
    left: list[Row] = field(default_factory=list)

    @property
    def finished(self) -> list[Row]:
        return finished(self.trials)

    @cached_property
    def orders(self) -> list[str]:
        """Every order of the run, the sweep's first one first; those of references in which it plays no part only where
        there are no others."""
        found = [(text_in(row, "order"), row["method"] in ORDERLESS) for row in self.trials if row.get("order")]
        bound = [order for order, free in found if not free]
        return list(dict.fromkeys(bound or (order for order, _ in found)))

    @cached_property
    def design(self) -> Design:
        """The orders of the run, and whether they were listed, so that every one counts, or drawn from all."""
        axes = self.sweep.get("axes")
        order = axes.get("order") if isinstance(axes, dict) else None
        drawn = isinstance(order, dict) and order.get("drawn") is True
        return Design("random" if drawn else "fixed", tuple(self.orders))

    @property
    def imported(self) -> list[dict[str, JsonValue]]:
        """Of a RUN of `orchestration.import_results`: of each trial where it is from, and what was said of it."""
        found = self.sweep.get("imported")
        return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []

    @property
    def measured(self) -> set[str]:
        """The names of everything that stages measured."""
        return {name for stages in self.stages.values() for stage in stages for name in stage.metrics}


def check_run(folder: Path) -> None:
    """Raises FileNotFoundError where a folder is no RUN."""
    if not (folder / "trials.parquet").exists():
        raise FileNotFoundError(f"{folder} is no RUN: it has no trials.parquet")


def read_sweep(run_dir: Path) -> dict[str, JsonValue]:
    """What a RUN's sweep.yaml says, unchecked; empty where it is not there. Raises ValueError for a damaged one."""
    path = run_dir / "sweep.yaml"
    if not path.exists():
        return {}
    try:
        found = load_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(found, dict | None):
        raise ValueError(f"{path} is damaged: it holds no mapping")
    return found or {}


def read_results(run_dir: Path) -> Results:
    """Read a RUN folder; a table that is not there is empty. Raises ValueError for a damaged file, and where tables are
    of different writes."""
    run_dir = Path(run_dir)
    sweep = read_sweep(run_dir)
    told = sweep.get("axes")
    axes = {
        str(name): [plain_value(value) for value in values] if isinstance(values, list) else None
        for name, values in (told.items() if isinstance(told, dict) else ())
    }
    names = ("trials", "accuracy", "stages")
    trials, accuracy, stages = of_one_write(
        run_dir, names, lambda: [_rows(run_dir / f"{name}.parquet") for name in names]
    )
    trials = [{name: plain_value(value) if name in axes else value for name, value in row.items()} for row in trials]
    left = [row for row in trials if row["status"] == NOT_IN_SWEEP]
    here = [row for row in trials if row["status"] != NOT_IN_SWEEP]
    if left:  # they may bring columns of former axes
        known = {*TRIAL_COLUMNS, *axes, *CATALOGUE}
        former = {name for name in here[0] if "/" not in name and name not in known} if here else set()
        here = [{name: value for name, value in row.items() if name not in former} for row in here]
    return Results(run_dir, sweep, axes, here, stage_results(accuracy, stages), left)


def of_one_write(folder: Path, names: Sequence[str], read: Callable[[], T]) -> T:
    """What `read` makes of tables of a RUN, while they are those of one write: a running sweep may write them in
    between. Raises ValueError where they stay different, and for a damaged one."""
    for _ in range(ATTEMPTS):
        before = _marks(folder, names)
        found = read()
        if len(before) <= 1 and _marks(folder, names) == before:
            return found
        time.sleep(PAUSE)
    raise ValueError(
        f"{folder}: its tables are of different writes; `python -m orchestration.track {folder}` writes them anew"
    )


def _marks(folder: Path, names: Sequence[str]) -> set[bytes | None]:
    """What the tables that are there are marked with."""
    found: set[bytes | None] = set()
    for path in (folder / f"{name}.parquet" for name in names):
        try:
            found.add((pq.read_schema(path).metadata or {}).get(TOGETHER))
        except FileNotFoundError:
            continue
        except (pa.ArrowException, OSError) as error:
            raise damaged(path, error) from error
    return found


def plain_value(value: JsonValue) -> JsonValue:
    """A value of an axis as tables have it."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def damaged(path: Path, error: Exception) -> ValueError:
    """What to say of a table of a RUN that cannot be read."""
    return ValueError(
        f"{path} is damaged ({' '.join(str(error).split())[:200]}); "
        f"`python -m orchestration.track {path.parent}` writes it anew from the journal"
    )


def _rows(path: Path) -> list[Row]:
    try:
        return read_rows(path)
    except FileNotFoundError:
        return []
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def finished(trials: Iterable[Row]) -> list[Row]:
    return [row for row in trials if row["status"] == "FINISHED"]


def metric_names(trials: Sequence[Row], axes: Iterable[str]) -> list[str]:
    """Names of the metric columns: everything numeric that is not an axis, describes no trial and is final."""
    skipped = {*TRIAL_COLUMNS, *axes}
    names = dict.fromkeys(
        name for row in trials for name in row if name not in skipped and not name.startswith(PARTIAL)
    )
    return [name for name in names if not any(isinstance(row.get(name), str | list | dict) for row in trials)]
