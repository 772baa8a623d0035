"""Imported runs as a RUN: the Parquet files, report, tables and MLflow runs that a sweep of ours has."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
from pydantic import JsonValue

from mcit_core.folders import file_digest, write_atomic
from mcit_core.metrics import FORMULAS, METRICS, summarise
from mcit_core.stages.digest import digest
from mcit_core.stages.matrix_csv import matrix_csv
from mcit_core.stages.results import UNTOUCHED, Cell, Column, Matrix, StageResult, untouched
from orchestration.imports.found import THEIRS, FoundRun
from orchestration.keep.files import writing
from orchestration.keep.provenance import Provenance, commit, run_id, write_sweep
from orchestration.keep.tables import (
    ACCURACY_SCHEMA,
    NOT_IN_SWEEP,
    PARTIAL,
    STAGES_SCHEMA,
    STEPS_SCHEMA,
    Row,
    trials_table,
    write_tables,
)
from orchestration.tracking.content import Content, Point, mlflow_name
from orchestration.tracking.mirror import Mirror

#: how other papers write these figures: our name -> theirs
CONVENTIONS = {
    "average_accuracy": "MFN, Last, AP, ACC",
    "learning_accuracy": "MFT, New, LA",
    "mean_average_accuracy": "MAA, Avg of MLLM-CL",
    "average_by_column": "Avg of HiDe-LLaVA and Octopus",
    "average_lower_triangle": "A of Continuum",
    "backward_transfer": "BWT of GEM and MCITlib (over T-1)",
    "backward_transfer_over_tasks": "BWT of CoIN (over T)",
    "backward_transfer_all_cells": "BWT of Continuum (all later cells)",
    "forgetting": "forgetting of Chaudhry et al.",
    "forgetting_all_rows": "forgetting of CoIN++ and Mammoth",
    "forward_transfer": "FWT, from the untouched model",
}


class Imported:
    """One run with what the RUN says of it. problems: what keeps it from being finished."""

    def __init__(self, run: FoundRun, axes: Sequence[str]) -> None:
        self.run = run
        self.stages = _stages(run)
        size = range(len(run.tasks))
        holes = [
            f"{run.tasks[j]} after stage {i + 1}"
            for i in size
            for j in range(i + 1)
            if (i, run.tasks[j]) not in run.cells
        ]
        self.problems = (
            [f"not measured: {', '.join(holes[:6])}{f' and {len(holes) - 6} more' if holes[6:] else ''}"]
            if holes
            else []
        )
        name = re.sub(r"[^\w.-]+", "-", run.method or "imported")
        told = {axis: run.settings.get(axis) for axis in axes}
        self.trial = f"{name}-{digest([run.method, run.seed, told, run.tasks])[:10]}"

    def matrix(self, column: Column = "accuracy", tasks: int | None = None) -> Matrix:
        """[T, T], of the first stages and tasks alone where asked."""
        size = len(self.run.tasks) if tasks is None else tasks
        known = {stage.stage: stage for stage in self.stages}
        rows = [known.get(i, StageResult(i, None)).row(self.run.tasks, "test", column) for i in range(size)]
        return [row[:size] for row in rows]

    def untouched(self, column: Column = "accuracy") -> list[float | None] | None:
        return untouched(self.stages, self.run.tasks, "test", column)

    @property
    def complete(self) -> int:
        """After how many stages every task learned so far was tested, each time."""
        cells = self.matrix()
        whole = [all(cell is not None for cell in row[: i + 1]) for i, row in enumerate(cells)]
        return whole.index(False) if False in whole else len(whole)

    def metrics(
        self, column: Column = "accuracy", tasks: int | None = None, variants: bool = False
    ) -> dict[str, float | None]:
        """Of the first stages and tasks alone where asked."""
        cells, before = self.matrix(column, tasks), self.untouched(column)
        if not cells:
            return dict.fromkeys(METRICS)
        return summarise(cells, before[: len(cells)] if before else None, None, column, variants)

    def row(self, axes: Sequence[str]) -> Row:
        """Of trials.parquet."""
        run = self.run
        row: Row = {
            "trial": self.trial,
            "method": run.method,
            "tuner": None,
            "tuner_settings": None,
            "seed": run.seed,
            "order": ">".join(run.tasks),
            "status": "UNFINISHED" if self.problems else "FINISHED",
            "error": "; ".join([*self.problems, *run.said]) if self.problems else None,
            "seconds": None,
            "stages_trained": self.complete,
            "stages_reused": 0,
            "key": None,
        }
        row |= {axis: run.settings.get(axis) for axis in axes}
        none = dict.fromkeys(METRICS)
        so_far = self.metrics(tasks=self.complete) if self.problems else none
        row |= none if self.problems else self.metrics()
        row |= dict.fromkeys(FORMULAS["content_accuracy"]) if self.problems else self.metrics("content_accuracy")
        return row | {f"{PARTIAL}{name}": value for name, value in so_far.items()}

    def figures(self) -> dict[str, float | None]:
        """Under every convention: our name -> value, of a run that is not finished after its complete stages."""
        return self.metrics(tasks=self.complete if self.problems else None, variants=True)


def _stages(run: FoundRun) -> list[StageResult]:
    found: dict[int, StageResult] = {}
    for (stage, task), printed in sorted(run.cells.items(), key=lambda item: (item[0][0], run.tasks.index(item[0][1]))):
        result = found.setdefault(stage, StageResult(stage, None if stage == UNTOUCHED else run.tasks[stage]))
        content = printed.content_accuracy
        result.accuracy.append(
            Cell(task, "test", printed.value, content, printed.n, printed.accuracy_strict, printed.format_accuracy)
        )
        result.metrics.update({f"answer_shape/{task}/{name}": share for name, share in (printed.shapes or {}).items()})
    return list(found.values())


def axes_of(runs: Sequence[FoundRun]) -> dict[str, list[JsonValue]]:
    """What runs differ in, methods included: name -> its values, as a sweep file names them."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    axes = {name: _values([run.settings.get(name) for run in runs]) for name in names}
    methods = _values([run.method for run in runs])
    return {name: values for name, values in {"method": methods, **axes}.items() if len(values) > 1}


def _values(values: Sequence[JsonValue]) -> list[JsonValue]:
    return list({json.dumps(value): value for value in values}.values())


def write_run(
    folder: Path, runs: Sequence[FoundRun], model: str | None, benchmark: str | None, provenance: Provenance
) -> tuple[list[Imported], Provenance]:
    """Write everything but the report and MLflow. Raises StorageError."""
    axes = axes_of(runs)
    columns = [axis for axis in axes if axis != "method"]
    imported = [Imported(run, columns) for run in runs]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    provenance = {**provenance, **run_id(folder)}
    rows = [one.row(columns) for one in imported]
    accuracy: list[Row] = []
    measured: list[Row] = []
    for one, row in zip(imported, rows, strict=True):
        about = {name: row[name] for name in ("trial", "method", "seed", "order")}
        for stage in one.stages:
            accuracy += [
                {**about, "stage": stage.stage, "stage_task": stage.task, **vars(cell)} for cell in stage.accuracy
            ]
            place: Row = {"trial": one.trial, "stage": stage.stage, "task": stage.task}
            measured += [{**place, "name": name, "value": value} for name, value in stage.metrics.items()]
    seeds = sorted({run.seed for run in runs if run.seed is not None})
    sweep: dict[str, object] = {
        "name": folder.name,
        "benchmark": benchmark or next((run.benchmark for run in runs if run.benchmark), None) or "not told",
        "model": model or "not told",
        "tasks": runs[0].tasks,
        "method": runs[0].method,
        "axes": axes,
        "seeds": seeds,
        "imported": [{"trial": one.trial, "from": str(one.run.source), "said": [*one.run.said]} for one in imported],
    }
    write_sweep(folder, sweep, provenance)
    tables = {
        "steps": STEPS_SCHEMA.empty_table(),
        "accuracy": pa.Table.from_pylist(accuracy, ACCURACY_SCHEMA),
        "stages": pa.Table.from_pylist(measured, STAGES_SCHEMA),
        "trials": trials_table(rows, axes),
    }
    write_tables(folder, [tables], digest([row["trial"] for row in rows]))
    with writing(folder / "conventions.csv"):
        write_atomic(folder / "conventions.csv", _conventions(imported).encode())
    return imported, provenance


def _conventions(imported: Sequence[Imported]) -> str:
    sink = io.StringIO()
    lines = csv.writer(sink, lineterminator="\n")
    lines.writerow(["trial", "stages", "figure", "written_as", "value"])
    for one in imported:
        figures = one.figures()
        for name, theirs in CONVENTIONS.items():
            value = figures.get(name)
            lines.writerow([one.trial, one.complete, name, theirs, "" if value is None else f"{value:.6f}"])
    return sink.getvalue()


def compared(one: Imported) -> list[str]:
    """What each figure that its authors printed is among ours."""
    ours, said = one.figures(), []
    for name, value in one.run.figures.items():
        scale = 100 if one.run.percent else 1
        near = 0.5001 * 10.0 ** -len(f"{value!r}".partition(".")[2])
        known = {each: ours[each] for each in THEIRS[name]}
        same = [each for each, found in known.items() if found is not None and abs(scale * found - value) <= near]
        said.append(
            f"{one.run.source}: its {name} {value:g} is {same[0]} here"
            if same
            else f"{one.run.source}: its {name} {value:g} is none of {', '.join(THEIRS[name])} of its matrix"
        )
    return said


def track(uri: str, folder: Path, imported: Sequence[Imported], provenance: Provenance) -> None:
    """Bring MLflow up to what was imported. Raises what the server raises."""
    mirror = Mirror(uri, folder.name, folder, provenance)
    mirror.connect()
    for one in imported:
        row = one.row([])
        params: dict[str, str] = {
            "method": str(one.run.method),
            "seed": str(one.run.seed),
            "order": ">".join(one.run.tasks),
            "imported_from": str(one.run.source),
            **{mlflow_name(name): str(value) for name, value in one.run.settings.items()},
        }
        tags = {
            "mlflow.parentRunId": mirror.parent,
            "mcit.kind": "trial",
            "mcit.trial": one.trial,
            "mlflow.runName": one.trial,
            "status": str(row["status"]),
            **mirror.tags(),
        }
        status = "FAILED" if one.problems else "FINISHED"
        points = [point._replace(name=mlflow_name(point.name)) for point in _points(one, row)]
        mirror.log(one.trial, Content(points, params, tags, status), partial(_artefacts, one))
    here = {one.trial for one in imported}
    for trial, run in mirror.children.items():
        if trial not in here:  # of an import before
            mirror.set_tags(run, {"status": NOT_IN_SWEEP})
    mirror.end(Content([], {}, {}, "FINISHED"), 0)


def _points(one: Imported, row: Row) -> list[Point]:
    points: list[Point] = []
    for stage in one.stages:
        if stage.stage != UNTOUCHED:
            points += [Point(f"accuracy/{cell.task}", stage.stage, cell.accuracy) for cell in stage.accuracy]
    for size in range(1, one.complete + 1):
        points += [Point(name, size - 1, value) for name, value in one.metrics(tasks=size).items() if value is not None]
    last = max(0, len(one.run.tasks) - 1)
    known = {point.name for point in points}
    points += [
        Point(name, last, value) for name, value in row.items() if isinstance(value, float) and name not in known
    ]
    return sorted(points, key=lambda point: point[:2])


def _artefacts(one: Imported, folder: Path) -> None:
    rows = zip(("untouched", *one.run.tasks), [one.untouched() or [], *one.matrix()], strict=False)
    (folder / "accuracy_matrix.csv").write_text(matrix_csv(one.run.tasks, rows))


def origin(path: Path, options: Mapping[str, JsonValue]) -> Provenance:
    """Where imported numbers come from: the path, the options that were given, and what was there: a file by its
    SHA-256, a folder's files by name and size."""
    if path.is_file():
        held: Provenance = {"sha256": file_digest(path)}
    else:
        files = sorted(file for file in path.rglob("*") if file.is_file())
        names = digest([[str(file.relative_to(path)), file.stat().st_size] for file in files])
        held = {"files": len(files), "names_and_sizes": names}
    given: dict[str, JsonValue] = {name: value for name, value in options.items() if value is not None}
    return {
        "imported_from": str(path.resolve()),
        **held,
        "options": given,
        "imported": time.strftime("%Y-%m-%d %H:%M:%S"),
        **commit(),
    }
