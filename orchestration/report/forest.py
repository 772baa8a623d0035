"""Every setting's paired difference from `sequential`, with its interval: what a sweep has shown, in one figure."""

from __future__ import annotations

from orchestration.report.context import Context
from orchestration.report.drawing import as_html, fit_limits, new_figure
from orchestration.results.comparisons import Comparison
from orchestration.results.settings import Setting
from orchestration.results.verdicts import TOLD, verdict

#: settings that are drawn, the best ones on validation rows
MOST = 30
METRICS = ("average_accuracy", "forgetting")
WORDS = {"average_accuracy": "average accuracy (right is better)", "forgetting": "forgetting (left is better)"}
COLOURS = {"better": "#0072B2", "worse": "#D55E00"}


def forest_figure(context: Context) -> str | None:
    """None where nothing can be compared with sequential."""
    found: dict[tuple[Setting, str], Comparison] = {
        (one.setting, one.metric): one for one in context.compared.with_sequential if one.difference.mean is not None
    }
    every = [one.setting for one in context.ranked if any((one.setting, name) in found for name in METRICS)]
    settings = every[:MOST]
    if not settings:
        return None
    figure, panels = new_figure(1.1 + 0.27 * len(settings), 1, len(METRICS))
    cut = False
    for panel, name in zip(panels, METRICS, strict=True):
        shown = [found[setting, name].difference for setting in settings if (setting, name) in found]
        panel.axvline(0, color="#555555", linewidth=1)
        for place, setting in enumerate(settings):
            one = found.get((setting, name))
            if one is None:
                continue
            judged = verdict(name, one.difference, one.p_holm)
            colour = COLOURS.get(judged, "#777777")
            panel.errorbar(
                100 * (one.difference.mean or 0.0),
                place,
                xerr=100 * (one.difference.half_width or 0.0),
                label=judged,
                color=colour,
                marker="o",
                markerfacecolor=colour if judged in TOLD else "white",
                capsize=2.5,
                elinewidth=1.4,
                zorder=3,
            )
        centres = [100 * (one.mean or 0.0) for one in shown]
        cut |= fit_limits(panel, [*centres, 0.0], shown, vertical=False)
        panel.set_ylim(len(settings) - 0.4, -0.6)
        panel.grid(visible=False, axis="y")
        panel.set_xlabel(f"{WORDS[name]}, points against sequential")
        panel.set_yticks(range(len(settings)), [context.label(setting) for setting in settings])
    for panel in panels[1:]:
        panel.tick_params(labelleft=False)
    caption = (
        "Means over seeds of the differences between trials of the same seed and order, with 95 % intervals where "
        "there are three seeds. Filled: told from zero among all that this report compares (Holm); hollow: not told. "
        "The best on validation rows first."
    )
    caption += f" {MOST} of {len(every)} settings are drawn." if len(every) > MOST else ""
    caption += " Some intervals are cut at the panel's edge." if cut else ""
    return as_html(figure, caption, "Differences from sequential")
