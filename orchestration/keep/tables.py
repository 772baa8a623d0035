"""The Parquet files of a RUN: their columns and types, read and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestration.keep.files import write_atomic
from orchestration.plan.spec import SweepSpec

ACCURACY_SCHEMA = pa.schema(
    [
        ("trial", pa.string()),
        ("method", pa.string()),
        ("seed", pa.int64()),
        ("order", pa.string()),
        ("stage", pa.int64()),
        ("stage_task", pa.string()),
        ("task", pa.string()),
        ("split", pa.string()),
        ("accuracy", pa.float64()),
        ("content_accuracy", pa.float64()),
        ("n", pa.int64()),
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


def trials_schema(rows: list[dict[str, Any]], spec: SweepSpec) -> pa.Schema:
    """Types that hold for every sweep, whatever happens to be null; a swept value keeps its own type, a mixed axis is
    text."""
    fixed: dict[str, Any] = {"seed": pa.int64(), "stages_trained": pa.int64(), "stages_reused": pa.int64()}
    fixed |= dict.fromkeys(("trial", "method", "tuner", "tuner_settings", "order", "status", "error"), pa.string())
    fields = []
    for name in rows[0]:
        kind = fixed.get(name, pa.float64())
        if name in spec.axes and name not in fixed:
            try:
                kind = pa.array(spec.axes[name]).type
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                kind = pa.string()
            if kind == pa.string():
                for row in rows:
                    row[name] = None if row[name] is None else str(row[name])
        fields.append((name, kind))
    return pa.schema(fields)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file of ours. Raises FileNotFoundError, OSError or pyarrow's errors."""
    with path.open("rb") as file:
        rows: list[dict[str, Any]] = pq.read_table(file, page_checksum_verification=True).to_pylist()
    return rows


def write_table(path: Path, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    write_atomic(path, sink.getvalue().to_pybytes())
