"""What went on inside the method: ranks, gradient energy, prompt usage, averaging weights, stage by stage."""

from __future__ import annotations

import html

import numpy as np

from mcit_core.stages.results import UNTOUCHED, StageResult
from orchestration.keep.tables import Row, text_in
from orchestration.report.context import Context
from orchestration.report.drawing import as_html, legend_below, new_figure
from orchestration.results.estimates import estimate
from orchestration.results.settings import Setting

MOST_LINES = 8
MOST_BARS = 6
TITLES = {
    "subspace/rank": "rank claimed by the stage",
    "subspace/dims_left": "dimensions open to the stage, before its claim",
    "pool/effective_prompts": "prompts in effective use",
    "pool/usage_entropy": "entropy of prompt usage",
    "pool/prompts_used": "prompts used",
    "pool/claimed_before": "prompts claimed by earlier stages",
    "key_drift": "key drift: changed selections, per cent",
    "prompts_kept": "prompts kept by earlier tasks' rows, per cent",
    "loss/last": "training loss at the end of the stage",
    "ema/mean_weight": "weight on the old average",
}
COUNTS = ("subspace/", "pool/")  # drawn from zero
PERCENT = ("key_drift", "prompts_kept")  # stored as shares
SHARES = (("allowed", "#0072B2"), ("occupied", "#D55E00"), ("other", "#BBBBBB"))


def _belongs(name: str, group: str) -> bool:
    return name == group or name.startswith(group + "/")


def stage_values(context: Context, setting: Setting, wanted: set[str]) -> dict[int, list[float]]:
    """Stage -> the recorded values whose name is wanted, over a setting's finished trials."""
    found: dict[int, list[float]] = {}
    for row in context.rows(setting):
        for stage in context.results.stages.get(text_in(row, "trial"), []):
            values = [value for name, value in stage.metrics.items() if name in wanted]
            if values and stage.stage != UNTOUCHED:
                found.setdefault(stage.stage, []).extend(values)
    return dict(sorted(found.items()))


def stage_lines(context: Context, names: list[str], caption: str) -> str | None:
    """One panel a name: its mean over seeds and orders by stage, one line a setting. `a` also stands for `a/<task>`."""
    recorded = context.results.measured
    last = max((stage.stage for stages in context.results.stages.values() for stage in stages), default=0)
    names = [name for name in names if any(_belongs(other, name) for other in recorded)]
    settings = context.pick(MOST_LINES)
    if not names or not settings:
        return None
    columns = min(3, max(2, len(names)))
    rows = -(-len(names) // columns)
    figure, panels = new_figure(0.9 + 2.6 * rows, rows, columns)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    for panel, name in zip(panels, names, strict=False):
        for setting in settings:
            values = stage_values(context, setting, {other for other in recorded if _belongs(other, name)})
            style = context.styles[setting]
            if values:
                panel.plot(
                    [stage + 1 for stage in values],
                    [(100 if name in PERCENT else 1) * (estimate(found).mean or 0.0) for found in values.values()],
                    color=style.colour,
                    marker=style.marker,
                    linestyle=style.line,
                    label=context.label(setting),
                )
        panel.set_title(TITLES.get(name, name), fontsize=9)
        panel.set_xlabel("stage")
        panel.set_xticks(range(1, last + 2))
        if name.startswith(COUNTS):
            panel.set_ylim(min(0.0, panel.get_ylim()[0]), 1.05 * panel.get_ylim()[1])
    legend_below(figure, panels[: len(names)])
    return as_html(figure, html.escape(caption), ", ".join(names))


def exhausted_words(context: Context) -> str:
    """Which settings ran out of allowed space, and where."""
    words = []
    for setting in context.settings:
        values = stage_values(context, setting, {"subspace/exhausted"})
        stages = [str(stage + 1) for stage, found in values.items() if any(found)]
        if stages:
            words.append(f"{context.label(setting)} (stage {', '.join(stages)})")
    if words:
        return (
            "The allowed space was exhausted in at least one trial of: " + "; ".join(words) + ". From there on such a "
            "stage moves in all that no stage has claimed, so that what is allowed can grow, or, where nothing is left "
            "at all, not."
        )
    return "No trial exhausted its allowed space." if "subspace/exhausted" in context.results.measured else ""


def gradient_figure(context: Context) -> str | None:
    """Where the raw gradient's energy lay: in the allowed space, in the occupied one, or in neither."""
    settings = [
        setting
        for setting in context.pick(MOST_BARS)
        if any(stage_values(context, setting, {f"subspace/gradient_{name}"}) for name, _ in SHARES)
    ]
    if not settings:
        return None
    columns = 4 if len(settings) == 4 else min(3, len(settings))
    rows = -(-len(settings) // columns)
    figure, panels = new_figure(0.9 + 2.0 * rows, rows, columns, sharey=True)
    for panel in panels[len(settings) :]:
        panel.set_axis_off()
    for panel, setting in zip(panels, settings, strict=False):
        below: dict[int, float] = {}
        for name, colour in SHARES:
            values = stage_values(context, setting, {f"subspace/gradient_{name}"})
            heights = {stage: 100 * (estimate(found).mean or 0.0) for stage, found in values.items()}
            panel.bar(
                [stage + 1 for stage in heights],
                list(heights.values()),
                color=colour,
                label=name,
                width=0.7,
                bottom=[below.get(stage, 0.0) for stage in heights],
            )
            below = {stage: below.get(stage, 0.0) + height for stage, height in heights.items()}
        panel.set_title(context.label(setting), fontsize=9)
        panel.grid(visible=False, axis="x")
        panel.set_xticks([stage + 1 for stage in below])
        panel.set_xlabel("stage")
    for first in range(0, len(settings), columns):
        panels[first].set_ylabel("share of energy, per cent")
    legend_below(figure, panels[: len(settings)])
    return as_html(
        figure,
        "Energy of the raw gradient, before any projection: inside the allowed space, inside what "
        "earlier stages occupied, or in neither. Means over seeds and orders.",
        "Shares of gradient energy",
    )


def usage_figure(context: Context) -> str | None:
    """Tasks x prompts: how often the prompts of one trial were chosen."""
    row = _usage_trial(context)
    if row is None:
        return None
    shares = _usage(context.results.stages[text_in(row, "trial")])
    tasks = [task for task in text_in(row, "order").split(">") if task in shares] or sorted(shares)
    size = 1 + max(index for found in shares.values() for index in found)
    grid = np.array([[100 * shares[task].get(index, 0.0) for index in range(size)] for task in tasks])
    figure, (panel,) = new_figure(1.3 + 0.34 * len(tasks))
    image = panel.imshow(grid, cmap="Blues", vmin=0, aspect="auto")
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)
    panel.set_yticks(range(len(tasks)), tasks)
    panel.set_xticks(range(0, size, max(1, size // 20)))
    panel.set_xlabel("prompt")
    figure.colorbar(image, ax=panel, label="share of choices, per cent", fraction=0.03, pad=0.01)
    caption = (
        f"How often each prompt was chosen for each task's test rows, in trial {html.escape(text_in(row, 'trial'))} "
        "alone: prompts of different seeds are different prompts. A column with several dark cells is a prompt "
        "that tasks share."
    )
    return as_html(figure, caption, "Prompt usage")


def _usage_trial(context: Context) -> Row | None:
    """A trial of the chosen setting, else the first that learned a sequence, that recorded prompt usage."""
    recorded = {trial for trial, stages in context.results.stages.items() if _usage(stages)}
    chosen = context.rows(context.chosen) if context.chosen else []
    sequences = [row for row in context.results.finished if row["method"] != "direct"]
    return next((row for row in [*chosen, *sequences] if row["trial"] in recorded), None)


def _usage(stages: list[StageResult]) -> dict[str, dict[int, float]]:
    """Task -> prompt -> share, each task as of the last stage that recorded it."""
    found: dict[str, dict[int, float]] = {}
    for stage in stages:
        here: dict[str, dict[int, float]] = {}
        for name, value in stage.metrics.items():
            if name.startswith("prompt_usage/"):
                task, index = name.removeprefix("prompt_usage/").rsplit("/", 1)
                here.setdefault(task, {})[int(index)] = value
        found |= here
    return found
