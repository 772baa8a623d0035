"""Which group of tasks answered, where a method sends every row to one by its instruction."""

from __future__ import annotations

import html

from orchestration.keep.tables import text_in
from orchestration.report.context import Context
from orchestration.report.markup import Section, html_table, paragraph

#: trials that are shown
MOST = 4


def routing_section(context: Context) -> Section | None:
    """None where no trial has groups."""
    tables = []
    for row in context.results.finished:
        stages = context.results.stages.get(text_in(row, "trial"), [])
        table = _table(stages[-1].metrics) if stages else None
        if table is not None:
            tables.append(f"<p><b>{html.escape(text_in(row, 'trial'))}</b></p>{table}")
    if not tables:
        return None
    words = (
        "Per cent of a task's test rows that each group answered, after the last stage; the task's own group in bold. "
        "What another group answered, it answered by weights that are not this task's own."
    )
    left = f" {len(tables) - MOST} trials more: `grouping/sent/…` in stages.parquet." if len(tables) > MOST else ""
    return "Which group answered", paragraph(words + left, "note") + "".join(tables[:MOST])


def _table(metrics: dict[str, float]) -> str | None:
    own = {
        name.removeprefix("grouping/group/"): int(v)
        for name, v in metrics.items()
        if name.startswith("grouping/group/")
    }
    if not own:
        return None
    groups = range(max(own.values()) + 1)
    head = ["task", *(" + ".join(task for task, group in own.items() if group == i) for i in groups)]
    lines = [
        [html.escape(task), *(_share(metrics.get(f"grouping/sent/{task}/{i}"), i == group) for i in groups)]
        for task, group in own.items()
    ]
    return html_table([html.escape(cell) for cell in head], lines, "numbers")


def _share(value: float | None, own: bool) -> str:
    text = "–" if value is None else f"{100 * value:.1f}"
    return f"<b>{text}</b>" if own else text
