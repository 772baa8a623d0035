"""What evaluation takes of a sequence, all cells against those that a metric reads: `python tests/speed/evaluation.py`.

Trains one sequence of four tasks, then evaluates its stages in turns, everything and what is used, in one process.
Prints seconds, their ratio, the share of training and evaluation together, and whether the cells
used are among all, unchanged.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from mcit_core.config import Value
from mcit_core.data.workbench import workbench_for
from mcit_core.methods import build_experiment
from mcit_core.stages.results import Evaluation
from mcit_core.training.sequence import Sequence
from orchestration.keep.stage_store import StageStore

ORDER = ("ground", "locate", "attribute", "bars")


class StagesAlone(StageStore):
    """Keeps no evaluation, so that each is made again."""

    def get_evaluation(self, key: str, stage: str | None = None) -> Evaluation | None:
        return None

    def put_evaluation(self, key: str, evaluation: Evaluation, stage: str | None = None) -> None:
        """Nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rows", type=int, help="evaluation.rows; left out: all")
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {"all": [], "used": []}
    cells: dict[str, set[object]] = {}
    training = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.turns):
            for name, taken in seconds.items():
                settings: dict[str, Value] = {
                    "train.steps": args.steps,
                    "evaluation.cells": name,
                    "evaluation.rows": args.rows,
                }
                experiment = build_experiment("mini", "mini", "fwd_prompt", ORDER, 0, settings)
                sequence = Sequence(experiment, workbench_for(experiment, Path(folder)), StagesAlone(folder))
                results = list(sequence)
                taken.append(sum(result.metrics["seconds/evaluate"] for result in results))
                training = sum(result.metrics.get("seconds/train", 0.0) for result in results)
                cells[name] = {(result.stage, *vars(cell).values()) for result in results for cell in result.accuracy}
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    print(f"training {training:.1f} s")
    for name, median in medians.items():
        share = median / (median + training)
        print(f"{name:5} {median:6.1f} s of evaluation, {100 * share:.0f} % of both, {len(cells[name])} cells")
    print(
        f"ratio {medians['all'] / medians['used']:.2f}; "
        f"those used are among all, unchanged: {cells['used'] <= cells['all']}"
    )


if __name__ == "__main__":
    main()
