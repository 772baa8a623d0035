"""Which group of tasks answered, where a method sends every row to one by its instruction."""

from __future__ import annotations

from orchestration.keep.tables import text_in
from orchestration.report.blocks import Block, Section, Text
from orchestration.report.charts import Figure, Panel, heat_map
from orchestration.report.context import Context
from orchestration.results.routing import Routing, routing_of

#: trials that are drawn at first
MOST = 4


def routing_section(context: Context) -> Section | None:
    """None where no trial has groups."""
    panels: list[Panel] = []
    for row in context.results.finished:
        found = routing_of(context.results.stages.get(text_in(row, "trial"), []))
        panels += [_panel(found, text_in(row, "trial"), len(panels) < MOST)] if found is not None else []
    if not panels:
        return None
    words = (
        "Per cent of a task's test rows that each group answered, after the last stage; a frame marks the task's own "
        "group. What another group answered, it answered by weights that are not this task's own."
    )
    left = f" {MOST} of {len(panels)} trials are drawn at first." if len(panels) > MOST else ""
    blocks: list[Block] = [Text("Every row is sent to one group of tasks by its instruction.", "note")]
    return "Which group answered", [
        *blocks,
        Figure("Which group answered", words + left, panels, picker="trial", most=520),
    ]


def _panel(found: Routing, trial: str, shown: bool) -> Panel:
    groups = [" + ".join(tasks) for tasks in found.groups]
    return heat_map(
        found.tasks,
        groups,
        [[None if share is None else 100 * share for share in line] for line in found.shares],
        100,
        words=("task", "group"),
        form=".1f",
        framed={(task, groups[own]) for task, own in zip(found.tasks, found.own, strict=True)},
        title=trial,
        shown=shown,
    )
