"""A RUN's four tables for one's own questions: as Arrow, as pandas, or in SQL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from orchestration.keep.tables import ACCURACY_SCHEMA, STAGES_SCHEMA, STEPS_SCHEMA
from orchestration.results.columns import Table
from orchestration.results.reading import check_run, damaged, of_one_write

if TYPE_CHECKING:
    import pandas as pd

NAMES: tuple[Table, ...] = get_args(Table)
EMPTY: dict[Table, pa.Schema] = {"accuracy": ACCURACY_SCHEMA, "stages": STAGES_SCHEMA, "steps": STEPS_SCHEMA}


@dataclass(frozen=True)
class Tables:
    """`trials`, `accuracy`, `stages`, `steps`: what their columns are says `orchestration.results.columns`."""

    trials: pa.Table
    accuracy: pa.Table
    stages: pa.Table
    steps: pa.Table

    def pandas(self, name: Table) -> pd.DataFrame:
        """One of the tables as a data frame."""
        frame: pd.DataFrame = getattr(self, name).to_pandas()
        return frame

    def query(self, sql: str) -> pa.Table:
        """The answer to a question in SQL (DuckDB's) over the four tables. Raises ValueError for one that is none."""
        import duckdb

        with duckdb.connect(config={"enable_external_access": "false"}) as connection:
            for name in NAMES:
                connection.register(name, getattr(self, name))
            try:
                found: pa.Table = connection.sql(sql).to_arrow_table()
            except AttributeError:
                raise ValueError(f"{sql}: gives no table") from None
            except duckdb.Error as error:
                raise ValueError(f"{sql}: {' '.join(str(error).split())}") from None
        return found


def load(run: Path | str) -> Tables:
    """The tables of a RUN folder; one that is not there is empty. Raises FileNotFoundError where the folder is no RUN,
    and ValueError for a damaged file."""
    folder = Path(run)
    check_run(folder)
    return Tables(
        **of_one_write(
            folder, NAMES, lambda: {name: _read(folder / f"{name}.parquet", EMPTY.get(name)) for name in NAMES}
        )
    )


def _read(path: Path, schema: pa.Schema | None) -> pa.Table:
    if schema is not None and not path.exists():
        return schema.empty_table()
    try:
        return pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error
