"""Which group of tasks answered, where a method sends every row to one by its instruction."""

from __future__ import annotations

from orchestration.keep.tables import text_in
from orchestration.report.blocks import Section, Text
from orchestration.report.charts import Figure, Panel, heat_map
from orchestration.report.context import Context
from orchestration.results.routing import Routing, mean_routing, routing_of
from orchestration.results.verdicts import plural

#: means of settings, or trials, that are drawn at first
MOST = 4


def routing_section(context: Context) -> Section | None:
    """None where no trial has groups. A setting's mean first, where its trials have the same groups; then trials."""
    panels: list[Panel] = []
    trials: list[Panel] = []
    for setting in context.settings:
        of_trial = {
            text_in(row, "trial"): found
            for row in context.rows(setting)
            if (found := routing_of(context.results.stages.get(text_in(row, "trial"), []))) is not None
        }
        mean = mean_routing(list(of_trial.values()))
        if mean is not None and len(of_trial) > 1:
            title = f"{context.label(setting)} · mean of {plural(len(of_trial), 'trial')}"
            panels.append(_panel(mean, title, len(panels) < MOST))
        alone = mean is None or len(of_trial) == 1
        trials += [_panel(found, name, alone and len(trials) < MOST) for name, found in of_trial.items()]
    panels += trials
    if not panels:
        return None
    words = (
        "Per cent of a task's test rows that each group answered, after the last stage; a frame marks the task's own "
        "group. What another group answered, it answered by weights that are not this task's own."
    )
    shown = sum(panel.shown for panel in panels)
    left = f" {shown} of {len(panels)} are drawn at first." if shown < len(panels) else ""
    figure = Figure("Which group answered", words + left, panels, picker="setting or trial", most=520)
    return "Which group answered", [Text("Every row is sent to one group of tasks by its instruction.", "note"), figure]


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
