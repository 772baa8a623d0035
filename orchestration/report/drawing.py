"""The look of the figures, and how one becomes part of the page."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mcit_core.metrics import CATALOGUE
from orchestration.keep.tables import Row
from orchestration.report.context import Style
from orchestration.results.estimates import Estimate, present

#: settings that hold while the whole report is drawn; names may contain dollar signs, so no mathematics is parsed
LOOK = {
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.labelcolor": "#333333",
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "svg.hashsalt": "report",
    "svg.fonttype": "path",
}
WIDTH = 10.4  # inches; as wide as the page's text column
Estimates = Sequence[Estimate]


def new_figure(
    height: float, rows: int = 1, columns: int = 1, *, width: float = WIDTH, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure and its panels, row by row; `sharey`: one scale for all."""
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    return figure, list(panels.flat)


@dataclass(frozen=True)
class Drawn:
    """A figure as the page has it. caption: HTML; alt: what it shows, in a few words."""

    figure: Figure
    caption: str
    alt: str


_collected: ContextVar[list[Drawn] | None] = ContextVar("collected", default=None)


@contextmanager
def collecting() -> Iterator[list[Drawn]]:
    """Inside, figures are gathered in the list and not made into HTML."""
    found: list[Drawn] = []
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def as_html(figure: Figure, caption: str, alt: str) -> str:
    """The figure as an inlined SVG image with its caption (HTML)."""
    gathered = _collected.get()
    if gathered is not None:
        gathered.append(Drawn(figure, caption, alt))
        return " "
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    width = round(figure.get_figwidth() * 96)
    return (
        f'<figure><img src="data:image/svg+xml;base64,{data}" alt="{html.escape(alt)}" width="{width}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def draw_grid(
    axes: Axes,
    grid: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    most: float,
    *,
    size: float | None = None,
    form: str = "{:.0f}",
    signed: bool = False,
) -> None:
    """A heat map of [rows, columns] from 0, or where `signed` from -most, to `most`, each number written in its cell;
    size: of all text, None for the usual one."""
    shade, low = ("PuOr", -most) if signed else ("Blues", 0)
    axes.imshow(np.ma.masked_invalid(grid), cmap=shade, vmin=low, vmax=most, aspect="auto")
    axes.grid(visible=False)
    for (row, column), value in np.ndenumerate(grid):
        if np.isfinite(value):
            text, colour = form.format(value).replace("-", "−"), "white" if abs(value) > 0.6 * most else "#222222"
            axes.text(column, row, text, ha="center", va="center", fontsize=size or 8, color=colour)
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="left", rotation_mode="anchor", fontsize=size)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(rows)), rows, fontsize=size)
    axes.tick_params(length=0)


def percent(values: Sequence[float | None]) -> list[float]:
    """Values in per cent; NaN where missing, which matplotlib leaves blank."""
    return [float("nan") if value is None else 100 * value for value in values]


def draw_estimates(axes: Axes, positions: Sequence[float], found: Estimates, style: Style, label: str) -> None:
    """Means joined by a line, with their 95 % intervals as bars."""
    shown = [(x, e) for x, e in zip(positions, found, strict=True) if e.mean is not None]
    bars = [100 * (estimate.half_width or 0.0) for _, estimate in shown]
    axes.errorbar(
        [x for x, _ in shown],
        percent([e.mean for _, e in shown]),
        yerr=bars,
        color=style.colour,
        marker=style.marker,
        linestyle=style.line,
        capsize=3,
        elinewidth=1.2,
        label=label,
        zorder=3,
    )


def draw_trials(axes: Axes, position: float, rows: Sequence[Row], metric: str, colour: str) -> None:
    """The single trials behind a mean, as faint dots."""
    values = present(row.get(metric) for row in rows)
    axes.scatter([position] * len(values), percent(values), s=14, color=colour, alpha=0.35, linewidths=0, zorder=2)


def fit_limits(axes: Axes, centres: Sequence[float], found: Estimates, vertical: bool = True) -> bool:
    """Scale to the means and trials (`centres`, per cent); intervals may stretch it threefold. True if one is cut."""
    ends = [100 * (e.mean + sign * (e.half_width or 0.0)) for e in found if e.mean is not None for sign in (-1, 1)]
    if not centres:
        return False
    low, high = min(centres), max(centres)
    room = max(high - low, 4.0)
    bottom = max(min([low, *ends]), low - room) - 0.08 * room
    top = min(max([high, *ends]), high + room) + 0.08 * room
    (axes.set_ylim if vertical else axes.set_xlim)(bottom, top)
    return any(end < bottom or end > top for end in ends)


def title(metric: str) -> str:
    """A metric's name with the direction that is better."""
    better = {"higher": "higher is better", "lower": "lower is better", "": ""}[CATALOGUE[metric].better]
    return f"{CATALOGUE[metric].title} ({better})"


def say_missing(axes: Axes, reason: str) -> None:
    """An empty panel that says why it is empty."""
    axes.set_axis_off()
    axes.text(
        0.5, 0.5, reason, ha="center", va="center", color="#666666", style="italic", wrap=True, transform=axes.transAxes
    )


def legend_below(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend for all panels, underneath."""
    entries: dict[str, Artist] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        columns = math.ceil(len(entries) / math.ceil(len(entries) / 5))
        figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns, fontsize=9)
