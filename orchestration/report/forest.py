"""The main figure: paired differences from sequential, one line a setting, with their intervals."""

from __future__ import annotations

from mcit_core.metrics import CATALOGUE, headline_names
from orchestration.report.charts import (
    ONCE,
    PAGE,
    SOFT,
    Datum,
    Figure,
    Panel,
    Series,
    colour,
    interval_ends,
    layers,
    limits,
    names,
    quantity,
    room_for,
    told,
    with_intervals,
)
from orchestration.report.context import Context
from orchestration.results.comparisons import Comparison
from orchestration.results.settings import Setting
from orchestration.results.verdicts import TOLD, verdict

#: settings that are drawn at first, the best ones on validation rows
MOST = 30
#: metrics that are shown at first
FIRST = ("average_accuracy", "forgetting")
COLOURS = {"better": "#0072B2", "worse": "#D55E00"}


def forest_figure(context: Context) -> Figure | None:
    """None where nothing can be compared with sequential."""
    found: dict[tuple[Setting, str], Comparison] = {
        (one.setting, one.metric): one for one in context.compared.with_sequential if one.difference.mean is not None
    }
    metrics = [name for name in headline_names() if any(metric == name for _, metric in found)]
    every = [one.setting for one in context.ranked if any((one.setting, name) in found for name in metrics)]
    if not every:
        return None
    panels, cut = [], False
    for metric in metrics:
        panel, here = _panel(context, metric, [found[one, metric] for one in every if (one, metric) in found])
        panels.append(panel)
        cut |= here and panel.shown
    caption = (
        "Means over seeds of the differences between trials of the same seed and order, with 95 % intervals where "
        "there are three seeds. Filled: told from zero among all that this report compares (Holm); hollow: not told. "
        "The best on validation rows first."
    )
    caption += f" {MOST} of {len(every)} settings are drawn." if len(every) > MOST else ""
    caption += " Some intervals are cut at the panel's edge." if cut else ""
    picked = frozenset(context.label(setting) for setting in every[:MOST])
    judged = dict.fromkeys(str(row["verdict"]) for panel in panels for row in panel.rows)
    series = [Series(words, COLOURS.get(words, "#888888")) for words in judged]
    return Figure("Differences from sequential", caption, panels, series, key="verdict", picker="metric", picked=picked)


def _panel(context: Context, metric: str, found: list[Comparison]) -> tuple[Panel, bool]:
    """And whether an interval is cut."""
    rows: list[Datum] = []
    for one in found:
        judged = verdict(metric, one.difference, one.p_holm)
        rows.append(
            {
                "setting": context.label(one.setting),
                "metric": CATALOGUE[metric].title,
                "difference": 100 * (one.difference.mean or 0.0),
                **interval_ends(one.difference),
                "p_holm": one.p_holm,
                "seeds": one.difference.n,
                "verdict": judged,
                "told": judged in TOLD,
            }
        )
    drawn = found[:MOST]
    ends, cut = limits([*(100 * (one.difference.mean or 0.0) for one in drawn), 0.0], [one.difference for one in drawn])
    better = "right" if CATALOGUE[metric].better == "higher" else "left"
    x = quantity("difference", f"points, {better} is better", ends)
    y = names("setting", axis={"grid": False})
    tooltip = told(
        setting="setting",
        difference="difference, points|+.2f",
        low="95 % from|+.2f",
        high="to|+.2f",
        p_holm="p (Holm)|.3f",
        seeds="seeds",
        verdict="verdict",
    )
    bars = {
        "mark": {"type": "rule", "clip": True, "strokeWidth": 1.8},
        "encoding": {
            "x": {**x, "field": "low"},
            "x2": {"field": "high"},
            "y": y,
            "color": colour("verdict"),
            "tooltip": tooltip,
        },
    }
    spec = layers(
        *with_intervals(rows, bars),
        {
            "data": ONCE,
            "mark": {"type": "rule", "color": SOFT, "clip": True, "tooltip": False},
            "encoding": {"x": {"datum": 0}},
        },
        {
            "mark": {"type": "point", "clip": True, "size": 60, "strokeWidth": 1.8},
            "encoding": {
                "x": x,
                "y": y,
                "color": colour("verdict"),
                "fill": {
                    "condition": {"test": "datum.told", **dict(colour("verdict"))},
                    "value": PAGE,
                },
                "tooltip": tooltip,
            },
        },
        height={"step": 24},
        zoom=["x"],
    )
    least = room_for(row["setting"] for row in rows if isinstance(row["setting"], str)) + 230
    words = f"{CATALOGUE[metric].title} against sequential"
    return Panel(words, spec, rows, least, shown=metric in FIRST), cut
