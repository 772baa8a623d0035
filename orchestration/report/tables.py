"""The report's tables: for the page, and settings x metrics as CSV and LaTeX."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mcit_core.methods import ORDERLESS
from mcit_core.metrics import CATALOGUE, Metric, headline_names
from orchestration.keep.tables import number_in, text_in
from orchestration.report.blocks import Cell, Line, Section, Table, Text
from orchestration.report.context import Context
from orchestration.results.comparisons import Comparison
from orchestration.results.estimates import estimate
from orchestration.results.reading import metric_names
from orchestration.results.settings import TUNER, Setting, SettingSummary, estimate_rows, setting_axes
from orchestration.results.words import format_number, format_value, summary_metrics, units

#: settings of which so many are shown at first, and trials
MOST_SETTINGS = 30
MOST_TRIALS = 20


def glossary(context: Context) -> Table:
    """What each metric of this run means and which way is better."""
    shown = [metric for metric in summary_metrics(context.summaries) if metric.unit == "percent"]
    shown = shown or [CATALOGUE[name] for name in headline_names()]
    return Table(["metric", "better", "meaning"], [Line([m.title, m.better, m.meaning]) for m in shown])


def settings_table(context: Context) -> Table:
    """Settings x main metrics, the references last."""
    return replace(_settings_table(context, _main(context)), picks=True)


def _main(context: Context) -> list[Metric]:
    return [m for m in summary_metrics(context.summaries) if m.better and m.place != "further"]


def further_table(context: Context) -> Table | None:
    """Settings x the metrics that refine the main ones; None where there are none."""
    further = [m for m in summary_metrics(context.summaries) if m.better and m.place == "further"]
    return _settings_table(context, further) if further else None


def costs_table(context: Context) -> Table:
    costs = [m for m in summary_metrics(context.summaries) if not m.better]
    return _settings_table(context, [*costs, Metric("seconds", "seconds per trial", "", "", "seconds")])


def orders_table(context: Context) -> Table:
    """Every order with what a few settings reach under it, means over seeds."""
    settings = [setting for setting in context.pick(3) if context.rows(setting)]
    metrics = [CATALOGUE["average_accuracy"], CATALOGUE["forgetting"]]
    columns = [(setting, metric) for setting in settings for metric in metrics]
    head = ["", "order", *(f"{context.label(setting)}: {_title(metric)}" for setting, metric in columns)]
    lines = []
    for number, order in enumerate(context.results.orders, start=1):
        means = [estimate_rows(context.rows(setting, order), m.name).mean for setting, m in columns]
        numbers = [Cell(format_number(m.name, mean), value=mean) for (_, m), mean in zip(columns, means, strict=True)]
        lines.append(Line([Cell(str(number), value=number), order.replace(">", " → "), *numbers]))
    return Table(head, lines, "numbers", first=MOST_SETTINGS)


def trials_section(context: Context) -> Section | None:
    """Every trial with its setting, to which the settings' names lead."""
    if not context.results.trials:
        return None
    metrics = _main(context)
    head = ["trial", "setting", "seed", "order", "status", *map(_title, metrics), "seconds"]
    places = {order: number for number, order in enumerate(context.results.orders, start=1)}
    lines = []
    for row in context.results.trials:
        label = context.label(context.setting_of(row))
        values = [number_in(row, m.name) for m in metrics]
        seconds = number_in(row, "seconds")
        lines.append(
            Line(
                [
                    text_in(row, "trial"),
                    label,
                    Cell(str(row["seed"])),
                    Cell(str(places.get(text_in(row, "order"), "–"))),
                    text_in(row, "status"),
                    *(
                        Cell(format_number(m.name, value), value=value)
                        for m, value in zip(metrics, values, strict=True)
                    ),
                    Cell(format_number("seconds", seconds), value=seconds),
                ],
                setting=label,
            )
        )
    note = (
        "Every trial; orders by their number. A click on a setting's name in the tables above shows its trials alone."
    )
    return "Trials", [Text(note, "note"), Table(head, lines, "numbers", first=MOST_TRIALS, name="trials")]


def _title(metric: Metric) -> str:
    return metric.title + metric.arrow


def _settings_table(context: Context, metrics: Sequence[Metric]) -> Table:
    """The best value under study of each metric in bold."""
    head = ["setting", "n", *map(_title, metrics)]
    best = {metric.name: _best(context, metric) for metric in metrics}
    shown = [
        summary
        for summary in context.ranked
        # a reference says nothing by dashes alone
        if not summary.setting.is_reference or any(summary.metric(metric.name).n for metric in metrics)
    ]
    lines = [
        Line(
            [
                setting_cell(context, summary),
                _count(summary),
                *(_cell(summary, metric, best[metric.name] == summary.setting) for metric in metrics),
            ],
            "reference" if summary.setting.is_reference else "chosen" if summary.setting == context.chosen else "",
            context.label(summary.setting),
        )
        for summary in shown
    ]
    return Table(head, lines, "numbers", first=MOST_SETTINGS)


def _best(context: Context, metric: Metric) -> Setting | None:
    """The setting under study with the best mean; None where there is one alone, or nothing is better."""
    means = {
        summary.setting: mean
        for summary in context.summaries
        if not summary.setting.is_reference and (mean := summary.metric(metric.name).mean) is not None
    }
    if not metric.better or len(means) < 2:
        return None
    return (max if metric.better == "higher" else min)(means, key=means.__getitem__)


def setting_cell(context: Context, summary: SettingSummary) -> Cell:
    label = context.label(summary.setting)
    tag = "reference" if summary.setting.is_reference else "chosen" if summary.setting == context.chosen else ""
    return Cell(label, tag=tag, to=label)


def _count(summary: SettingSummary) -> Cell:
    some = summary.finished != summary.trials
    text = f"{summary.finished} of {summary.trials}" if some else str(summary.finished)
    return Cell(text, value=summary.finished)


def _cell(summary: SettingSummary, metric: Metric, best: bool) -> Cell:
    found = summary.metric(metric.name)
    small = []
    if found.half_width is not None and (found.half_width > 0 or metric.better or metric.name == "seconds"):
        small.append(f"± {format_number(metric.name, found.half_width)}")
    elif found.half_width is None and found.n > 1:
        small.append(f"({', '.join(format_number(metric.name, value) for value in found.values)})")
    small += [f"n = {found.n}"] if 0 < found.n < summary.seeds else []
    return Cell(format_number(metric.name, found.mean), best, " ".join(small), value=found.mean)


def comparison_table(context: Context) -> Table | None:
    """Each setting minus sequential, on the headline metrics; None where nothing can be compared."""
    comparisons = [c for c in context.compared.with_sequential if c.difference.mean is not None]
    metrics = [name for name in headline_names() if any(c.metric == name for c in comparisons)]
    by_place = {(c.setting, c.metric): c for c in comparisons}
    compared = {c.setting for c in comparisons}
    settings = [summary for summary in context.ranked if summary.setting in compared]
    if not settings:
        return None
    lines = [
        Line(
            [
                replace(setting_cell(context, summary), tag=""),
                *(_difference_cell(by_place.get((summary.setting, name))) for name in metrics),
            ],
            setting=context.label(summary.setting),
        )
        for summary in settings
    ]
    head = ["setting minus sequential", *(_title(CATALOGUE[name]) for name in metrics)]
    return Table(head, lines, "numbers", first=MOST_SETTINGS)


def _difference_cell(comparison: Comparison | None) -> Cell:
    if comparison is None or comparison.difference.mean is None:
        return Cell("–")
    found, metric = comparison.difference, comparison.metric
    text = format_number(metric, found.mean, signed=True)
    if found.interval is None:
        return Cell(text, strong=True, small=f"{units(found)}, no interval", value=found.mean)
    low, high = (format_number(metric, end, signed=True) for end in found.interval)
    p = "no variation" if comparison.p_holm is None else format_p(comparison.p_holm)
    return Cell(text, True, f"[{low}, {high}]", f"{p}, {units(found)}", value=found.mean)


def format_p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def write_csv(context: Context, path: Path) -> None:
    """One row a setting: each metric's mean, spread, half width of the 95 % interval and n, on the stored scale."""
    told = {name for setting in context.settings for name, _ in setting.values}
    axes = [*setting_axes(context.results.axes), *(name for name in TUNER if name in told - {*context.results.axes})]
    names = [*metric_names(context.results.trials, context.results.axes), "seconds"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        parts = ("mean", "spread", "half_width", "n")
        head = [f"{name}.{part}" for name in names for part in parts]
        writer.writerow(["method", *axes, "trials", "finished", *head])
        for summary in context.summaries:
            values = [_plain(summary.setting.value(axis)) for axis in axes]
            found = [summary.metric(name) for name in names]
            numbers = [part for e in found for part in (e.mean, e.spread, e.half_width, e.n)]
            writer.writerow([summary.setting.method, *values, summary.trials, summary.finished, *numbers])


def _plain(value: object) -> str:
    return "" if value is None else format_value(value)


def write_latex(context: Context, path: Path) -> None:
    """Settings x metrics in per cent, mean and half width; needs the package booktabs."""
    metrics = [metric for metric in summary_metrics(context.summaries) if metric.unit == "percent"]
    arrow = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "": ""}
    head = ["setting", "$n$", *(latex(metric.title) + arrow[metric.better] for metric in metrics)]
    lines: list[str] = []
    previous = False
    for summary in context.summaries:
        if summary.setting.is_reference and not previous:
            lines += [r"\midrule"] if lines else []
            previous = True
        cells = [_latex_cell(summary, metric.name) for metric in metrics]
        lines.append(" & ".join([latex(context.label(summary.setting)), str(summary.finished), *cells]) + r" \\")
    table = _tabular("mean and half the 95 % interval, per cent; needs \\usepackage{booktabs}", "lr", head, lines)
    path.write_text("\n".join([*table, "", *_paper_rows(context)]) + "\n", encoding="utf-8")


def _tabular(comment: str, left: str, head: Sequence[str], lines: Sequence[str]) -> list[str]:
    """A table of booktabs; `left` aligns its first columns, the others are numbers."""
    return [
        f"% {comment}",
        rf"\begin{{tabular}}{{{left.ljust(len(head), 'r')}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _paper_rows(context: Context) -> list[str]:
    """A setting's accuracy on every task after the last stage, their mean and backward transfer, as papers print them:
    per cent, two decimals, means over its finished sequences."""
    shown = [
        (setting, rows)
        for setting in context.settings
        if setting.method not in ORDERLESS and (rows := context.rows(setting))
    ]
    tasks = context.tasks
    if not shown or not tasks:
        return []
    lines = []
    for setting, rows in shown:
        stages = [context.results.stages.get(text_in(row, "trial"), []) for row in rows]
        last = [found[-1] for found in stages if found]
        cells = [estimate(stage.row(tasks, "test")[i] for stage in last).mean for i in range(len(tasks))]
        ends = [estimate(row.get(name) for row in rows).mean for name in ("average_accuracy", "backward_transfer")]
        words = ["--" if value is None else f"{100 * value:.2f}" for value in (*cells, *ends)]
        lines.append(" & ".join([latex(context.label(setting)), *words]) + r" \\")
    comment = "accuracy on each task after the last stage, its mean, backward transfer (over T - 1): per cent, means"
    return _tabular(comment, "l", ["setting", *map(latex, tasks), "Avg.", "BWT"], lines)


def _latex_cell(summary: SettingSummary, metric: str) -> str:
    found = summary.metric(metric)
    if found.mean is None:
        return "--"
    half = "" if found.half_width is None else rf" \pm {format_number(metric, found.half_width)}"
    return f"${format_number(metric, found.mean)}{half}$".replace("−", "-")


def latex(text: str) -> str:
    """Text with LaTeX's own characters escaped."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
