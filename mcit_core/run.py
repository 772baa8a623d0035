"""One sequence in one process, without Ray: `python -m mcit_core.run EXPERIMENT.yaml`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml
from pydantic import ValidationError

from mcit_core.config import Experiment, flatten
from mcit_core.methods import PRESETS, build_experiment
from mcit_core.metrics import summarise
from mcit_core.registry import BENCHMARKS


def load_experiment(path: Path) -> Experiment:
    """An experiment from YAML: benchmark, model, method, then optionally order, seed and any section or dotted key.
    Raises ValueError with file, key and remedy."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping with benchmark, model and method")
    settings = flatten(content)
    missing = {"benchmark", "model", "method"} - settings.keys()
    if missing:
        raise ValueError(f"{path}: {', '.join(sorted(missing))} missing")
    benchmark, model, method = (str(settings.pop(key)) for key in ("benchmark", "model", "method"))
    if method not in PRESETS:
        raise ValueError(f"{path}: method: no method {method!r}; there are {', '.join(PRESETS)}")
    try:
        tasks = BENCHMARKS.load(benchmark)().tasks
        order = tuple(settings.pop("order", tasks))
        unknown = [task for task in order if task not in tasks]
        if unknown:
            raise ValueError(f"{path}: order: {benchmark} has no task {unknown[0]!r}; it has {', '.join(tasks)}")
        return build_experiment(benchmark, model, method, order, settings.pop("seed", 0), settings)
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def print_matrix(experiment: Experiment, matrix: list[list[float | None]], zero_shot: list[float | None]) -> None:
    width = max(9, *(len(task) for task in experiment.order))
    print("\naccuracy in %, after the stage in the row, on the task in the column")
    print(" " * (width + 2) + " ".join(task.rjust(width) for task in experiment.order))
    for name, row in zip(("untouched", *experiment.order), (zero_shot, *matrix), strict=False):
        print(
            name.rjust(width)
            + "  "
            + " ".join(("-" if cell is None else f"{100 * cell:.1f}").rjust(width) for cell in row)
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mcit_core.run", description=__doc__)
    parser.add_argument("experiment", type=Path, help="a YAML file, for example sweeps/experiment.yaml")
    parser.add_argument("--features", type=Path, default=Path("runs/features"), help="folder of the feature cache")
    parser.add_argument("--no-cache", action="store_true", help="encode the frozen features afresh at every step")
    args = parser.parse_args()
    try:
        experiment = load_experiment(args.experiment)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    from mcit_core.sequence import Sequence  # torch and transformers load only once the input is known to be good
    from mcit_core.workbench import workbench_for

    bench = workbench_for(experiment, None if args.no_cache else args.features)
    column = {task: i for i, task in enumerate(experiment.order)}
    matrix: list[list[float | None]] = []
    zero_shot: list[float | None] = []
    for result in Sequence(experiment, bench):
        row: list[float | None] = [None] * len(column)
        for cell in result.accuracy:
            if cell["split"] == "test":
                row[column[cell["task"]]] = cell["accuracy"]
        if result.task is None:
            zero_shot = row
        else:
            matrix.append(row)
            print(
                f"stage {result.stage} {result.task}: loss {result.metrics['loss/last']:.3f}, "
                f"{result.metrics['seconds/train']:.1f} s training, "
                f"{result.metrics['seconds/evaluate']:.1f} s evaluating",
                flush=True,
            )
    print_matrix(experiment, matrix, zero_shot)
    if matrix:
        print()
        for name, value in summarise(matrix, zero_shot).items():
            print(f"{name:24s} {'undefined' if value is None else f'{100 * value:.1f} %'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
