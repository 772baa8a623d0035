"""Pick a setting of a finished sweep and print the experiment to go on with: `python -m orchestration.best RUN`.

The best setting by --objective among those that keep to --max and --min, all on validation rows; what it comes to on
test rows, against `sequential` and beside the runner-up, is told with it. Accuracies are in [0, 1], so that
--max forgetting=0.05 is five points. Exit 0: picked; 2: nothing can be picked, and why.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from mcit_core.config import Value
from mcit_core.experiment_file import PARTS
from mcit_core.folders import write_atomic
from mcit_core.methods import unread
from mcit_core.metrics import CATALOGUE
from mcit_core.yaml_document import SpecError, dump_yaml
from orchestration.keep.files import StorageError, writing
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import field_of
from orchestration.results.answer import answer, as_text, name_of, why_nothing
from orchestration.results.reading import Results, check_run, plain_value, read_results
from orchestration.results.settings import Setting, rows_by_setting
from orchestration.results.wanted import Limit, Wish, column_of, pick
from orchestration.search.proposals import run_trials_of


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
    except StorageError as error:
        print(f"--out: {error}", file=sys.stderr)
        return 2
    except (SpecError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _limit(text: str, most: bool) -> Limit:
    option = f"--{'max' if most else 'min'} {text}"
    name, _, value = (part.strip() for part in text.partition("="))
    wrong = ValueError(f"{option}: expected METRIC=NUMBER, as forgetting=0.05")
    if not name:
        raise wrong
    column_of(name)
    try:
        number = float(value)
    except ValueError:
        raise wrong from None
    if not math.isfinite(number):
        raise wrong
    if CATALOGUE[name].unit == "percent" and abs(number) > 1:
        raise ValueError(f"{option}: accuracies are in [0, 1]; did you mean {name}={number / 100:g}?")
    return Limit(name, number, most)


def _told(run: Path, wish: Wish, out: Path | None) -> list[str]:
    column_of(wish.objective)
    check_run(run)
    results = read_results(run)
    found = pick(results.trials, results.axes, wish, results.design)
    if not found.kept:
        raise ValueError(f"{run}: {why_nothing(results, wish, found)}")
    chosen = found.kept[0].setting
    experiment = _experiment(run, results, chosen)
    if out is not None:
        if out.exists() and out.read_bytes() != experiment.encode():
            raise ValueError(f"--out {out}: is there already, with something else in it; give another name")
        with writing(out):
            write_atomic(out, experiment.encode())
    head = f"# the experiment, for `mcit run` ({name_of(results, chosen)})"
    return [*as_text(answer(results, wish, found)), "", head, experiment.rstrip()]


def _experiment(run: Path, results: Results, setting: Setting) -> str:
    """The experiment file of a setting's first trial. Raises SpecError where the RUN's sweep cannot be read here."""
    spec = load_spec(run / "sweep.yaml")
    first = rows_by_setting(results.trials, results.axes)[setting][0]
    axes = [name for name in results.axes if name not in ("method", "order")]
    # not by its name, which is another one where a later version knows more settings
    wanted = {"method": first["method"], "seed": first["seed"], "order": first["order"]}
    wanted |= {name: first.get(name) for name in axes}
    for trial in run_trials_of(spec, run):
        told = {"method": trial.method, "seed": trial.experiment.seed, "order": trial.order}
        told |= {name: plain_value(trial.settings.get(name)) for name in axes}
        if told == wanted:
            break
    else:
        raise SpecError(f"{run}/sweep.yaml makes no trial of {name_of(results, setting)} any more")
    made = trial.experiment
    # None is a value of some settings, and of others says that they have nothing to do with the trial
    swept = {p: value for p, value in trial.settings.items() if value is not None or field_of(made, p, "") is None}
    dotted = {**spec.base, **swept}
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
