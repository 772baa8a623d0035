"""What others have published on the benchmark of a RUN."""

from __future__ import annotations

from mcit_core.choices import kind_of
from mcit_core.metrics import CATALOGUE
from orchestration.report.blocks import Block, Cell, Line, Section, Table, Text
from orchestration.report.context import Context
from orchestration.results.published import Published, published_on


def published_section(context: Context) -> Section | None:
    """None where nothing is known of the benchmark."""
    benchmark = context.results.sweep.get("benchmark")
    sources = published_on(kind_of(benchmark)) if isinstance(benchmark, str | dict) else []
    if not sources:
        return None
    words = (
        "Per cent, as their sources print them, and no baselines of this run: weights, budgets, pictures and scorers "
        f"are others. {_tasks_words(context, sources)}"
    )
    blocks: list[Block] = [Text(words.strip(), "note")]
    for source in sources:
        metrics = [name for name in CATALOGUE if any(name in row for row in source.rows.values())]
        head = ["method", *(CATALOGUE[name].title for name in metrics)]
        lines = [Line([method, *(_figure(row, name) for name in metrics)]) for method, row in source.rows.items()]
        blocks += [
            Text(source.model, "label"),
            Text(source.source, link=source.link or ""),
            Text(f"{', '.join(source.tasks)}; {source.scoring} scores. {source.convention.strip()}", "note"),
            Table(head, lines, "numbers"),
        ]
    return "Published figures on this benchmark", blocks


def _figure(row: dict[str, float], name: str) -> Cell:
    """With the digits of the papers, which are two."""
    return Cell(f"{row[name]:.2f}".replace("-", "−"), value=row[name]) if name in row else Cell("–")


def _tasks_words(context: Context, sources: list[Published]) -> str:
    """Whether the run learned what they did."""
    if any(source.tasks == context.tasks for source in sources):
        return ""
    return "This run learned other tasks, or in another order, than any of them."
