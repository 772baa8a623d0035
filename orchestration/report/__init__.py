"""The report of a sweep: one HTML file that opens without network, and its tables as CSV and LaTeX."""

from __future__ import annotations

from pathlib import Path

from orchestration.report.context import Context
from orchestration.report.page import render
from orchestration.report.tables import write_csv, write_latex
from orchestration.results.reading import Results, read_results


def write_report(run_dir: Path) -> Path:
    """Write report.html, tables.csv and tables.tex into a RUN folder; returns the path of report.html."""
    return write_results(read_results(Path(run_dir)), Path(run_dir))


def write_results(results: Results, folder: Path) -> Path:
    """As `write_report`, of results and into any folder."""
    context = Context.of(results)
    write_csv(context, folder / "tables.csv")
    write_latex(context, folder / "tables.tex")
    path = folder / "report.html"
    path.write_text(render(context), encoding="utf-8")
    return path
