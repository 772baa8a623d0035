"""Make a RUN of results that another repository has written: `python -m orchestration.import_results PATH --name NAME`.

PATH is a folder or file of results: result folders of CoIN, MCITlib, HiDe-LLaVA and Prism; all_results.json of O-LoRA;
Mammoth's logs.pyd; Avalanche's eval_results.csv; coin_metrics.json; continual_metrics.json; a matrix in CSV or
Markdown; or a mapping file (YAML), in which several of these become the seeds, methods or settings of one RUN. Nothing
is evaluated or unpickled. Exit 0: imported; 1: MLflow could not be written; 2: PATH cannot be read as it is.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from rich.console import Console

from mcit_core.yaml_document import SpecError
from orchestration.arguments import choose_storage
from orchestration.imports.found import UnreadableError
from orchestration.imports.reading import Asked, read_all
from orchestration.keep.files import StorageError, without_userinfo, writing
from orchestration.keep.run_lock import run_lock
from orchestration.results.reading import read_sweep


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m orchestration.import_results",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("path", type=Path, help="results, or a mapping file")
    made.add_argument("--name", required=True, help="of the RUN")
    made.add_argument("--storage", default=None, metavar="DIR", help="where it goes (default: runs)")
    made.add_argument("--tasks", default=None, metavar="A,B,C", help="the tasks in the order of training")
    made.add_argument(
        "--zeros",
        choices=("measured", "missing"),
        default=None,
        help="what zeros above the diagonal are: scores, or cells that were not measured",
    )
    made.add_argument(
        "--unit",
        choices=("percent", "fraction"),
        default=None,
        help="of accuracies (default: per cent where one is above 1)",
    )
    made.add_argument("--golds", type=Path, default=None, metavar="DIR", help="test files, for answers without golds")
    made.add_argument("--mlflow", default=None, metavar="URI", help="a tracking URI (default: DIR/mlflow.db)")
    return made


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    try:
        return _import(given)
    except StorageError as error:  # an OSError, as what cannot be read is
        print(error, file=sys.stderr)
        return 1
    except (UnreadableError, SpecError, OSError) as error:
        print(error, file=sys.stderr)
        return 2


def _import(given: argparse.Namespace) -> int:
    tasks = [task.strip() for task in given.tasks.split(",") if task.strip()] if given.tasks else None
    if tasks is not None and len({*tasks}) < len(tasks):
        raise UnreadableError(f"--tasks {given.tasks}: a task twice")
    if not re.fullmatch(r"\w[\w.-]*", given.name):
        raise UnreadableError(f"--name {given.name}: expected letters, digits, '.', '_' and '-'")
    if given.golds is not None and not given.golds.is_dir():
        raise UnreadableError(f"--golds {given.golds}: no such folder")
    runs, model, benchmark = read_all(given.path, Asked(tasks, given.zeros, given.unit, given.golds))
    folder = choose_storage(given.storage) / given.name
    _check_free(folder)
    from orchestration.imports.writing import compared, origin, track, write_run

    options = {"tasks": tasks, "zeros": given.zeros, "unit": given.unit, "golds": given.golds and str(given.golds)}
    with run_lock(folder):
        imported, provenance = write_run(folder, runs, model, benchmark, origin(given.path, options))
        from orchestration.report import write_report
        from orchestration.report.console import print_summary

        with writing(folder / "report.html"):
            report = write_report(folder)
        print_summary(folder, Console(highlight=False, width=None if sys.stdout.isatty() else 140))
        for one in imported:
            for line in [*one.run.said, *one.problems, *compared(one)]:
                print(f"{one.trial}: {line}")
        print(f"\nreport: {report}")
        print(f"the same matrices under other papers' conventions: {folder / 'conventions.csv'}")
        from orchestration.tracking.mirror import default_uri, unreachable

        uri = given.mlflow or default_uri(folder.parent)
        try:
            track(uri, folder, imported, provenance)
        except Exception as error:  # MLflow and what it stands on have a class for every way in which this fails
            print(unreachable(uri, error, again="the same command"), file=sys.stderr)
            return 1
        print(f"compare runs: mlflow ui --backend-store-uri {without_userinfo(uri)}")
    return 0


def _check_free(folder: Path) -> None:
    """An import takes the place of an import, never of a sweep. Raises UnreadableError."""
    file = folder / "sweep.yaml"
    try:
        told = read_sweep(folder)
    except ValueError as error:
        raise UnreadableError(f"{error}; give the import another --name") from error
    if file.exists() and "imported" not in told:
        raise UnreadableError(f"{folder} is the RUN of a sweep; give the import another --name")
    if not file.exists() and folder.exists() and any(folder.iterdir()):
        raise UnreadableError(f"{folder} is there and is no RUN; give another --name or --storage")


if __name__ == "__main__":
    sys.exit(main())
