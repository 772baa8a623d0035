"""A sweep's results as a table in the terminal."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mcit_core.metrics import Metric
from orchestration.keep.tables import text_in
from orchestration.report.context import Context
from orchestration.report.findings import headline
from orchestration.results.answer import answer, first_line
from orchestration.results.notices import notices
from orchestration.results.reading import Results, read_results
from orchestration.results.settings import SettingSummary
from orchestration.results.words import format_estimate, so_far, summary_metrics

#: characters of a line that a setting's name has at least
LABEL = 14


def print_summary(run_dir: Path, console: Console | None = None) -> None:
    """Print settings x metrics (per cent, mean ± half the 95 % interval), and beneath it what failed."""
    print_results(read_results(run_dir), console or Console())


def print_results(results: Results, console: Console) -> None:
    """As `print_summary`, of results."""
    context = Context.of(results)
    headlines = [metric for metric in summary_metrics(context.summaries) if metric.place == "headline"]
    shown = headlines
    longest = max((len(context.label(setting)) for setting in context.settings), default=0)
    wide = Console(width=10_000)
    table = _table(context, shown)
    # labels may be folded; rather a metric less than a number cut
    while len(shown) > 1 and wide.measure(table).maximum - max(0, longest - LABEL) > console.width:
        shown = shown[:-1]
        table = _table(context, shown)
    console.print(table)
    if left_out := len(headlines) - len(shown):
        console.print(f"{left_out} more in the report, for which this terminal is too narrow")
    console.print(
        "per cent, mean ± half the 95 % interval, below three seeds their own values; ↑ higher, ↓ lower is better\n"
    )
    told = Table.grid(padding=(0, 2, 0, 0))
    for label, words in answer(results) if results.trials else ():
        if label not in ("went wrong", ""):  # which are told below
            told.add_row(Text(label), Text(words))
    console.print(told)
    console.print(f"\n{headline(context)}", markup=False)
    for text in notices(results):
        console.print(f"Look into this: {text}", markup=False)
    _print_unfinished(results, console)


def _table(context: Context, metrics: list[Metric]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("setting", vertical="bottom", overflow="fold", min_width=LABEL)
    table.add_column("trials", justify="right", no_wrap=True)
    for metric in metrics:
        table.add_column(metric.title.replace(" ", "\n", 1) + metric.arrow, justify="right", no_wrap=True)
    for summary in context.summaries:
        cells = [_estimate_with_n(metric.name, summary) for metric in metrics]
        table.add_row(Text(context.label(summary.setting)), f"{summary.finished}/{summary.trials}", *cells)
    return table


def _estimate_with_n(metric: str, summary: SettingSummary) -> str:
    found = summary.metric(metric)
    note = f" (n={found.n})" if 0 < found.n < summary.seeds else ""
    return format_estimate(metric, found) + note


def _print_unfinished(results: Results, console: Console) -> None:
    rows = [row for row in results.trials if row["status"] != "FINISHED"]
    if not rows:
        return
    console.print("Trials without a final result:")
    table = Table("trial", "status", "why", "so far, not final", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(
            Text(text_in(row, "trial")),
            Text(text_in(row, "status")),
            Text(first_line(text_in(row, "error"))),
            Text(so_far(row)),
        )
    console.print(table)
