"""Accuracy of each task over the stages: heat maps of whole matrices, and forgetting curves."""

from __future__ import annotations

from dataclasses import replace

from mcit_core.methods import ORDERLESS
from orchestration.keep.tables import Row, text_in
from orchestration.report.charts import (
    ONCE,
    Datum,
    Figure,
    Panel,
    Spec,
    colour,
    dash,
    heat_map,
    layers,
    quantity,
    shape,
    told,
)
from orchestration.report.context import Context
from orchestration.results.matrices import AccuracyMatrix, accuracy_matrix, mean_matrix
from orchestration.results.settings import Setting
from orchestration.results.verdicts import plural

#: settings and orders that are drawn at first
MOST_MAPS = 12
MOST_LINES = 7


def _has_matrix(setting: Setting) -> bool:
    """What goes through no sequence has none."""
    return setting.method not in ORDERLESS


def matrices_of(context: Context, rows: list[Row]) -> list[AccuracyMatrix]:
    """The accuracy matrices of the trials that have one."""
    stages = context.results.stages
    matrices = [
        accuracy_matrix(stages.get(text_in(row, "trial"), []), text_in(row, "order").split(">")) for row in rows
    ]
    return [matrix for matrix in matrices if matrix.tasks]


def mean_of(context: Context, rows: list[Row]) -> AccuracyMatrix:
    """The mean accuracy matrix of trials of one order."""
    return mean_matrix(matrices_of(context, rows))


def matrices_figure(context: Context) -> Figure | None:
    """Accuracy matrices, one a setting and order; None where nothing has one."""
    orders = context.results.orders
    panels = [
        panel
        for order in orders
        for summary in context.ranked
        if _has_matrix(summary.setting) and (rows := context.rows(summary.setting, order))
        if (panel := _heat_map(context, summary.setting, order, rows)) is not None
    ]
    if not panels:
        return None
    picked = context.picked(max(2, MOST_MAPS // max(1, len(orders))), {panel.setting for panel in panels})
    # so many orders of the settings that are picked
    first = {id(panel) for panel in [one for one in panels if one.setting in picked][:MOST_MAPS]}
    panels = [replace(panel, shown=panel.setting not in picked or id(panel) in first) for panel in panels]
    caption = (
        "Test accuracy in per cent on the tasks (columns) after every stage (rows), averaged over seeds; blank cells "
        "enter no metric and were not evaluated (evaluation.cells: all evaluates them). A frame marks the task that "
        "the stage has just learned; beneath a frame one reads forgetting, directly above it forward transfer."
    )
    figure = Figure(
        "Accuracy matrices", caption, panels, picked=picked, columns=3, most=460, picker="setting and order"
    )
    left = len(panels) - len(figure.shown())
    return replace(
        figure, caption=f"{caption} {len(panels) - left} of {len(panels)} are drawn at first." if left else caption
    )


def _heat_map(context: Context, setting: Setting, order: str, trials: list[Row]) -> Panel | None:
    matrix = mean_of(context, trials)
    if not matrix.tasks:
        return None
    label = context.label(setting)
    where = f", order {context.results.orders.index(order) + 1}" if len(context.results.orders) > 1 else ""
    where = "" if where[2:] and where[2:] in label else where
    untouched = any(value is not None for value in matrix.untouched)
    values = ([matrix.untouched] if untouched else []) + matrix.values
    stages = [f"{t + 1} {task}" for t, task in enumerate(matrix.tasks)]
    return heat_map(
        (["untouched"] if untouched else []) + stages,
        matrix.tasks,
        [[None if value is None else 100 * value for value in row] for row in values],
        100,
        words=("after", "tested on"),
        framed=set(zip(stages, matrix.tasks, strict=True)),
        title=f"{label}{where} · {plural(len(trials), 'trial')}",
        setting=label,
    )


def forgetting_figures(context: Context) -> list[Figure]:
    """Accuracy of every task over the stages, one figure an order."""
    return [figure for order in context.results.orders if (figure := _order_curves(context, order))]


def _order_curves(context: Context, order: str) -> Figure | None:
    tasks = order.split(">")
    lines = [
        (setting, mean_of(context, rows))
        for setting in context.settings
        if _has_matrix(setting) and (rows := context.rows(setting, order))
    ]
    lines = [(setting, matrix) for setting, matrix in lines if matrix.tasks == tasks]
    if not lines:
        return None
    panels = [
        Panel(f"{j + 1} {task}", _curves(j, len(tasks)), _curve_rows(context, lines, j), 200)
        for j, task in enumerate(tasks)
    ]
    picked = context.picked(MOST_LINES, {context.label(setting) for setting, _ in lines})
    number = f"Order {context.results.orders.index(order) + 1}: " if len(context.results.orders) > 1 else ""
    caption = (
        f"{number}{' → '.join(tasks)}. One panel a task, after each stage that evaluated it (0: the untouched model); "
        "the shaded stage learns the task, and what is lost to its right is forgetting. Means over seeds."
    )
    drawn = sum(context.label(setting) in picked for setting, _ in lines)
    caption += f" {drawn} of {len(lines)} settings are drawn at first." if drawn < len(lines) else ""
    return Figure(
        f"Accuracy of each task over the stages, {order}",
        caption,
        panels,
        [context.styles[setting] for setting, _ in lines],
        picked=picked,
        columns=4,
        most=420,
    )


def _curve_rows(context: Context, lines: list[tuple[Setting, AccuracyMatrix]], task: int) -> list[Datum]:
    return [
        {"setting": context.label(setting), "task": matrix.tasks[task], "stage": stage, "accuracy": 100 * value}
        for setting, matrix in lines
        for stage, value in enumerate([matrix.untouched[task], *(row[task] for row in matrix.values)])
        if value is not None
    ]


def _curves(learned: int, stages: int) -> Spec:
    x = {
        "field": "stage",
        "type": "quantitative",
        "title": "stage",
        "scale": {"domain": [-0.3, stages + 0.5], "nice": False},
        "axis": {"values": list(range(stages + 1)), "format": "d", "grid": False},
    }
    y = quantity("accuracy", "per cent", (-3, 103))
    tooltip = told(setting="setting", task="task", stage="after stage", accuracy="accuracy|.1f")
    shade = {
        "data": ONCE,
        "mark": {"type": "rect", "color": "#E69F00", "opacity": 0.16, "tooltip": False},
        "encoding": {"x": {"datum": learned + 0.5}, "x2": {"datum": learned + 1.5}},
    }
    line = {
        "mark": {"type": "line", "strokeWidth": 1.6, "clip": True},
        "encoding": {"x": x, "y": y, "color": colour("setting"), "strokeDash": dash("setting")},
    }
    points = {
        "mark": {"type": "point", "filled": True, "size": 34, "clip": True},
        "encoding": {"x": x, "y": y, "color": colour("setting"), "shape": shape("setting"), "tooltip": tooltip},
    }
    return layers(shade, line, points, height=170)
