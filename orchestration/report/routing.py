"""Which group of tasks answered, where a method sends every row to one by its instruction."""

from __future__ import annotations

from orchestration.keep.tables import text_in
from orchestration.report.blocks import Block, Section, Text
from orchestration.report.charts import Figure, Panel, heat_map
from orchestration.report.context import Context

#: trials that are drawn at first
MOST = 4


def routing_section(context: Context) -> Section | None:
    """None where no trial has groups."""
    panels: list[Panel] = []
    for row in context.results.finished:
        stages = context.results.stages.get(text_in(row, "trial"), [])
        panel = _panel(stages[-1].metrics, text_in(row, "trial"), len(panels) < MOST) if stages else None
        panels += [panel] if panel is not None else []
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


def _panel(metrics: dict[str, float], trial: str, shown: bool) -> Panel | None:
    own = {
        name.removeprefix("grouping/group/"): int(v)
        for name, v in metrics.items()
        if name.startswith("grouping/group/")
    }
    if not own:
        return None
    groups = range(max(own.values()) + 1)
    names = [" + ".join(task for task, group in own.items() if group == i) for i in groups]
    shares = [[metrics.get(f"grouping/sent/{task}/{i}") for i in groups] for task in own]
    return heat_map(
        list(own),
        names,
        [[None if share is None else 100 * share for share in line] for line in shares],
        100,
        words=("task", "group"),
        form=".1f",
        framed={(task, names[group]) for task, group in own.items()},
        title=trial,
        shown=shown,
    )
