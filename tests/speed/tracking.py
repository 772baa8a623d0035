"""What MLflow costs: `python tests/speed/tracking.py --trials 300`.

Logs a made-up RUN of so many trials of eight stages and eight tasks, with the metrics of a prompt pool and a loss at
every training step, to a fresh sqlite store, as a sweep's end does. Prints the seconds, those of a core beside them,
which a busy machine changes less, and the requests to the store by name; then the same of a second look that has
nothing to do. With --profile, where the time goes.
"""

from __future__ import annotations

import argparse
import cProfile
import math
import pstats
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from mcit_core.stages.results import UNTOUCHED, Cell, StageResult, Trace
from orchestration.keep.provenance import Provenance, write_sweep
from orchestration.keep.records import Records
from orchestration.plan.sweep_file import load_spec, resolved
from orchestration.plan.trials import make_trials
from orchestration.tracking.tracker import Tracker, tracking_uri

STAGES, STEPS = 8, 60
SWEEP = """\
name: many
benchmark: mini
tasks: {tasks}
model: mini
method: fwd_prompt
base: {{train.steps: {steps}}}
axes:
  projection.task_energy: {energies}
seeds: {seeds}
"""


def made_up(records: Records) -> None:
    """Every trial finished, its numbers made up."""
    tasks = records.spec.tasks
    for i, record in enumerate(records.records.values()):
        for t in range(UNTOUCHED, len(tasks)):
            cells = [
                Cell(task, split, 0.5 + 0.4 * math.sin(i + t + j), 0.9, 100)
                for j, task in enumerate(tasks)
                for split in ("validation", "test")
            ]
            trained = {"seconds/train": 9.0, "loss/first": 3.0, "loss/last": 1 / (t + 2), "pretrained_retention": 0.9}
            trained |= {f"pool/measure{k}": 0.5 for k in range(10)} | {f"subspace/{k}": 0.1 for k in range(6)}
            loss: Trace = [3 / (1 + step) for step in range(STEPS)]
            stage = StageResult(t, tasks[t] if t >= 0 else None, cells, {"seconds/evaluate": 1.0})
            record.stages.append(stage)
            if t != UNTOUCHED:
                stage.metrics.update(trained)
                stage.traces["loss"] = loss
        record.status = "FINISHED"


class Timed:
    """A client whose requests are counted and timed."""

    def __init__(self, client: object, counts: Counter[str], seconds: Counter[str]) -> None:
        self.client, self.counts, self.seconds = client, counts, seconds

    def __getattr__(self, name: str) -> Callable[..., object]:
        method: Callable[..., object] = getattr(self.client, name)

        def call(*args: object, **more: object) -> object:
            begun = time.monotonic()
            try:
                return method(*args, **more)
            finally:
                self.counts[name] += 1
                self.seconds[name] += time.monotonic() - begun

        return call


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "many.yaml"
        values = min(10, given.trials)
        energies = [round(0.5 + 0.04 * k, 3) for k in range(values)]
        text = SWEEP.format(tasks=STAGES, steps=STEPS, energies=energies, seeds=list(range(given.trials // values)))
        file.write_text(text)
        spec = load_spec(file)
        run = Path(folder) / spec.name
        run.mkdir()
        records = Records(run, spec, make_trials(spec))
        made_up(records)
        records.write()
        provenance: Provenance = {"run_id": "many", "data": {task: f"digest of {task}" for task in spec.tasks}}
        write_sweep(run, resolved(spec), provenance)

        def tracked() -> None:
            counts: Counter[str] = Counter()
            seconds: Counter[str] = Counter()
            tracker = Tracker(tracking_uri(spec, Path(folder)), records, provenance)
            opened: Callable[[], object] = tracker.mirror._open
            tracker.mirror._open = lambda: Timed(opened(), counts, seconds)  # type: ignore[method-assign, assignment, return-value]
            tracker.mirror.connect()  # makes the tables, once a storage
            counts.clear()
            seconds.clear()
            begun, worked = time.monotonic(), time.process_time()
            tracker.sync(final=True)
            spent, worked = time.monotonic() - begun, time.process_time() - worked
            print(f"{len(records.records)} trials of {len(spec.tasks)} stages: {spent:.1f} s, {worked:.1f} s of a core")
            print("; ".join(f"{name} {counts[name]} in {took:.1f} s" for name, took in seconds.most_common()))

        profile = cProfile.Profile()
        if given.profile:
            profile.enable()
        tracked()
        profile.disable()
        tracked()
        if given.profile:
            pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
