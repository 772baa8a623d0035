"""Write a RUN's report again, or one report of several RUNs: `python -m orchestration.report RUN [RUN ...]`.

Of several, what differs between them becomes an axis; RUNs whose benchmark, model, weights, data, orders or evaluation
differ are refused. Exit 0: written; 1: it cannot be written; 2: refused.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from mcit_core.folders import check_folder
from mcit_core.yaml_document import SpecError
from orchestration.keep.files import StorageError, writing
from orchestration.report import write_results
from orchestration.report.console import print_results
from orchestration.results.merging import merge
from orchestration.results.reading import check_run, read_results


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="RUN folders, for example runs/threshold")
    parser.add_argument("--out", type=Path, default=None, metavar="DIR", help="of several: where the report goes")
    given = parser.parse_args(arguments)
    try:
        for run in given.runs:
            check_run(run)
        if given.out is None and len(given.runs) > 1:
            raise ValueError("--out DIR is wanted: a report of several RUNs belongs to none of them")
        folder = given.out or given.runs[0]
        check_folder(folder, "--out")
        if given.out is not None and (folder / "trials.parquet").exists():
            raise ValueError(f"--out {folder}: is a RUN with a report of its own; give another folder")
        results = merge(given.runs, folder) if len(given.runs) > 1 else read_results(given.runs[0])
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            path = write_results(results, folder)
        print_results(results, Console(highlight=False, width=None if sys.stdout.isatty() else 140))
        print(f"\nreport: {path}")
    except StorageError as error:
        print(error, file=sys.stderr)
        return 1
    except (SpecError, ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
