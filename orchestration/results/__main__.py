"""Ask a RUN's tables in SQL: `python -m orchestration.results RUN --query "SELECT method, avg(forgetting) ..."`.

Tables: trials, accuracy, stages, steps; `--columns` prints what every column is. Exit 0: answered; 2: the RUN or the
question cannot be read.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from decimal import Decimal
from pathlib import Path

from orchestration.results.columns import as_markdown
from orchestration.results.tables import NAMES, load

#: columns that a terminal has room for
WIDE = 12


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.results",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN", help="a RUN folder, for example runs/threshold")
    parser.add_argument("--query", default=None, metavar="SQL", help="DuckDB's; default: how many rows the tables have")
    parser.add_argument("--form", choices=("table", "csv", "json"), default="table", help="how the answer is printed")
    parser.add_argument("--columns", action="store_true", help="print the data dictionary, in Markdown")
    given = parser.parse_args(arguments)
    if given.columns:
        print(as_markdown(), end="")
        return 0
    if given.run is None:
        parser.error("expected a RUN folder, or --columns")
    counts = " UNION ALL ".join(f"SELECT '{name}' AS name, count(*) AS rows FROM {name}" for name in NAMES)
    try:
        found = load(given.run).query(counts if given.query is None else given.query)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    rows = [list(row) for row in zip(*(column.to_pylist() for column in found.columns), strict=True)]
    try:
        _print(found.column_names, rows, given.form)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _print(names: list[str], rows: list[list[object]], form: str) -> None:
    if form == "csv":
        csv.writer(sys.stdout, lineterminator="\n").writerows([names, *rows])
    elif form == "json":
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"several columns of the answer are called {', '.join(twice)}: name them with AS")
        told = [dict(zip(names, map(_plain, row), strict=True)) for row in rows]
        print(json.dumps(told, default=str, ensure_ascii=False, allow_nan=False))
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        shown = Table()
        for name in names:
            shown.add_column(Text(name))
        for row in rows:
            shown.add_row(*(Text(_shown(value)) for value in row))
        Console(width=None if sys.stdout.isatty() else 200).print(shown)
        if len(names) > WIDE:
            print(f"{len(names)} columns: --form csv or json has them whole")


def _plain(value: object) -> object:
    """As JSON has it: NaN and infinities are null, decimal numbers are numbers."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shown(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
