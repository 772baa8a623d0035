"""What went on inside the method: ranks, gradient energy, prompt usage, averaging weights, stage by stage."""

from __future__ import annotations

from mcit_core.stages.results import UNTOUCHED, StageResult
from orchestration.keep.tables import Row, text_in
from orchestration.report.charts import (
    Datum,
    Figure,
    Panel,
    Series,
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
from orchestration.results.estimates import estimate, present
from orchestration.results.settings import Setting
from orchestration.results.traces import read_traces, trace_series
from orchestration.results.words import some

MOST_LINES = 8
MOST_BARS = 6
#: with more prompts, their shares are shown by colour alone
MOST_WRITTEN = 16
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
SHARES = (Series("allowed", "#0072B2"), Series("occupied", "#D55E00"), Series("other", "#999999"))


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


def stage_lines(context: Context, names: list[str], name: str, caption: str) -> Figure | None:
    """One panel a name: its mean over seeds and orders by stage, one line a setting. `a` also stands for `a/<task>`."""
    recorded = context.results.measured
    last = max((stage.stage for stages in context.results.stages.values() for stage in stages), default=0)
    names = [name for name in names if any(_belongs(other, name) for other in recorded)]
    panels = [
        Panel(TITLES.get(name, name), _stage_spec(name, last), rows, 230)
        for name in names
        if (rows := _stage_rows(context, name))
    ]
    if not panels:
        return None
    return Figure(
        name,
        caption,
        panels,
        [context.styles[setting] for setting in context.settings],
        picked=context.picked(MOST_LINES, _settings_of(panels)),
        columns=3,
        most=520,
    )


def _settings_of(panels: list[Panel]) -> set[str]:
    return {str(row["setting"]) for panel in panels for row in panel.rows}


def _stage_rows(context: Context, name: str) -> list[Datum]:
    wanted = {other for other in context.results.measured if _belongs(other, name)}
    scale = 100 if name in PERCENT else 1
    return [
        {"setting": context.label(setting), "stage": stage + 1, "value": scale * mean}
        for setting in context.settings
        for stage, found in stage_values(context, setting, wanted).items()
        if (mean := estimate(found).mean) is not None
    ]


def _stage_spec(name: str, last: int) -> Spec:
    x = {
        "field": "stage",
        "type": "quantitative",
        "title": "stage",
        "scale": {"domain": [0.8, last + 1.2], "nice": False},
        "axis": {"values": list(range(1, last + 2)), "format": "d", "grid": False},
    }
    y = {**quantity("value", ""), "scale": {"zero": name.startswith(COUNTS)}}
    place = {"x": x, "y": y, "color": colour("setting")}
    return layers(
        {
            "mark": {"type": "line", "strokeWidth": 1.8, "clip": True},
            "encoding": {**place, "strokeDash": dash("setting")},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 40, "clip": True},
            "encoding": {
                **place,
                "shape": shape("setting"),
                "tooltip": told(setting="setting", stage="stage", value="value|.4~g"),
            },
        },
        height=190,
        zoom=["y"],
    )


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


def gradient_figure(context: Context) -> Figure | None:
    """Where the raw gradient's energy lay: in the allowed space, in the occupied one, or in neither."""
    panels = [
        Panel(context.label(setting), _shares_spec(), rows, 200, setting=context.label(setting))
        for setting in context.settings
        if (rows := _shares(context, setting))
    ]
    if not panels:
        return None
    return Figure(
        "Shares of gradient energy",
        "Energy of the raw gradient, before any projection. Allowed: in the space that the stage may move in, to which "
        "its gradient is projected (projection.mode: outside what earlier stages claimed, inside the pre-trained "
        "space, or both); occupied: in what earlier stages claimed; other: in neither. Means over seeds and orders.",
        panels,
        SHARES,
        key="space",
        picked=context.picked(MOST_BARS, _settings_of(panels)),
        columns=4,
        most=360,
        picker="setting",
    )


def _shares(context: Context, setting: Setting) -> list[Datum]:
    return [
        {
            "setting": context.label(setting),
            "stage": stage + 1,
            "space": series.label,
            "share": 100 * mean,
        }
        for series in SHARES
        for stage, found in stage_values(context, setting, {f"subspace/gradient_{series.label}"}).items()
        if (mean := estimate(found).mean) is not None
    ]


def _shares_spec() -> Spec:
    return layers(
        {
            "mark": {"type": "bar", "width": {"band": 0.7}},
            "encoding": {
                "x": {"field": "stage", "type": "ordinal", "title": "stage", "axis": {"labelAngle": 0}},
                "y": {"field": "share", "type": "quantitative", "title": "share of energy, per cent"},
                "color": colour("space"),
                "tooltip": told(setting="setting", stage="stage", space="space", share="share, per cent|.1f"),
            },
        },
        height=160,
    )


def usage_figure(context: Context) -> Figure | None:
    """Tasks x prompts: how often the prompts of one trial were chosen."""
    row = _usage_trial(context)
    if row is None:
        return None
    shares = _usage(context.results.stages[text_in(row, "trial")])
    tasks = [task for task in text_in(row, "order").split(">") if task in shares] or sorted(shares)
    size = 1 + max(index for found in shares.values() for index in found)
    values = [[100 * shares[task].get(index, 0.0) for index in range(size)] for task in tasks]
    most = max(present(value for line in values for value in line), default=0.0) or 1.0
    prompts = [str(index) for index in range(size)]
    panel = heat_map(tasks, prompts, values, most, words=("task", "prompt"), form=".1f", written=size <= MOST_WRITTEN)
    caption = (
        f"How often each prompt was chosen for each task's test rows, in trial {text_in(row, 'trial')} "
        "alone, share of choices in per cent: prompts of different seeds are different prompts. A column with several "
        "dark cells is a prompt that tasks share."
    )
    return Figure("Prompt usage", caption, [panel], columns=1)


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


def weight_figure(context: Context) -> Figure | None:
    """The weight on the old average at every step of the sequence, where steps.parquet has it."""
    of_setting = {setting: context.rows(setting) for setting in context.pick(MOST_LINES)}
    trials = [text_in(row, "trial") for rows in of_setting.values() for row in rows]
    traces = read_traces(context.results.folder, trials)
    rows: list[Datum] = []
    left: dict[str, list[str]] = {}
    for setting, found in of_setting.items():
        here = {name: traces[name] for row in found if (name := text_in(row, "trial")) in traces}
        weights, why = trace_series(here)
        if weights is None and here:
            left.setdefault(why, []).append(context.label(setting))
        for window in weights.windows if weights else ():
            middle = (window.first + window.last) / 2
            values = {"weight": window.mean, "low": window.low, "high": window.high}
            rows.append({"setting": context.label(setting), "step": middle, **values})
    if not rows:
        return None
    x = {"field": "step", "type": "quantitative", "title": "training step of the sequence", "axis": {"grid": False}}
    y = quantity("weight", "weight on the old average")
    tooltip = told(setting="setting", step="step|.0f", weight="mean weight|.4f", low="least|.4f", high="most|.4f")
    spec = layers(
        {
            "mark": {"type": "line", "strokeWidth": 1.4, "clip": True},
            "encoding": {"x": x, "y": y, "color": colour("setting"), "tooltip": tooltip},
        },
        {
            "mark": {"type": "area", "opacity": 0.2, "clip": True},
            "encoding": {
                "x": x,
                "y": {**y, "field": "low"},
                "y2": {"field": "high"},
                "color": colour("setting"),
                "tooltip": tooltip,
            },
        },
        height=220,
        zoom=["x", "y"],
    )
    caption = (
        "Mean over a setting's trials, and the band from the least to the most; the line breaks where a stage averages "
        f"nothing. Of the best {MOST_LINES} settings and the references."
    )
    caption += "".join(f" Not drawn ({why}): {some(labels, MOST_LINES)}." for why, labels in left.items())
    series = [context.styles[setting] for setting in of_setting]
    return Figure("Averaging weights by step", caption, [Panel("", spec, rows)], series, columns=1)
