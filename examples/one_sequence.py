"""One sequence from Python: build an experiment, train it, print its accuracy matrix and metrics.

python examples/one_sequence.py                    # minutes on two cores
python examples/one_sequence.py --steps 5          # to see it work
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mcit_core
from mcit_core.data.workbench import workbench_for
from mcit_core.stages.results import StageResult, matrix, untouched


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", default="mini")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--features", type=Path, help="a folder to cache the frozen features in")
    args = parser.parse_args(arguments)

    # a preset's name, the tasks in the order of training, and any field of the experiment by its dotted path
    experiment = mcit_core.build_experiment(
        args.benchmark, "mini", "o_lora", ("attribute", "ground"), seed=0, settings={"train.steps": args.steps}
    )
    bench = workbench_for(experiment, args.features)  # the model and the rows

    results: list[StageResult] = []
    for result in mcit_core.Sequence(experiment, bench):  # the untouched model's result comes first
        print(f"after {result.task or 'nothing'}:", *(f"{cell:.3f}" for cell in result.row(experiment.order, "test")))
        results.append(result)

    metrics = mcit_core.summarise(matrix(results, experiment.order), untouched(results, experiment.order))
    for name, value in metrics.items():
        print(f"{name:24s}", "undefined" if value is None else f"{value:.3f}")


if __name__ == "__main__":
    main()
