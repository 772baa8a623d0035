"""Pick a setting of a finished sweep and print the experiment to go on with: `python -m orchestration.best RUN`.

The best setting by --objective among those that keep to --max and --min, all on validation rows; what it comes to on
test rows, against `sequential` and beside the runner-up, is told with it. Accuracies are in [0, 1], so that
--max forgetting=0.05 is five points. Exit 0: picked; 2: nothing can be picked, and why.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mcit_core.config import Value
from mcit_core.experiment_file import PARTS
from mcit_core.methods import unread
from mcit_core.metrics import CATALOGUE
from mcit_core.yaml_document import SpecError, dump_yaml
from orchestration.keep.tables import Row
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import make_trials
from orchestration.results.comparisons import Comparison, compare
from orchestration.results.estimates import Estimate, estimate
from orchestration.results.reading import Results, plain_value, read_results
from orchestration.results.settings import Setting, SettingSummary, estimate_rows, rows_by_setting
from orchestration.results.wanted import VALIDATED, Limit, Picked, Wish, column_of, pick
from orchestration.results.words import format_estimate, format_number, setting_label, units

#: settings of either kind that are named
SHOWN = 5


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m orchestration.best",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("run", type=Path, metavar="RUN", help="a RUN folder, for example runs/threshold")
    made.add_argument("--objective", default="average_accuracy", metavar="METRIC", help="default: average_accuracy")
    for name, what in (("max", "most"), ("min", "least")):
        made.add_argument(
            f"--{name}", action="append", default=[], metavar="METRIC=VALUE", help=f"what a mean may be at the {what}"
        )
    made.add_argument("--out", type=Path, default=None, metavar="FILE", help="write the experiment there too")
    return made


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    try:
        limits = [_limit(text, most=True) for text in given.max] + [_limit(text, most=False) for text in given.min]
        print("\n".join(_told(given.run, Wish(given.objective, tuple(limits)), given.out)))
    except (SpecError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _limit(text: str, most: bool) -> Limit:
    name, _, value = text.partition("=")
    column_of(name)
    try:
        return Limit(name, float(value), most)
    except ValueError:
        raise ValueError(f"--{'max' if most else 'min'} {text}: expected METRIC=NUMBER, as forgetting=0.05") from None


def _told(run: Path, wish: Wish, out: Path | None) -> list[str]:
    column_of(wish.objective)
    if not (run / "trials.parquet").exists():
        raise ValueError(f"{run} is no RUN: it has no trials.parquet")
    results = read_results(run)
    found = pick(results.trials, results.axes, wish, results.design)
    if not found.kept:
        raise ValueError(_why_nothing(run, results, wish, found))
    chosen = found.kept[0].setting
    experiment = _experiment(run, results, chosen)
    lines = [
        *_words(results, wish, found),
        "",
        f"# the experiment, for `mcit run` ({_name(results, chosen)})",
        experiment.rstrip(),
    ]
    if out is not None:
        out.write_text(experiment, encoding="utf-8")
    return lines


def _why_nothing(run: Path, results: Results, wish: Wish, found: Picked) -> str:
    if not found.left_out:
        wanted = ", ".join(wish.columns)
        return f"{run}: no setting can be picked: none has a finished trial with {wanted}, references aside"
    near = min(found.left_out, key=lambda summary: sum(not limit.holds(summary) for limit in wish.limits))
    return (
        f"{run}: none of {len(found.left_out)} settings keeps to {_limits_words(wish)}; the nearest is "
        f"{_name(results, near.setting)} with {_values_words(wish, near)}"
    )


def _name(results: Results, setting: Setting) -> str:
    return setting_label(setting, results.axes, method=True)


def _limits_words(wish: Wish) -> str:
    return " and ".join(
        f"{CATALOGUE[limit.metric].title} of {format_number(limit.metric, limit.value)} at the "
        f"{'most' if limit.most else 'least'}"
        for limit in wish.limits
    )


def _values_words(wish: Wish, summary: SettingSummary) -> str:
    names = dict.fromkeys((wish.objective, *(limit.metric for limit in wish.limits)))
    return ", ".join(
        f"{CATALOGUE[name].title} {format_estimate(name, summary.metric(column_of(name)))}" for name in names
    )


def _words(results: Results, wish: Wish, found: Picked) -> list[str]:
    best, *others = found.kept
    rows = rows_by_setting(results.trials, results.axes)
    where = "validation rows" if wish.objective in VALIDATED else "what was measured"
    lines = [
        f"picked      {_name(results, best.setting)}",
        f"because     {_values_words(wish, best)}: the best of {len(found.kept)} by "
        f"{CATALOGUE[wish.objective].title} on {where}"
        + (f" that keep to {_limits_words(wish)}" if wish.limits else ""),
    ]
    lines += [f"runner-up   {_name(results, one.setting)}: {_values_words(wish, one)}" for one in others[:1]]
    lines += [
        f"left out    {_name(results, one.setting)}: {_values_words(wish, one)}" for one in found.left_out[:SHOWN]
    ]
    if len(found.left_out) > SHOWN:
        lines.append(f"            and {len(found.left_out) - SHOWN} more")
    done = [row for row in rows[best.setting] if row["status"] == "FINISHED"]
    shown = ("average_accuracy", "learning_accuracy", "forgetting", "trained_parameters", "memory_bytes")
    test = {name: estimate_rows(done, name, results.design) for name in shown}
    told = [
        f"{CATALOGUE[name].title} {format_estimate(name, value)}"
        for name, value in test.items()
        if value.mean is not None
    ]
    lines.append(f"on test     {', '.join(told)} ({units(test['average_accuracy'])}; {_seconds(done)} a trial)")
    against = [one for one in _compared(results) if one.setting == best.setting]
    lines += [f"            {_difference(results, one)}" for one in against]
    if found.times:
        times = found.times.get(best.setting, 0)
        held = format_number("average_accuracy", found.held_out.mean, signed=True)
        lines.append(
            f"how sure    picked again by {times} of {sum(found.times.values())} when a seed is left out; on the seeds "
            f"left out, {held} points of average accuracy against sequential"
            if found.held_out.mean is not None
            else f"how sure    picked again by {times} of {sum(found.times.values())} when a seed is left out"
        )
    else:
        lines.append("how sure    not told: it takes two seeds to see whether another one would pick it too")
    return lines


def _compared(results: Results) -> list[Comparison]:
    found = compare(results.trials, results.axes, results.design).with_sequential
    return [
        one for one in found if one.metric in ("average_accuracy", "forgetting") and one.difference.mean is not None
    ]


def _difference(results: Results, one: Comparison) -> str:
    mean = format_number(one.metric, one.difference.mean, signed=True)
    interval = one.difference.interval
    width = (
        ""
        if interval is None
        else " [" + ", ".join(format_number(one.metric, end, signed=True) for end in interval) + "]"
    )
    p = "" if one.p_holm is None else f", p = {one.p_holm:.2g} among all comparisons of this run"
    return f"{CATALOGUE[one.metric].title} {mean}{width} points against {_name(results, one.baseline)}{p}"


def _seconds(rows: list[Row]) -> str:
    found: Estimate = estimate(row.get("seconds") for row in rows)
    return f"{format_number('seconds', found.mean)} s"


def _experiment(run: Path, results: Results, setting: Setting) -> str:
    """The experiment file of a setting's first trial. Raises SpecError where the RUN's sweep cannot be read here."""
    spec = load_spec(run / "sweep.yaml")
    first = rows_by_setting(results.trials, results.axes)[setting][0]
    axes = [name for name in results.axes if name not in ("method", "order")]
    # not by its name, which is another one where a later version knows more settings
    wanted = {"method": first["method"], "seed": first["seed"], "order": first["order"]}
    wanted |= {name: first.get(name) for name in axes}
    for trial in make_trials(spec):
        told = {"method": trial.method, "seed": trial.experiment.seed, "order": trial.order}
        told |= {name: plain_value(trial.settings.get(name)) for name in axes}
        if told == wanted:
            break
    else:
        raise SpecError(f"{run}/sweep.yaml makes no trial of {_name(results, setting)} any more")
    made = trial.experiment
    dotted = {**spec.base, **{path: value for path, value in trial.settings.items() if value is not None}}
    dotted.pop("method", None)
    for path in unread(made.method, dotted) & dotted.keys():
        del dotted[path]
    content: dict[str, Value] = {
        "benchmark": made.benchmark,
        "model": made.model,
        "method": made.method,
        "order": [*made.order],
        "seed": made.seed,
        **{path: value for path, value in dotted.items() if path.partition(".")[0] not in PARTS},
    }
    return dump_yaml(content)


if __name__ == "__main__":
    sys.exit(main())
