"""Accuracy of each task over the stages: heat maps of whole matrices, and forgetting curves."""

from __future__ import annotations

import html

import numpy as np
from matplotlib.patches import Rectangle

from mcit_core.methods import ORDERLESS
from orchestration.keep.tables import Row, text_in
from orchestration.report.comparisons import rows_by_order
from orchestration.report.context import Context
from orchestration.report.drawing import as_html, draw_grid, legend_below, new_figure, percent
from orchestration.results.matrices import AccuracyMatrix, accuracy_matrix, mean_matrix
from orchestration.results.settings import Setting
from orchestration.results.verdicts import plural

MOST_MAPS = 12
MOST_ORDERS = 4
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


def heat_maps(context: Context) -> tuple[list[str], str]:
    """Accuracy matrices, one a setting and order, and a sentence about what is left out."""
    every = [
        (setting, order, rows)
        for setting in context.settings
        if _has_matrix(setting)
        for order, rows in rows_by_order(context, setting).items()
    ]
    orders = context.results.orders
    picked = context.pick(max(2, MOST_MAPS // max(1, len(orders))))
    shown = sorted((item for item in every if item[0] in picked), key=lambda item: orders.index(item[1]))[:MOST_MAPS]
    figures = []
    for setting, order, rows in shown:
        matrix = mean_of(context, rows)
        if not matrix.tasks:
            continue
        where = f", order {context.results.orders.index(order) + 1}" if len(context.results.orders) > 1 else ""
        label = context.label(setting)
        where = "" if where[2:] and where[2:] in label else where
        caption = f"<b>{html.escape(label + where)}</b> · {plural(len(rows), 'trial')}"
        figures.append(_heat_map(matrix, caption, f"Accuracy matrix of {label}{where}"))
    if len(every) <= len(shown):
        return figures, ""
    return figures, f"{len(shown)} of {len(every)} matrices are shown; accuracy.parquet has them all."


def _heat_map(matrix: AccuracyMatrix, caption: str, alt: str) -> str:
    count = len(matrix.tasks)
    untouched = any(value is not None for value in matrix.untouched)
    values = ([matrix.untouched] if untouched else []) + matrix.values
    stages = (["untouched"] if untouched else []) + [f"{t + 1} {task}" for t, task in enumerate(matrix.tasks)]
    figure, (panel,) = new_figure(1.0 + 0.27 * len(values), width=min(5.1, 1.0 + 0.36 * count))
    grid = np.array([percent(row) for row in values])
    draw_grid(panel, grid, stages, matrix.tasks, 100, size=8 if count <= 8 else 7)
    panel.spines[:].set_visible(False)
    first = 1 if untouched else 0
    for t in range(count):
        frame = Rectangle((t - 0.5, t + first - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=1.4)
        panel.add_patch(frame)
    return as_html(figure, caption, alt)


def forgetting_curves(context: Context) -> tuple[list[str], str]:
    """Accuracy of every task over the stages, one figure an order."""
    settings = [setting for setting in context.pick(MOST_LINES) if _has_matrix(setting)]
    orders = context.results.orders
    figures = [figure for order in orders[:MOST_ORDERS] if (figure := _order_curves(context, order, settings))]
    left = len(orders) - MOST_ORDERS
    note = f"The first {MOST_ORDERS} of {len(orders)} orders are drawn." if left > 0 and figures else ""
    total = sum(bool(summary.finished) and _has_matrix(summary.setting) for summary in context.summaries)
    if figures and len(settings) < total:
        note += f" {len(settings)} of {total} settings are drawn."
    return figures, note.strip()


def _order_curves(context: Context, order: str, settings: list[Setting]) -> str | None:
    tasks = order.split(">")
    lines = [(setting, mean_of(context, rows)) for setting in settings if (rows := context.rows(setting, order))]
    lines = [(setting, matrix) for setting, matrix in lines if matrix.tasks == tasks]
    if not lines:
        return None
    columns = min(4, len(tasks))
    height = -(-len(tasks) // columns)
    figure, panels = new_figure(0.9 + 2.0 * height, height, columns, sharey=True)
    for panel in panels[len(tasks) :]:
        panel.set_axis_off()
    for j, task in enumerate(tasks):
        panels[j].axvspan(j - 0.5, j + 0.5, color="#f0e6d2", zorder=0, linewidth=0)
        for setting, matrix in lines:
            style = context.styles[setting]
            heights = [matrix.untouched[j], *(row[j] for row in matrix.values)]
            panels[j].plot(
                range(-1, len(tasks)),
                percent(heights),
                color=style.colour,
                marker=style.marker,
                markersize=4,
                linestyle=style.line,
                linewidth=1.4,
                label=context.label(setting),
            )
        panels[j].set_title(f"{j + 1} {task}")
        panels[j].set_xticks(range(-1, len(tasks)), ["0", *(str(t + 1) for t in range(len(tasks)))])
        panels[j].set_ylim(-3, 103)
    for j in range(0, len(tasks), columns):
        panels[j].set_ylabel("accuracy, per cent")
    legend_below(figure, panels)
    number = f"Order {context.results.orders.index(order) + 1}: " if len(context.results.orders) > 1 else ""
    words = html.escape(number + " → ".join(tasks))
    caption = (
        f"{words}. One panel a task, after each stage that evaluated it (0: the untouched model); the "
        "shaded stage learns the task, and what is lost to its right is forgetting. Means over seeds."
    )
    return as_html(figure, caption, f"Accuracy of each task over the stages, {order}")
