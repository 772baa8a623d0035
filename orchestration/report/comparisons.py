"""Settings beside one another: accuracy against forgetting, orders, and where the time went."""

from __future__ import annotations

import html

from matplotlib.axes import Axes

from orchestration.keep.tables import Row, text_in
from orchestration.report.context import Context
from orchestration.report.drawing import as_html, fit_limits, new_figure, percent
from orchestration.results.estimates import Estimate, estimate
from orchestration.results.pareto import pareto_front
from orchestration.results.settings import Setting, estimate_rows

MOST_SETTINGS = 24
MOST_REFERENCES = 8
SPENT = ("seconds/train", "seconds/evaluate")
Place = tuple[Setting, Estimate, Estimate]  # forgetting, average accuracy


def pareto_figure(context: Context) -> str | None:
    """Average accuracy against forgetting; the settings that no other beats in both are joined."""
    points = [
        (summary.setting, summary.metric("forgetting"), summary.metric("average_accuracy"))
        for summary in context.ranked
        if summary.metric("forgetting").n and summary.metric("average_accuracy").n
    ]
    if not points:
        return None
    references = [point for point in points if point[0].is_reference][:MOST_REFERENCES]
    shown = [point for point in points if not point[0].is_reference][: MOST_SETTINGS - len(references)] + references
    figure, (panel,) = new_figure(max(4.6, 1.2 + 0.24 * len(shown)))
    for number, point in enumerate(shown, start=1):
        _point(context, panel, number, point)
    front = pareto_front([(100 * (x.mean or 0.0), 100 * (y.mean or 0.0)) for _, x, y in shown])
    panel.plot([x for x, _ in front], [y for _, y in front], color="#bbbbbb", linewidth=1.2, zorder=1)
    cut = fit_limits(panel, percent([y.mean for _, _, y in shown]), [y for _, _, y in shown])
    cut |= fit_limits(panel, percent([x.mean for _, x, _ in shown]), [x for _, x, _ in shown], vertical=False)
    panel.set_xlabel("forgetting, points (further left is better)")
    panel.set_ylabel("average accuracy, per cent (further up is better)")
    figure.legend(*panel.get_legend_handles_labels(), loc="outside right center", fontsize=9, frameon=False)
    caption = "Means, from three seeds on with 95 % intervals, which say how much of the differences may be chance."
    caption += (
        " The grey line joins the settings that no other one beats in both."
        if len(front) > 1
        else (" One setting is best in both." if len(shown) > 1 else "")
    )
    caption += " Some intervals are cut at the panel's edge." if cut else ""
    left = len(points) - len(shown)
    caption += f" The best on validation rows are drawn, and references; {left} settings are not." if left else ""
    return as_html(figure, caption, "Average accuracy against forgetting")


def _point(context: Context, panel: Axes, number: int, point: Place) -> None:
    setting, x, y = point
    style = context.styles[setting]
    centre = (100 * (x.mean or 0.0), 100 * (y.mean or 0.0))
    panel.errorbar(
        *centre,
        xerr=100 * (x.half_width or 0.0),
        yerr=100 * (y.half_width or 0.0),
        color=style.colour,
        marker=style.marker,
        linestyle="none",
        elinewidth=0.7,
        capsize=2,
        alpha=0.9,
        zorder=3,
        label=f"{number}  {context.label(setting)}",
    )
    panel.annotate(
        str(number),
        centre,
        xytext=(5, 5),
        textcoords="offset points",
        fontsize=9,
        fontweight="bold",
        color=style.colour,
        zorder=4,
    )


def order_figure(context: Context) -> str | None:
    """Average accuracy of every setting under every order."""
    orders = context.results.orders
    settings = [setting for setting in context.pick(8) if context.rows(setting)]
    if len(orders) < 2 or not settings:
        return None
    figure, (panel,) = new_figure(max(3.2, 0.9 + 0.5 * len(orders)))
    centres: list[float] = []
    shown: list[Estimate] = []
    for i, setting in enumerate(settings):
        style = context.styles[setting]
        found = [estimate_rows(context.rows(setting, order), "average_accuracy") for order in orders]
        drawn = [(n + 0.07 * (i - len(settings) / 2), e) for n, e in enumerate(found) if e.mean is not None]
        panel.errorbar(
            percent([e.mean for _, e in drawn]),
            [y for y, _ in drawn],
            xerr=[100 * (e.half_width or 0.0) for _, e in drawn],
            color=style.colour,
            marker=style.marker,
            linestyle="none",
            capsize=2,
            elinewidth=1,
            label=context.label(setting),
        )
        centres += percent([e.mean for _, e in drawn])
        shown += [e for _, e in drawn]
    cut = fit_limits(panel, centres, shown, vertical=False)
    panel.set_yticks(range(len(orders)), [f"order {n}" for n in range(1, len(orders) + 1)])
    panel.invert_yaxis()
    panel.set_xlabel("average accuracy, per cent")
    figure.legend(*panel.get_legend_handles_labels(), loc="outside right center", frameon=False)
    caption = "Means over the seeds, from three on with 95 % intervals."
    caption += " Some intervals are cut at the panel's edge." if cut else ""
    return as_html(figure, f"{caption} {html.escape(order_words(context, settings))}", "Average accuracy by order")


def order_words(context: Context, settings: list[Setting]) -> str:
    """How much the order matters beside the seed, for each setting on average."""
    ranges, spreads = [], []
    for setting in settings:
        found = [estimate_rows(context.rows(setting, order), "average_accuracy") for order in context.results.orders]
        means = [e.mean for e in found if e.mean is not None]
        ranges += [max(means) - min(means)] if len(means) > 1 else []
        spreads += [e.spread for e in found if e.spread is not None]
    if not ranges:
        return "No setting finished under two orders."
    moved = 100 * (estimate(ranges).mean or 0.0)
    text = f"From its best to its worst order a setting moves {moved:.1f} points on average"
    spread = estimate(spreads).mean
    if spread is None:
        return text + "; one seed per order, so the seeds' own spread is unknown."
    return text + f"; between seeds of one order the standard deviation is {100 * spread:.1f} points."


def time_figure(context: Context) -> str | None:
    """Seconds of a trial spent training and evaluating: of the CPU where all have them, else by the clock."""
    rows = [(row, context.results.stages.get(text_in(row, "trial"), [])) for row in context.results.finished]
    cpu = all(
        f"{name}_cpu" in stage.metrics
        for _, stages in rows
        for stage in stages
        for name in SPENT
        if name in stage.metrics
    )
    spent: dict[tuple[Setting, str], list[float]] = {}
    for row, stages in rows:
        for name in SPENT:
            measured = f"{name}_cpu" if cpu else name
            seconds = [stage.metrics[measured] for stage in stages if measured in stage.metrics]
            if seconds:
                spent.setdefault((context.setting_of(row), name), []).append(sum(seconds))
    settings = [s for s in context.settings if any(setting == s for setting, _ in spent)][:MOST_SETTINGS]
    if not settings:
        return None
    figure, (panel,) = new_figure(1.2 + 0.3 * len(settings))
    left = [0.0] * len(settings)
    for name, colour in zip(SPENT, ("#0072B2", "#E69F00"), strict=True):
        widths = [estimate(spent.get((setting, name), [])).mean or 0.0 for setting in settings]
        panel.barh(range(len(settings)), widths, left=left, color=colour, label=name.split("/")[1], height=0.65)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    panel.set_yticks(range(len(settings)), [context.label(setting) for setting in settings])
    panel.invert_yaxis()
    panel.grid(visible=False, axis="y")
    panel.set_xlabel(f"{'CPU ' if cpu else ''}seconds per trial, summed over its stages")
    figure.legend(*panel.get_legend_handles_labels(), loc="outside right center", frameon=False)
    caption = "Mean over finished trials. A stage taken from the store counts with the seconds recorded for it. " + (
        "CPU seconds are those of the worker's own threads; a GPU's are not in them."
        if cpu
        else "Seconds are by the clock, on a machine that trials share: no measure of a method's cost."
    )
    return as_html(figure, caption, "Seconds per trial")


def rows_by_order(context: Context, setting: Setting) -> dict[str, list[Row]]:
    """A setting's finished trials by order, in the orders' order."""
    found = {order: context.rows(setting, order) for order in context.results.orders}
    return {order: rows for order, rows in found.items() if rows}
