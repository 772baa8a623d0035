"""The Parquet files of a RUN: their columns and types, read and written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue, TypeAdapter

from mcit_core.stages.results import Cell, StageResult, Trace
from orchestration.keep.files import write_together

#: a row of a Parquet file, by column; trials.parquet has a column for every swept field
Row = dict[str, JsonValue]

#: the columns that describe a trial; the others of trials.parquet are swept fields and metrics
TRIAL_COLUMNS: dict[str, pa.DataType] = {
    "trial": pa.string(),
    "method": pa.string(),
    "tuner": pa.string(),
    "tuner_settings": pa.string(),
    "seed": pa.int64(),
    "order": pa.string(),
    "status": pa.string(),
    "error": pa.string(),
    "seconds": pa.float64(),
    "stages_trained": pa.int64(),
    "stages_reused": pa.int64(),
    "key": pa.string(),
    "setting": pa.int64(),
    "batch": pa.int64(),
    "state": pa.string(),
}

#: statuses of finished trials that do not count: by other code, data or versions; not in the sweep file any more
OUTDATED, NOT_IN_SWEEP = SET_ASIDE = ("OUTDATED", "NOT_IN_SWEEP")

#: before the name of a metric of a trial that is not finished, as it stands after the stages that it has
PARTIAL = "partial/"

#: the columns of an accuracy cell: those of mcit_core, in Parquet's types
CELL_COLUMNS: dict[str, pa.DataType] = {
    name: {str: pa.string(), float: pa.float64(), float | None: pa.float64(), int: pa.int64()}[kind]
    for name, kind in get_type_hints(Cell).items()
}

ACCURACY_SCHEMA = pa.schema(
    [
        ("trial", pa.string()),
        ("method", pa.string()),
        ("seed", pa.int64()),
        ("order", pa.string()),
        ("stage", pa.int64()),
        ("stage_task", pa.string()),
        *CELL_COLUMNS.items(),
    ]
)


STAGES_SCHEMA = pa.schema(
    [
        ("trial", pa.string()),
        ("stage", pa.int64()),
        ("task", pa.string()),
        ("name", pa.string()),
        ("value", pa.float64()),
    ]
)


STEPS_SCHEMA = pa.schema(
    [
        ("trial", pa.string()),
        ("stage", pa.int64()),
        ("step", pa.int64()),
        ("name", pa.string()),
        ("value", pa.float64()),
    ]
)

_CELL = TypeAdapter(Cell)


def steps_table(trial: str, stage: int, name: str, values: Trace) -> pa.Table:
    """The rows of one trace, made as columns: of ten thousand trials a tuple a row would be gigabytes."""
    count = len(values)
    columns = [
        pa.repeat(trial, count),
        pa.repeat(pa.scalar(stage, pa.int64()), count),
        pa.array(range(count), pa.int64()),
        pa.repeat(name, count),
        pa.array(values, pa.float64()),
    ]
    return pa.Table.from_arrays(columns, schema=STEPS_SCHEMA)


def stage_tables(shown: Iterable[tuple[Row, Iterable[StageResult]]]) -> dict[str, pa.Table]:
    """The tables of what the stages of trials showed. `shown`: rows of trials.parquet, each with its trial's stages."""
    accuracy: list[Row] = []
    stages: list[Row] = []
    steps = [STEPS_SCHEMA.empty_table()]
    for row, results in shown:
        about = {name: row.get(name) for name in ("trial", "method", "seed", "order")}
        for stage in results:
            place: Row = {**about, "stage": stage.stage}
            accuracy += [{**place, "stage_task": stage.task, **vars(cell)} for cell in stage.accuracy]
            stages += [
                {**place, "task": stage.task, "name": name, "value": value} for name, value in stage.metrics.items()
            ]
            steps += [
                steps_table(text_in(row, "trial"), stage.stage, name, values) for name, values in stage.traces.items()
            ]
    return {
        "steps": pa.concat_tables(steps).combine_chunks(),
        "accuracy": pa.Table.from_pylist(accuracy, ACCURACY_SCHEMA),
        "stages": pa.Table.from_pylist(stages, STAGES_SCHEMA),
    }


def trials_table(rows: list[Row], axes: Mapping[str, Sequence[JsonValue]]) -> pa.Table:
    """The rows, of which some may lack columns. Types hold for every sweep, whatever happens to be null; a swept value
    keeps its own type, a mixed axis is text."""
    fields = []
    for name in dict.fromkeys(name for row in rows for name in row):
        kind = TRIAL_COLUMNS.get(name, pa.float64())
        values = [row[name] for row in rows if row.get(name) is not None]
        # a name that is not among today's axes is a metric, or an axis of a trial that has left the sweep
        if name not in TRIAL_COLUMNS and (name in axes or not all(map(_is_number, values))):
            try:
                kind = pa.array([*axes.get(name, ()), *values]).type
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                kind = pa.string()
            if kind == pa.string():
                rows = [{**row, name: None if row.get(name) is None else str(row[name])} for row in rows]
        fields.append((name, kind))
    return pa.Table.from_pylist([{name: row.get(name) for name, _ in fields} for row in rows], pa.schema(fields))


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def text_in(row: Row, column: str) -> str:
    """The text in a column, "" where it is null. Raises KeyError where there is no such column, TypeError where it
    holds something else."""
    value = row[column]
    if value is not None and not isinstance(value, str):
        raise TypeError(f"column {column}: expected text, got {value!r}")
    return value or ""


def number_in(row: Row, column: str) -> float | None:
    """The number in a column, None where it is null. Raises as `text_in`."""
    value = row[column]
    if value is not None and not isinstance(value, int | float):
        raise TypeError(f"column {column}: expected a number, got {value!r}")
    return value


def read_rows(path: Path) -> list[Row]:
    """The rows of a Parquet file of ours. Raises FileNotFoundError, OSError or pyarrow's errors."""
    with path.open("rb") as file:
        # on threads, reading an open file ends one process in ten with SIGABRT as it exits (apache/arrow#34314)
        rows: list[Row] = pq.read_table(file, use_threads=False, page_checksum_verification=True).to_pylist()
    return rows


def stage_results(
    accuracy: Iterable[Row], stages: Iterable[Row], steps: Iterable[Row] = ()
) -> dict[str, list[StageResult]]:
    """trial -> what its stages showed, in order, from the rows of three files. Raises KeyError, TypeError or ValueError
    for what is no such row."""
    found: dict[str, dict[int, StageResult]] = {}

    def stage(row: Row, task: str | None) -> StageResult:
        position = int(number_in(row, "stage") or 0)
        return found.setdefault(text_in(row, "trial"), {}).setdefault(position, StageResult(position, task))

    for row in stages:
        value = number_in(row, "value")
        if value is not None:
            stage(row, text_in(row, "task") or None).metrics[text_in(row, "name")] = value
    for row in accuracy:
        cell = _CELL.validate_python({name: row[name] for name in CELL_COLUMNS if name in row})
        stage(row, text_in(row, "stage_task") or None).accuracy.append(cell)
    for row in steps:
        stage(row, None).traces.setdefault(text_in(row, "name"), []).append(number_in(row, "value"))
    return {trial: [results[position] for position in sorted(results)] for trial, results in found.items()}


#: in every table's metadata, the same in those that were written together
TOGETHER = b"mcit.together"


def write_tables(run: Path, parts: Iterable[Mapping[str, pa.Table]], mark: str) -> None:
    """Write <name>.parquet for each name in the parts, with the rows of all parts in order (a row group each, so that
    no more than a part is in memory). They belong together: `mark` tells them from others. Raises StorageError."""
    writers: dict[str, tuple[pa.BufferOutputStream, pq.ParquetWriter]] = {}
    for tables in parts:
        for name, table in tables.items():
            if name not in writers:
                schema = table.schema.with_metadata({**(table.schema.metadata or {}), TOGETHER: mark})
                sink = pa.BufferOutputStream()
                writers[name] = sink, pq.ParquetWriter(sink, schema, write_page_checksum=True)
            writers[name][1].write_table(table.replace_schema_metadata(writers[name][1].schema.metadata))
    for _, writer in writers.values():
        writer.close()
    write_together({run / f"{name}.parquet": sink.getvalue().to_pybytes() for name, (sink, _) in writers.items()})


def marks(paths: Iterable[Path]) -> set[bytes | None]:
    """What marks these tables as written together; one value where they were. Raises as `read_rows`."""
    return {(pq.read_schema(path).metadata or {}).get(TOGETHER) for path in paths}
