"""The sections of the page, each a title and blocks. A section whose numbers are missing says why."""

from __future__ import annotations

from mcit_core.config import flatten
from mcit_core.metrics import CATALOGUE
from mcit_core.yaml_document import dump_yaml
from orchestration.keep.tables import Row, text_in
from orchestration.report.answers import answers_section
from orchestration.report.blocks import Block, Builder, Cell, Folded, Line, Pairs, Section, Table, Text, missing, there
from orchestration.report.comparisons import pareto_figure, time_figure
from orchestration.report.context import Context
from orchestration.report.curves import axis_figures
from orchestration.report.findings import (
    findings,
    headline,
    held_out_words,
    missing_reason,
    what_was_run,
    why_nothing_is_chosen,
)
from orchestration.report.forest import forest_figure
from orchestration.report.matrices import forgetting_figures, matrices_figure
from orchestration.report.orders import order_figure, place_figures
from orchestration.report.published import published_section
from orchestration.report.ranking import importance_figure, pair_figure, parallel_figure, rank_figure
from orchestration.report.routing import routing_section
from orchestration.report.searching import search_section
from orchestration.report.stage_by_stage import (
    exhausted_words,
    gradient_figure,
    stage_lines,
    usage_figure,
    weight_figure,
)
from orchestration.report.tables import (
    comparison_table,
    costs_table,
    further_table,
    glossary,
    orders_table,
    settings_table,
    trials_section,
)
from orchestration.results.answer import answer
from orchestration.results.matrices import test_set_error
from orchestration.results.notices import notices
from orchestration.results.saved import saved
from orchestration.results.words import format_number, so_far, some, summary_metrics

#: so many settings are named with their validation figures
MOST_VALIDATED = 8
#: trials without a result that are shown at first
MOST_FAILURES = 10


def _answer(context: Context) -> Section | None:
    lines = answer(context.results) if context.results.trials else []
    if not lines:
        return None
    return "The answer", [Pairs(lines)]


def _summary(context: Context) -> Section:
    blocks: list[Block] = [Text(what_was_run(context)), Text(headline(context), "headline")]
    blocks += [missing(f"Look into this: {text}") for text in notices(context.results)]
    for claim, found in findings(context):
        lines = [Line([title, words, Cell(judged, kind=_verdict(judged))]) for title, words, judged in found]
        blocks.append(Table([claim, "paired difference", ""], lines, "words findings"))
    words = (
        "Differences are paired: both sides had the same seed and the same order of tasks. "
        + _units_words(context)
        + " “Better” and “worse” need p ≤ 0.05, corrected for all that this report compares (Holm). "
        + _test_set_words(context)
    )
    return "What was run and what came out", [*blocks, Text(words, "note")]


def _units_words(context: Context) -> str:
    """What counts as a unit in intervals."""
    if context.results.design.orders == "random":
        return (
            "Seeds and orders, which were drawn, are both random: the interval is that of the crossed two-way layout, "
            "and needs three of each."
        )
    orders = "with their mean over all listed orders " if len(context.results.orders) > 1 else ""
    return f"Seeds are the units {orders}of a 95 % t-interval, which needs three."


def _test_set_words(context: Context) -> str:
    """How much the test set itself leaves open."""
    text = "Intervals are over the randomness of training, on this test set"
    rows = context.rows(context.chosen) if context.chosen else []
    found = [test_set_error(context.results.stages.get(text_in(row, "trial"), [])) for row in rows]
    known = [error for error in found if error is not None]
    if not known:
        return f"{text}."
    half, count = known[0]
    return (
        f"{text}; its {count:,} rows alone leave an average accuracy uncertain by ± {100 * half:.1f} points (95 %), "
        "a difference of two by less where they err on the same rows, else by up to 1.4 times that."
    )


def _verdict(judged: str) -> str:
    return judged if judged in ("better", "worse", "") else "open"


def _metrics(context: Context) -> Section:
    text = (
        "Accuracies are in per cent of the test split, differences of accuracies (forgetting, transfers) in "
        "percentage points. A stage is the learning of one task; an order is the sequence of tasks."
    )
    return "How to read the numbers", [Text(text), glossary(context)]


def _settings(context: Context) -> Section:
    if not context.summaries:
        return "Settings and metrics", [missing("no trial yet")]
    text = (
        "Mean ± half the width of the 95 % interval; n counts finished trials. Below three seeds there is no interval, "
        "and the seeds' own values stand in brackets. "
    )
    shown = {metric.name for metric in summary_metrics(context.summaries)}
    reasons = [
        missing_reason(context, metric.name)
        for metric in CATALOGUE.values()
        if metric.name not in shown and metric.unit == "percent"
    ]
    reasons = list(dict.fromkeys(reasons))
    return "Settings and metrics", there(
        Text(text + _chosen_words(context), "note"),
        settings_table(context),
        further_table(context),
        missing("Not shown: " + "; ".join(reasons)) if reasons else None,
    )


def _chosen_words(context: Context) -> str:
    if context.chosen is None:
        return f"No setting could be chosen: {why_nothing_is_chosen(context)}."
    if len(context.studied) < 2:
        return ""
    text = f"Chosen by average accuracy on the validation split, not the test split: {context.label(context.chosen)}."
    found = context.choice
    if found is None:
        return text
    left = [context.label(setting) for setting in context.studied if setting not in found.validation]
    text += f" Not in the choice, with fewer finished trials: {some(left, MOST_VALIDATED)}." if left else ""
    deciding = sorted(found.validation.items(), key=lambda item: -(item[1].mean or 0.0))[:MOST_VALIDATED]
    figures = ", ".join(f"{context.label(s)} {format_number('average_accuracy', e.mean)}" for s, e in deciding)
    times = some([f"{context.label(setting)} {count}×" for setting, count in found.times.items()], MOST_VALIDATED, ", ")
    return (
        f"{text} Validation figures, best first: {figures}. With each seed left out in turn the others choose {times}. "
        f"{held_out_words(context)}"
    )


def _against_sequential(context: Context) -> Section:
    table = comparison_table(context)
    if table is None:
        ran = any(setting.method == "sequential" for setting in context.settings)
        why = (
            "no finished trial shares its seed and order with a finished sequential trial"
            if ran
            else "no sequential reference: the comparison is undefined"
        )
        return "Against sequential", [missing(why)]
    text = (
        "Each setting minus sequential, that is the same training without protection, in points: mean difference, "
        "95 % interval, p of the same t. The intervals are for one comparison each; the p-values are corrected after "
        "Holm over all that this report compares."
    )
    return "Against sequential", there(forest_figure(context), Text(text, "note"), table)


def _axes(context: Context) -> Section | None:
    names = [axis for axis in context.results.axes if axis != "order"]
    if not names:
        return None
    if not any(summary.finished for summary in context.summaries if not summary.setting.is_reference):
        return "Along the axes", [missing("no trial has finished, references aside")]
    lines = "Broken lines without dots are the references, where they were run and the metric is defined for them."
    matters, why = importance_figure(context)
    several = len(names) > 1
    return "Along the axes", there(
        Text(lines, "note"),
        *axis_figures(context),
        matters or (missing(f"Importance of the axes is not shown: {why}") if several else None),
        pair_figure(context),
        parallel_figure(context),
    )


def _pareto(context: Context) -> Section:
    figure = pareto_figure(context)
    ranked, why = rank_figure(context)
    return "Accuracy against forgetting", there(
        figure or missing(missing_reason(context, "forgetting")),
        ranked or (missing(f"Ranks are not shown: {why}") if len(context.studied) > 1 else None),
    )


def _matrices(context: Context) -> Section:
    figure = matrices_figure(context)
    return "Accuracy matrices", [figure or missing("no finished trial of a sequence has accuracies")]


def _forgetting(context: Context) -> Section:
    figures = forgetting_figures(context)
    return "Forgetting curves", figures or [missing("no finished trial of a sequence has accuracies")]


def _subspaces(context: Context) -> Section | None:
    recorded = any(name.startswith("subspace/") for name in context.results.measured)
    if not recorded:
        return None
    lines = stage_lines(
        context,
        ["subspace/rank", "subspace/dims_left"],
        "Ranks by stage",
        "Rank is the number of directions that a stage claims for itself at its end; dimensions open are those that it "
        "might move in or claim. Means over seeds and orders.",
    )
    words = exhausted_words(context)
    gradient = gradient_figure(context) or missing("no shares of gradient energy were recorded")
    return "Subspaces, stage by stage", there(lines, Text(words) if words else None, gradient)


def _prompts(context: Context) -> Section | None:
    recorded = {name.split("/")[0] for name in context.results.measured}
    if not recorded & {"pool", "prompt_usage", "key_drift"}:
        return None
    names = sorted(name for name in context.results.measured if name.startswith("pool/"))
    lines = stage_lines(
        context, [*names, "key_drift", "prompts_kept"], "Prompts by stage", "Means over seeds and orders."
    )
    usage = usage_figure(context) or missing("no finished trial of a sequence recorded prompt usage")
    return "Prompts", there(usage, lines)


def _averaging(context: Context) -> Section | None:
    names = sorted(name for name in context.results.measured if name.startswith("ema/"))
    caption = "Means over seeds and orders; the weight is the one on the old average."
    figures = there(stage_lines(context, names, "Averaging weights by stage", caption), weight_figure(context))
    return ("Averaging weights", figures) if figures else None


def _orders(context: Context) -> Section | None:
    orders = context.results.orders
    if len(orders) < 2:
        return None
    figure = order_figure(context) or missing("no trial has finished")
    return "Orders", [orders_table(context), figure, *place_figures(context)]


def _costs(context: Context) -> Section:
    if not context.results.finished:
        return "Time and size", [missing("no trial has finished")]
    figure = time_figure(context) or missing("no stage recorded its seconds")
    return "Time and size", there(figure, costs_table(context), *_saved(context))


def _saved(context: Context) -> list[Block]:
    found = saved(context.results)
    if found is None or not found.shared.stages + found.stopped.stages:
        return []
    parts = {
        "trained, or found in the store": (found.made, "each counted once"),
        "shared with another trial": (found.shared, "at what the other one took"),
        "not trained: the trial was stopped early": (found.stopped, "reckoned, at the mean of those at the same place"),
    }
    lines = [
        Line(
            [
                Cell(what, below=how),
                Cell(str(part.stages), value=part.stages),
                Cell(f"{part.seconds:,.0f}", value=part.seconds),
            ]
        )
        for what, (part, how) in parts.items()
    ]
    head = ["", "stages", "CPU seconds of training" if found.cpu else "seconds of training, by the clock"]
    return [Text("What sharing and early stopping saved", "label"), Table(head, lines, "numbers")]


def _failures(context: Context) -> Section | None:
    rows = [row for row in context.results.trials if row["status"] != "FINISHED"]
    if not rows:
        return None
    head = ["trial", "method", "seed", "order", "status", "so far, not final", "why"]
    lines = [Line(_failure(context, row)) for row in rows]
    return "Trials without a final result", [Table(head, lines, first=MOST_FAILURES)]


def _failure(context: Context, row: Row) -> list[str | Cell]:
    order = text_in(row, "order")
    number = (
        str(1 + context.results.orders.index(order)) if order in context.results.orders else order.replace(">", " → ")
    )
    cells = [str(cell) for cell in (row["trial"], row["method"], row["seed"], number, row["status"])]
    return [*cells, so_far(row) or "–", Cell(text_in(row, "error"), code=True) if row["error"] else "–"]


def _provenance(context: Context) -> Section:
    sweep = dict(context.results.sweep)
    provenance = sweep.pop("provenance", None)
    rows = flatten(provenance).items() if isinstance(provenance, dict) else ()
    lines = [Line([name, str(value)]) for name, value in rows]
    blocks: list[Block] = [
        Table(["what", "value"], lines, "words pairs") if lines else missing("the sweep file carries no provenance")
    ]
    blocks += [Folded("The sweep file, resolved", dump_yaml(sweep))] if sweep else []
    return "Where the numbers come from", blocks


#: the sections in the order of the page. A new figure or table: write its builder in a file of its own (`curves.py` is
#: an example, `blocks.py` has what it is made of, `charts.py` what a figure is), import the builder above, and name it
#: here where it is to stand
SECTIONS: list[Builder] = [
    _answer,
    _failures,
    _summary,
    _settings,
    _against_sequential,
    search_section,
    _axes,
    _pareto,
    _matrices,
    _forgetting,
    answers_section,
    routing_section,
    _subspaces,
    _prompts,
    _averaging,
    _orders,
    published_section,
    _costs,
    trials_section,
    _provenance,
    _metrics,
]


def sections(context: Context) -> list[Section]:
    """Of the whole page."""
    return [section for build in SECTIONS if (section := build(context)) is not None]
