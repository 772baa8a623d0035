"""The headline metrics along one axis of the sweep: curves for numbers, dots for names."""

from __future__ import annotations

import html

from matplotlib.axes import Axes
from pydantic import JsonValue

from mcit_core.methods import REFERENCES
from mcit_core.metrics import headline_names
from orchestration.keep.tables import Row, text_in
from orchestration.report.context import MARKERS, PALETTE, REFERENCE_STYLE, Context, Style
from orchestration.report.drawing import (
    as_html,
    draw_estimates,
    draw_trials,
    fit_limits,
    legend_below,
    new_figure,
    percent,
    say_missing,
    title,
)
from orchestration.report.findings import missing_reason
from orchestration.results.comparisons import baseline_of
from orchestration.results.estimates import Estimate, present
from orchestration.results.settings import setting_axes
from orchestration.results.words import format_value, short_axis_names

Group = tuple[str, Style, list[Row]]


def axis_figures(context: Context) -> list[str]:
    """One figure an axis."""
    return [_axis_figure(context, axis) for axis in (*context.numeric_axes(), *context.categorical_axes())]


def _axis_figure(context: Context, axis: str) -> str:
    groups, pooled = _groups(context, axis)
    metrics = headline_names()
    rows = -(-len(metrics) // 2)
    figure, panels = new_figure(3.6 * rows, rows, 2)
    for panel in panels[len(metrics) :]:
        panel.set_axis_off()
    cut = False
    for panel, metric in zip(panels, metrics, strict=False):
        if any(present([row.get(metric)]) for _, _, rows in groups for row in rows):
            cut |= _panel(context, panel, groups, metric, axis)
        else:
            say_missing(panel, missing_reason(context, metric))
        panel.set_title(title(metric))
    legend_below(figure, panels)
    notes = [
        f"<b>{html.escape(axis)}.</b> Means in per cent, from three seeds on with 95 % intervals.",
        "Faint dots are single trials.",
        "Values are evenly spaced along the axis, whatever their distance." if axis in context.numeric_axes() else "",
        f"Averaged over {html.escape(', '.join(pooled))} within each seed and order." if pooled else "",
        "Some intervals reach beyond their panel and are cut at its edge." if cut else "",
    ]
    return as_html(figure, " ".join(note for note in notes if note), f"Headline metrics along {axis}")


def _groups(context: Context, axis: str) -> tuple[list[Group], list[str]]:
    """One line per combination of method and the other axes; more than fit are pooled, and the axes' names returned."""
    others = [name for name in setting_axes(context.results.axes) if name != axis]
    short = short_axis_names(context.results.axes)
    combinations: dict[tuple[str, tuple[JsonValue, ...]], list[Row]] = {}
    for row in context.results.finished:
        if row["method"] not in REFERENCES:
            method = text_in(row, "method") if axis != "method" else ""
            combinations.setdefault((method, tuple(row.get(name) for name in others)), []).append(row)
    if len(combinations) > len(PALETTE):
        rows = [row for group in combinations.values() for row in group]
        return [("all settings", Style(PALETTE[0], MARKERS[0]), rows)], others
    groups = []
    for i, ((method, rest), rows) in enumerate(combinations.items()):
        words = [f"{short[name]} {format_value(value)}" for name, value in zip(others, rest, strict=True)]
        label = ", ".join([method, *words] if len(context.methods) > 1 and method else words) or method or "mean"
        groups.append((label, Style(PALETTE[i], MARKERS[i]), rows))
    return groups, []


def _panel(context: Context, panel: Axes, groups: list[Group], metric: str, axis: str) -> bool:
    """Draw one metric; True where an interval had to be cut."""
    values = context.axis_values(axis)
    numeric = axis in context.numeric_axes()
    shown: list[Estimate] = []
    centres: list[float] = []
    for i, (label, style, rows) in enumerate(groups):
        shift = 0.08 * (i - (len(groups) - 1) / 2)
        line = style if numeric else Style(style.colour, style.marker, "none")
        found = []
        for position, value in enumerate(values):
            here = [row for row in rows if row.get(axis) == value]
            draw_trials(panel, position + shift, here, metric, style.colour)
            centres += percent(present(row.get(metric) for row in here))
            found.append(context.estimate(here, metric))
        draw_estimates(panel, [position + shift for position in range(len(values))], found, line, label)
        shown += found
    centres += _references(context, panel, metric, axis)
    names = [format_value(value) for value in values]
    crowded = sum(map(len, names)) > 60
    if crowded:
        panel.set_xticks(range(len(values)), names, rotation=60, ha="right", rotation_mode="anchor")
    else:
        panel.set_xticks(range(len(values)), names)
    panel.set_xlim(-0.4, len(values) - 0.6)
    panel.set_xlabel(axis)
    panel.set_ylabel("per cent" if metric == "average_accuracy" else "points")
    return fit_limits(panel, centres, shown)


def _references(context: Context, panel: Axes, metric: str, axis: str) -> list[float]:
    """References as level lines, or as curves where the axis applies to them; where methods are compared each has the
    references of its own tuner. Returns the heights drawn."""
    values = context.axis_values(axis)
    heights: list[float] = []
    for method in REFERENCES:
        rows = [row for row in context.results.finished if row["method"] == method]
        colour, dashes = REFERENCE_STYLE[method]
        if axis == "method":
            levels = [(i, _own_reference(context, str(value), method, metric)) for i, value in enumerate(values)]
            there = [(i, 100 * level) for i, level in levels if level is not None]
            if there:
                places, found_levels = zip(*there, strict=True)
                left, right = [i - 0.35 for i in places], [i + 0.35 for i in places]
                panel.hlines(found_levels, left, right, color=colour, linestyle=dashes, linewidth=1.5, label=method)
                heights += found_levels
            continue
        if any(row.get(axis) is not None for row in rows):
            found = [context.estimate((row for row in rows if row.get(axis) == value), metric).mean for value in values]
            panel.plot(range(len(values)), percent(found), color=colour, linestyle=dashes, linewidth=1.5, label=method)
            heights += percent(present(found))
            continue
        level = context.estimate(rows, metric).mean
        if level is not None:
            panel.axhline(100 * level, color=colour, linestyle=dashes, linewidth=1.5, label=method, zorder=1)
            heights.append(100 * level)
    return heights


def _own_reference(context: Context, method: str, reference: str, metric: str) -> float | None:
    """The mean of a method's own reference: same tuner, same settings of it."""
    settings = [summary.setting for summary in context.summaries]
    own = next((setting for setting in settings if setting.method == method and not setting.is_reference), None)
    found = baseline_of(own, settings, reference) if own else None
    if found is None:
        return None
    return context.estimate((row for row in context.results.finished if found.matches(row)), metric).mean
