"""What was run and what came out, in words computed from the numbers."""

from __future__ import annotations

from mcit_core.choices import shown_choice
from mcit_core.methods import ORDERLESS, REFERENCES
from mcit_core.metrics import CATALOGUE, reason_undefined
from mcit_core.stages.results import UNTOUCHED
from orchestration.report.context import Context
from orchestration.results.comparisons import Comparison, Contrast
from orchestration.results.estimates import present
from orchestration.results.searching import ranges, values_of
from orchestration.results.settings import VALIDATION
from orchestration.results.verdicts import TOLD, in_words, listing, plural, verdict, what_would_tell
from orchestration.results.words import format_number, format_value, short_axis_names

Line = tuple[str, str, str]  # metric, paired difference in words, verdict
#: values of an axis that are named
MOST_VALUES = 8
Finding = tuple[str, list[Line]]  # what was compared, and how it came out


def _choice(choice: object) -> str:
    """A model or benchmark in words, with its settings where it has any."""
    return shown_choice(choice) if isinstance(choice, str | dict) else "unknown"


def what_was_run(context: Context) -> str:
    """One paragraph for a reader who has not seen the project."""
    results = context.results
    sweep = results.sweep
    if not results.trials:
        return f"The sweep “{sweep.get('name', results.folder.name)}” holds no trial yet."
    tasks = context.tasks
    if results.imported:
        return (
            f"{plural(len(results.trials), 'run')} that others have made of the benchmark "
            f"“{_choice(sweep.get('benchmark'))}” with the model “{_choice(sweep.get('model'))}”, imported as they "
            f"stand in files: {plural(len(tasks), 'task')}, one after another ({', '.join(tasks)}). "
            f"{_what_varied(context)} {_how_it_ended(context)}"
        )
    parts = [
        f"A vision-language model (“{_choice(sweep.get('model'))}”) learned {plural(len(tasks), 'task')} of the "
        f"benchmark “{_choice(sweep.get('benchmark'))}” one after another ({', '.join(tasks)}). After every stage, "
        "that is after each task learned, it was tested again on those learned so far, which shows what it keeps of "
        "them, and on the next one, which shows what they give it.",
        _what_varied(context),
    ]
    references = [method for method in REFERENCES if any(row["method"] == method for row in results.trials)]
    meaning = {
        "zero_shot": "zero_shot (the untouched model)",
        "sequential": "sequential (the same training without any protection)",
        "direct": "direct (each task learned alone)",
        "multitask": "multitask (all tasks learned at once)",
        "majority": "majority (the commonest training answer, no model)",
        "blind": "blind (as direct, with every picture mid-grey)",
    }
    if references:
        parts.append(f"For reference the sweep also ran {listing([meaning[name] for name in references])}.")
    parts.append(_how_it_ended(context))
    return " ".join(parts)


def _what_varied(context: Context) -> str:
    studied = [row for row in context.results.trials if row["method"] not in REFERENCES]
    if not studied:
        return "The sweep ran references only."
    seeds, orders = {row["seed"] for row in studied}, {row["order"] for row in studied}
    axes = [
        f"{axis} ({values_of(context.results, axis, context.axis_values(axis), MOST_VALUES)})"
        for axis in context.results.axes
        if axis != "order"
    ]
    varied = f", varying {listing(axes)}" if axes else ""
    return (
        f"The method is {listing(context.methods)}{varied}; every setting was run with "
        f"{plural(len(seeds), 'seed')} and {plural(len(orders), 'order')} of the tasks."
    )


def _how_it_ended(context: Context) -> str:
    trials = context.results.trials
    done = len(context.results.finished)
    failed = sum(row["status"] == "FAILED" for row in trials)
    stopped = sum(row["status"] == "STOPPED" for row in trials)
    rest = len(trials) - done - failed - stopped
    text = f"{done} of {plural(len(trials), 'trial')} finished"
    text += f", {failed} failed" if failed else ""
    text += f", {stopped} were stopped early by halving" if stopped else ""
    return text + (f", {rest} did not get to the end." if rest else ".")


def why_nothing_is_chosen(context: Context) -> str:
    """Why no setting has a mean validation accuracy."""
    if context.results.imported:
        return "what is imported has no validation accuracies, and none is chosen by its test accuracies"
    if any(present([row.get(VALIDATION)]) for row in context.results.finished if row["method"] not in REFERENCES):
        return "no seed has finished under every order"
    return "no finished trial, references aside, has a validation accuracy"


def _groups(context: Context) -> dict[str, list[Contrast | Comparison]]:
    """What is claimed -> the metrics that it is looked at on: the chosen setting against sequential, then each numeric
    axis from its lowest to its highest value."""
    short = short_axis_names(context.results.axes)
    groups: dict[str, list[Contrast | Comparison]] = {}
    how = " (chosen on the validation split)" if len(context.studied) > 1 else ""
    for comparison in context.compared.with_sequential:
        if comparison.setting == context.chosen:
            groups.setdefault(f"{context.label(context.chosen)}{how} instead of sequential", []).append(comparison)
    searched = ranges(context.results)
    for found in context.compared.contrasts:
        if found.axis in searched:  # its ends are hardly ever tried beside one another
            continue
        claim = f"{short[found.axis]} {format_value(found.high)} instead of {format_value(found.low)}"
        groups.setdefault(claim, []).append(found)
    return groups


def findings(context: Context) -> list[Finding]:
    return [(claim, [_line(context, found) for found in group]) for claim, group in _groups(context).items()]


def _line(context: Context, found: Contrast | Comparison) -> Line:
    known = found.difference.mean is not None
    words = in_words(found.metric, found.difference) if known else missing_reason(context, found.metric)
    return CATALOGUE[found.metric].title, words, verdict(found.metric, found.difference, found.p_holm)


def held_out_words(context: Context) -> str:
    """What the chosen setting gains on seeds that had no part in its choice; empty where none was chosen."""
    found = context.choice
    if found is None or found.held_out.mean is None:
        return ""
    name = "average_accuracy"
    return (
        "Judged on seeds that had no part in the choice, what is chosen changes average accuracy against sequential by "
        f"{format_number(name, found.held_out.mean, signed=True)} points (seed by seed "
        f"{', '.join(format_number(name, value, signed=True) for value in found.held_out.values)}); on the seeds that "
        f"chose it, by {format_number(name, found.naive.mean, signed=True)}."
    )


def headline(context: Context) -> str:
    """What came out, in a few sentences: of every claim its first metric, what else of it is told apart, and what would
    tell more; of the chosen setting what seeds that had no part in its choice say."""
    sentences = []
    for claim, group in _groups(context).items():
        lines = [_line(context, found) for found in group]
        title, words, judged = lines[0]
        if not judged:
            sentences.append(f"With {claim}, the difference in {title} is not known: {words}.")
            continue
        told = [f"; {title} by {words}: {judged}" for title, words, judged in lines[1:] if judged in TOLD]
        sentences.append(f"With {claim}, {title} changed by {words}: {judged}{''.join(told)}.")
        more = "" if judged in TOLD else what_would_tell(group[0].difference)
        sentences += [f"For {title}, {more}."] if more else []
        if isinstance(group[0], Comparison):
            sentences.append(held_out_words(context))
    if sentences:
        return " ".join(filter(None, sentences))
    if not context.results.finished:
        return "No trial has finished, so there is no finding."
    if context.chosen is None:
        return f"There is no setting to compare: {why_nothing_is_chosen(context)}."
    return (
        f"There is nothing to compare {context.label(context.chosen)} with: no axis has two numeric values and "
        "there is no sequential reference."
    )


def missing_reason(context: Context, metric: str) -> str:
    """Why a metric (or a difference in it) is not there."""
    ran = {row["method"] for row in context.results.finished}
    if not ran:
        return "no trial has finished"
    if ran <= {*ORDERLESS}:
        return "no trial that learns the tasks in sequence has finished"
    formula = CATALOGUE[metric].formula if metric in CATALOGUE else None
    for tasks in (2, len(context.tasks)):  # a missing reference comes before a missing second task
        why = reason_undefined(formula, tasks, _untouched_known(context), "direct" in ran) if formula and tasks else ""
        if why:
            return f"{why}: {CATALOGUE[metric].title} undefined"
    if any(present([row.get(metric)]) for row in context.results.finished):
        if len(context.results.orders) > 1:
            return "no seed has finished under every order with both"
        return "no two finished trials that differ in nothing else"
    return f"{CATALOGUE[metric].title if metric in CATALOGUE else metric} was not measured"


def _untouched_known(context: Context) -> bool:
    return any(
        stage.stage == UNTOUCHED and stage.accuracy for stages in context.results.stages.values() for stage in stages
    )
