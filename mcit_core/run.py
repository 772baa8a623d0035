"""One sequence without Ray: `python -m mcit_core.run EXPERIMENT.yaml`.

In one process; or, with train.processes: N in the file, in as many, of which the first evaluates, prints and writes:
`torchrun --nproc-per-node N -m mcit_core.run EXPERIMENT.yaml`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from safetensors import SafetensorError

from mcit_core.config import Experiment
from mcit_core.experiment_file import load_experiment
from mcit_core.folders import check_folder, write_atomic
from mcit_core.metrics import summarise_protocol
from mcit_core.parallel import Team
from mcit_core.stages.matrix_csv import matrix_csv
from mcit_core.stages.results import UNCHANGED, UNTOUCHED, StageResult, matrix, untouched
from mcit_core.yaml_document import SpecError, dump_yaml


def print_matrix(tasks: Sequence[str], rows: list[tuple[str, list[float | None]]]) -> None:
    width = max(9, *(len(name) for name in (*tasks, *(name for name, _ in rows))))
    print("\naccuracy in %, after the stage in the row, on the task in the column")
    print(" " * (width + 2) + " ".join(task.rjust(width) for task in tasks))
    for name, cells in rows:
        shown = ("-" if cell is None else f"{100 * cell:.1f}" for cell in cells)
        print(name.rjust(width) + "  " + " ".join(cell.rjust(width) for cell in shown))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m mcit_core.run", description=__doc__)
    parser.add_argument("experiment", type=Path, help="a YAML file, for example sweeps/experiment.yaml")
    parser.add_argument("--features", type=Path, default=Path("runs/features"), help="folder of the feature cache")
    parser.add_argument("--no-cache", action="store_true", help="encode the frozen features afresh at every step")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="also write accuracy_matrix.csv, metrics.json and experiment.yaml (resolved) there, at the end",
    )
    args = parser.parse_args(arguments)
    try:
        if args.out is not None:
            check_folder(args.out, "--out")
        experiment = load_experiment(args.experiment)
    except SpecError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        return run(experiment, None if args.no_cache else args.features, args.out)
    except SpecError as error:
        print(f"{args.experiment}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def run(experiment: Experiment, features: Path | None, out: Path | None = None) -> int:
    """Train the sequence, print what it comes to and write it into `out`. Raises SpecError where the model or the data
    cannot be loaded, or other than train.processes have been started and come."""
    from mcit_core.parallel import PeerError, launched, leave

    try:
        team = launched()
    except (ValueError, PeerError) as error:
        raise SpecError(str(error)) from error
    try:
        if team.size != experiment.train.processes:
            raise SpecError(
                f"train.processes is {experiment.train.processes}, and {team.size} started; set it to 1, or start "
                "as many by `torchrun --nproc-per-node N -m mcit_core.run`"
            )
        return _run(experiment, features, out, team)
    finally:
        leave()


def _run(experiment: Experiment, features: Path | None, out: Path | None, team: Team) -> int:
    from mcit_core.data.workbench import workbench_for
    from mcit_core.training.sequence import Sequence as Stages
    from mcit_core.training.stage import train_stage

    if not team.rank:
        print("model and data: loading", flush=True)
    try:
        bench = workbench_for(experiment, features)
        if experiment.protocol != "majority":
            _ = bench.model.language_model  # weights that are loaded when they are needed are loaded here
    except (OSError, ValueError, SafetensorError) as error:
        raise SpecError(
            f"model {experiment.model} or benchmark {experiment.benchmark} cannot be loaded: {error}"
        ) from error
    results: list[StageResult] = []
    stages = Stages(experiment, bench, trainer=partial(train_stage, team=team))
    if team.rank:
        stages.follow()
        return 0
    print("untouched model: evaluating; features are made once for each task", flush=True)
    for result in stages:
        results.append(result)
        if result.stage != UNTOUCHED:
            print(
                f"stage {result.stage} {result.task}: loss {result.metrics['loss/last']:.3f}, "
                f"{result.metrics['seconds/train']:.1f} s training, "
                f"{result.metrics['seconds/evaluate']:.1f} s evaluating",
                flush=True,
            )
            if UNCHANGED in result.metrics:
                print(f"stage {result.stage} {result.task}: it left all its weights as they were", flush=True)
        for key in stages.chain[result.stage + 1 : result.stage + 2]:
            print(f"stage {result.stage + 1} {key.task}: training", flush=True)
    tasks = experiment.order
    rows = [(result.task or "untouched", result.row(tasks, "test")) for result in results]
    metrics = summarise_protocol(experiment.protocol, matrix(results, tasks), untouched(results, tasks))
    print_matrix(tasks, rows)
    print()
    for name, value in metrics.items():
        print(f"{name:24s} {'undefined' if value is None else f'{100 * value:.1f} %'}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / "accuracy_matrix.csv", (matrix_csv(tasks, rows)).encode())
        write_atomic(out / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())
        write_atomic(out / "experiment.yaml", dump_yaml(experiment.model_dump(mode="json")).encode())
        print(f"\nwritten to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
