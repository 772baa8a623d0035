"""What a sweep's reader wants to know first: which setting to take, how much it gains, how sure that is, what it costs.

The same lines stand at the top of the report, in the terminal and in MLflow.
"""

from __future__ import annotations

from mcit_core.choices import kind_of
from mcit_core.methods import REFERENCES
from mcit_core.metrics import CATALOGUE
from orchestration.keep.tables import Row, text_in
from orchestration.results.comparisons import Comparison, compare
from orchestration.results.estimates import Estimate, estimate, estimate_units
from orchestration.results.reading import Results, finished
from orchestration.results.searching import values_of
from orchestration.results.settings import Setting, SettingSummary, estimate_rows, rows_by_setting
from orchestration.results.verdicts import TOLD, UNCLEAR, in_words, plural, verdict, what_would_tell
from orchestration.results.wanted import VALIDATED, Picked, Wish, column_of, pick
from orchestration.results.words import format_estimate, format_number, setting_label, some, units

#: settings or trials of a kind that are named
SHOWN = 5
#: settings of one reason that are named
NAMED = 3
#: metrics on which the choice is set against sequential
AGAINST = ("average_accuracy", "forgetting")
USUAL = Wish("average_accuracy")
#: a label and what there is to say, plain text
Line = tuple[str, str]


def answer(results: Results, wish: Wish = USUAL, found: Picked | None = None) -> list[Line]:
    """The lines; those of the choice only where a setting can be picked. found: what the wish picks, where known."""
    found = found or pick(results.trials, results.axes, wish, results.design)
    lines = [("asked", _question(results))]
    if found.kept:
        lines += _chosen(results, wish, found)
    else:
        lines.append(("take", why_nothing(results, wish, found)))
    return [*lines, *_went_wrong(results)]


def name_of(results: Results, setting: Setting) -> str:
    """A setting, its method with it."""
    return setting_label(setting, results.axes, method=True)


def why_nothing(results: Results, wish: Wish, found: Picked) -> str:
    """Why no setting can be picked."""
    if not found.left_out:
        if results.imported:
            return "nothing: a setting is picked on validation rows, which an import does not have"
        wanted = " and ".join(wish.columns)
        return f"nothing yet: no setting has a finished trial with {wanted}, references aside"
    near = min(found.left_out, key=wish.excess)
    return (
        f"none of {len(found.left_out)} settings keeps to {_limits(wish)}; the nearest is "
        f"{name_of(results, near.setting)} with {_values(wish, near)}"
    )


def _question(results: Results) -> str:
    studied = [row for row in results.trials if row["method"] not in REFERENCES]
    settings = [one for one in rows_by_setting(results.trials, results.axes) if not one.is_reference]
    seeds = len({row["seed"] for row in studied})
    orders = len({row["order"] for row in studied})
    tasks = len(results.orders[0].split(">")) if results.orders else 0
    varied = {axis: list(dict.fromkeys(row.get(axis) for row in studied)) for axis in results.axes if axis != "order"}
    axes = "; ".join(f"{axis}: {values_of(results, axis, values, SHOWN)}" for axis, values in varied.items())
    model, benchmark = (_kind(results.sweep.get(key)) for key in ("model", "benchmark"))
    which = (
        f"how well {name_of(results, settings[0])} does"
        if len(settings) == 1
        else f"which of {plural(len(settings), 'setting')}{f' ({axes})' if axes else ''} is best"
    )
    return (
        f"{which} after {plural(tasks, 'task')} of {benchmark} in turn, with model {model}; {plural(seeds, 'seed')}, "
        f"{plural(orders, 'order')} of tasks"
    )


def _kind(choice: object) -> str:
    return kind_of(choice) if isinstance(choice, str | dict) else "unknown"


def _limits(wish: Wish) -> str:
    return " and ".join(
        f"{CATALOGUE[limit.metric].title} of {format_number(limit.metric, limit.value)} at the "
        f"{'most' if limit.most else 'least'}"
        for limit in wish.limits
    )


def _values(wish: Wish, summary: SettingSummary) -> str:
    names = dict.fromkeys((wish.objective, *(limit.metric for limit in wish.limits)))
    return ", ".join(
        f"{CATALOGUE[name].title} {format_estimate(name, summary.metric(column_of(name)))}" for name in names
    )


def _chosen(results: Results, wish: Wish, found: Picked) -> list[Line]:
    best, *others = found.kept
    rows = rows_by_setting(results.trials, results.axes)
    done = finished(rows[best.setting])
    where = "validation rows" if wish.objective in VALIDATED else "what was measured"
    kept = f" that keep to {_limits(wish)}" if wish.limits else " that compete" if found.absent else ""
    values = _values(wish, best)
    meant = " (±: half the 95 % interval)" if "±" in values else ""
    lines = [
        ("take", name_of(results, best.setting)),
        ("because", f"{values}: the best of {len(found.kept)}{kept}, on {where}{meant}"),
        ("on test rows", _measured(results, done, ("average_accuracy", "learning_accuracy", "forgetting"))),
    ]
    compared = [
        one
        for one in compare(results.trials, results.axes, results.design).with_sequential
        if one.setting == best.setting and one.metric in AGAINST and one.difference.mean is not None
    ]
    if compared:
        gains = "; ".join(map(_difference, compared))
        lines.append(("against", f"{name_of(results, compared[0].baseline)}, on test rows: {gains}"))
    lines.append(("how sure", _how_sure(found)))
    lines.append(("it costs", _costs(results, done)))
    gap = _gap(results, wish, found)
    lines += [
        ("runner-up", f"{name_of(results, one.setting)}: {_values(wish, one)}{_behind(gap)}") for one in others[:1]
    ]
    out = [f"{name_of(results, one.setting)} ({_values(wish, one)})" for one in found.left_out]
    lines += [("left out", some(out, SHOWN))] if out else []
    absent: dict[str, list[str]] = {}
    for setting, why in found.absent.items():
        absent.setdefault(why, []).append(name_of(results, setting))
    for why, names in absent.items():
        several = f"{plural(len(names), 'setting')} ({why}): {some(names, NAMED)}"
        lines.append(("left out", several if len(names) > 1 else f"{names[0]} ({why})"))
    surer = _surer(found, compared, gap)
    return [*lines, ("surer with", surer)] if surer else lines


def _measured(results: Results, rows: list[Row], names: tuple[str, ...]) -> str:
    found = {name: estimate_rows(rows, name, results.design) for name in names}
    told = [
        f"{CATALOGUE[name].title} {format_estimate(name, one)}" for name, one in found.items() if one.mean is not None
    ]
    return f"{', '.join(told)} ({units(found['average_accuracy'])})" if told else "nothing was measured"


def _difference(one: Comparison) -> str:
    judged = verdict(one.metric, one.difference, one.p_holm)
    p = "" if one.p_holm is None or judged not in TOLD else f", p = {one.p_holm:.2g} among all comparisons"
    alone = judged == UNCLEAR and one.difference.leaves_zero_out
    judged += " after correction for all comparisons, though its own interval excludes zero" if alone else ""
    return f"{CATALOGUE[one.metric].title} {in_words(one.metric, one.difference)}{p}: {judged}"


def _how_sure(found: Picked) -> str:
    if found.halved:
        return "not told: halving has chosen with all seeds, so none is left to judge the choice"
    if len(found.kept) + len(found.left_out) < 2:
        return "not told: nothing else competed"
    if not found.times:
        return "not told: it takes two seeds to see whether another one would pick it too"
    times, cases = found.times.get(found.kept[0].setting, 0), sum(found.times.values())
    said = f"with one seed left out, each in turn, picked again {times} of {cases} times"
    if None in found.times:
        said += f", and {found.times[None]} times no setting keeps to the limits"
    if found.held_out.mean is None:
        return said
    held = format_number("average_accuracy", found.held_out.mean, signed=True)
    return f"{said}; on the seed left out, what the others pick has {held} points of average accuracy over sequential"


def _costs(results: Results, rows: list[Row]) -> str:
    names = [name for name, entry in CATALOGUE.items() if not entry.better]
    found = {name: estimate_rows(rows, name, results.design).mean for name in names}
    told = [f"{CATALOGUE[name].title} {format_number(name, mean)}" for name, mean in found.items() if mean is not None]
    seconds = estimate(row.get("seconds") for row in rows).mean
    return (
        ", ".join([*told, *([f"{format_number('seconds', seconds)} s a trial"] if seconds else [])]) or "not measured"
    )


def _gap(results: Results, wish: Wish, found: Picked) -> Estimate:
    """What the chosen setting has over the runner-up, in shares, paired over seed and order; empty where there is none,
    and where the wish is no accuracy."""
    if len(found.kept) < 2 or CATALOGUE[wish.objective].unit != "percent":
        return Estimate()
    column = column_of(wish.objective)
    rows = rows_by_setting(finished(results.trials), results.axes)
    sides = [{(row["seed"], row["order"]): row.get(column) for row in rows[one.setting]} for one in found.kept[:2]]
    pairs = {unit: (sides[0][unit], sides[1][unit]) for unit in sides[0] if unit in sides[1]}
    return estimate_units(
        {
            unit: here - there
            for unit, (here, there) in pairs.items()
            if isinstance(here, int | float) and isinstance(there, int | float)
        },
        results.design,
    )


def _behind(gap: Estimate) -> str:
    """Whether the runner-up can be told from the chosen setting; nothing where no interval says so."""
    if gap.interval is None:
        return ""
    points = format_number("average_accuracy", abs(gap.mean or 0.0))
    told = "told apart by their own interval" if gap.leaves_zero_out else "these seeds do not tell the two apart"
    return f"; {points} points between them, {told}"


def _surer(found: Picked, compared: list[Comparison], gap: Estimate) -> str:
    """What would tell the chosen setting from sequential, or else from the runner-up, where that is not told yet."""
    first = compared[0] if compared else None
    if (
        first is not None
        and verdict(first.metric, first.difference, first.p_holm) not in TOLD
        and not first.difference.leaves_zero_out
    ):
        words = what_would_tell(first.difference)
        return f"against sequential, {words}" if words else ""
    if len(found.kept) < 2 or gap.leaves_zero_out:
        return ""
    words = what_would_tell(gap)
    return f"against the runner-up, {words}" if words else ""


def _went_wrong(results: Results) -> list[Line]:
    """A line for everything that went wrong, whatever the number of trials that it happened to."""
    of_reason: dict[str, list[str]] = {}
    for row in results.trials:
        if row["status"] in ("FAILED", "UNFINISHED"):
            of_reason.setdefault(_why(row), []).append(text_in(row, "trial"))
    every = len(results.trials)
    lines = [
        (
            "went wrong",
            f"{found[0]} {why}" if len(found) == 1 else f"{len(found)} of {every} trials {why} ({some(found, 1)})",
        )
        for why, found in of_reason.items()
    ]
    more = len(lines) - SHOWN
    return lines[:SHOWN] + ([("", f"and {plural(more, 'other reason')}")] if more > 0 else [])


def _why(row: Row) -> str:
    said = first_line(text_in(row, "error"))
    return f"{text_in(row, 'status').lower()}: {said}" if said else text_in(row, "status").lower()


def first_line(error: str | None) -> str:
    """The line of an error that says what went wrong: its first, but the last one of a traceback."""
    lines = [line.strip() for line in (error or "").splitlines() if line.strip()]
    if not lines:
        return ""
    return lines[-1] if lines[0].startswith("Traceback ") else lines[0]


def as_text(lines: list[Line]) -> list[str]:
    """The lines for a terminal, labels in a column of their own."""
    wide = max((len(label) for label, _ in lines), default=0) + 2
    return [f"{label:<{wide}}{text}" for label, text in lines]


def as_markdown(lines: list[Line]) -> str:
    """The lines as a list, for a description."""
    return "\n".join(f"- **{label}**: {text}" if label else f"- {text}" for label, text in lines)
