"""One sequence in one process, without Ray: `python -m mcit_core.run EXPERIMENT.yaml`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from safetensors import SafetensorError

from mcit_core.config import Experiment
from mcit_core.experiment_file import load_experiment
from mcit_core.metrics import summarise
from mcit_core.stages.results import UNTOUCHED, Matrix, StageResult, matrix, untouched
from mcit_core.yaml_document import SpecError


def print_matrix(experiment: Experiment, accuracy: Matrix, zero_shot: list[float | None]) -> None:
    width = max(9, *(len(task) for task in experiment.order))
    print("\naccuracy in %, after the stage in the row, on the task in the column")
    print(" " * (width + 2) + " ".join(task.rjust(width) for task in experiment.order))
    for name, row in zip(("untouched", *experiment.order), (zero_shot, *accuracy), strict=False):
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
    except SpecError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        return run(experiment, None if args.no_cache else args.features)
    except SpecError as error:
        print(f"{args.experiment}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def run(experiment: Experiment, features: Path | None) -> int:
    """Train the sequence and print what it comes to. Raises SpecError where the model or the data cannot be loaded."""
    from mcit_core.data.workbench import workbench_for
    from mcit_core.training.sequence import Sequence

    try:
        bench = workbench_for(experiment, features)
    except (OSError, ValueError, SafetensorError) as error:
        raise SpecError(
            f"model {experiment.model} or benchmark {experiment.benchmark} cannot be loaded: {error}"
        ) from error
    results: list[StageResult] = []
    for result in Sequence(experiment, bench):
        results.append(result)
        if result.stage != UNTOUCHED:
            print(
                f"stage {result.stage} {result.task}: loss {result.metrics['loss/last']:.3f}, "
                f"{result.metrics['seconds/train']:.1f} s training, "
                f"{result.metrics['seconds/evaluate']:.1f} s evaluating",
                flush=True,
            )
    accuracy, zero_shot = matrix(results, experiment.order), untouched(results, experiment.order)
    print_matrix(experiment, accuracy, zero_shot or [])
    if accuracy:
        print()
        for name, value in summarise(accuracy, zero_shot).items():
            print(f"{name:24s} {'undefined' if value is None else f'{100 * value:.1f} %'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
