"""Which group of tasks answered, where a method sends every row to one by its instruction."""

from __future__ import annotations

import html

from orchestration.keep.tables import text_in
from orchestration.report.context import Context
from orchestration.report.markup import Section, html_table, paragraph
from orchestration.results.routing import Routing, routing_of

#: trials that are shown
MOST = 4


def routing_section(context: Context) -> Section | None:
    """None where no trial has groups."""
    tables = []
    for row in context.results.finished:
        found = routing_of(context.results.stages.get(text_in(row, "trial"), []))
        if found is not None:
            tables.append(f"<p><b>{html.escape(text_in(row, 'trial'))}</b></p>{_table(found)}")
    if not tables:
        return None
    words = (
        "Per cent of a task's test rows that each group answered, after the last stage; the task's own group in bold. "
        "What another group answered, it answered by weights that are not this task's own."
    )
    left = f" {len(tables) - MOST} trials more: `grouping/sent/…` in stages.parquet." if len(tables) > MOST else ""
    return "Which group answered", paragraph(words + left, "note") + "".join(tables[:MOST])


def _table(found: Routing) -> str:
    head = ["task", *(" + ".join(tasks) for tasks in found.groups)]
    lines = [
        [html.escape(task), *(_share(share, group == own) for group, share in enumerate(shares))]
        for task, own, shares in zip(found.tasks, found.own, found.shares, strict=True)
    ]
    return html_table([html.escape(cell) for cell in head], lines, "numbers")


def _share(value: float | None, own: bool) -> str:
    text = "–" if value is None else f"{100 * value:.1f}"
    return f"<b>{text}</b>" if own else text
