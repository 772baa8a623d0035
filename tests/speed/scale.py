"""A sweep on hundreds of workers, simulated: `python tests/speed/scale.py --trials 100 1000 10000`.

The planner, the search, the scheduler, progress, records and journal are the real ones, on real files; stages are not
trained and last STAGE virtual seconds, give or take half; workers are lost and trials fail now and then. Whatever the
driver takes of its processor stands still on the virtual clock too, since one process serves all workers. Ray Tune's
own loop is not in it (tests/speed/driver.py has that), nor MLflow, which is another thread's (tests/speed/tracking.py).
"""

from __future__ import annotations

import argparse
import heapq
import io
import itertools
import math
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import yaml
from rich.console import Console

from mcit_core.stages.results import Cell, StageResult
from orchestration.keep import records as records_module
from orchestration.keep.records import Records
from orchestration.plan.scheduler import StageScheduler
from orchestration.plan.stage_tree import stage_tree
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import Trial
from orchestration.run.progress import Progress
from orchestration.search.course import Course

STEPS, STAGE = 60, 20.0
LOST, FAILED = 0.002, 0.0005  # of the stages
TRACES = ("loss", "grad_norm")


class Clock:
    """Virtual seconds. While the driver works, its processor's time passes."""

    def __init__(self) -> None:
        self.at, self._since, self.busy = 0.0, 0.0, 0.0

    def begin(self, at: float) -> None:
        """The driver takes up what happened at this time, once it is free."""
        self.at, self._since = max(self.at, at), time.process_time()

    def end(self) -> None:
        took = time.process_time() - self._since
        self.at, self.busy = self.at + took, self.busy + took
        self._since = time.process_time()

    def monotonic(self) -> float:
        return self.at + time.process_time() - self._since

    time = monotonic


def sweep(folder: Path, trials: int, search: str) -> Path:
    """A sweep of so many trials of eight stages, of which those of one rate share none."""
    seeds = 5
    settings = max(1, trials // seeds)
    content: dict[str, object] = {
        "name": "scale",
        "benchmark": "mini",
        "model": "mini",
        "method": "fwd_prompt",
        "seeds": list(range(seeds)),
    }
    if search == "grid":
        rates = max(1, settings // 4)
        content["axes"] = {
            "train.lr": [round(0.001 * 1.0005**i, 9) for i in range(rates)],
            # the first stage depends on no threshold, so that a rate's four settings share it
            "projection.task_energy": [0.5, 0.6, 0.7, 0.8][: math.ceil(settings / rates)],
        }
    else:
        content["axes"] = {
            "train.lr": {"low": 0.001, "high": 1.0, "log": True},
            "projection.task_energy": {"low": 0.4, "high": 0.99},
        }
        kind: dict[str, object] = {"kind": "random"} if search == "random" else {"kind": "optuna", "sampler": search}
        content["search"] = {**kind, "trials": settings, "batch": 64}
    path = folder / "scale.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def result(trial: Trial, stage: int, rng: random.Random) -> StageResult:
    cells = [
        Cell(task, split, rng.random(), rng.random(), 500)
        for task in trial.experiment.order[: stage + 2]
        for split in ("test", "validation")
    ]
    measured = {f"measured/{i}": rng.random() for i in range(20)} | {"loss/last": 0.5, "seconds/train": STAGE}
    return StageResult(stage, trial.experiment.order[stage], cells, measured, {name: trace(rng) for name in TRACES})


def trace(rng: random.Random) -> list[float | None]:
    return [rng.random() for _ in range(STEPS)]


def memory() -> float:
    """Resident MiB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def simulate(trials: int, workers: int, search: str) -> Iterator[tuple[str, float]]:
    clock, rng = Clock(), random.Random(0)
    records_module.time = SimpleNamespace(monotonic=clock.monotonic)  # type: ignore[assignment]
    before = memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun = time.process_time()
        spec = load_spec(sweep(folder, trials, search))
        run = folder / "runs"
        run.mkdir()
        course = Course(spec, run)
        records = Records(run, spec, course.trials())
        records.begin(lambda trial: "key")
        progress = Progress(Console(file=io.StringIO()), records, lambda trial: None)
        tree = stage_tree([])
        stages = StageScheduler(tree, clock=clock.monotonic)
        known: dict[str, Trial] = {}

        def admit(new: list[Trial]) -> None:
            stages.extend([key for trial in new for key in tree.add(trial)])
            known.update({trial.id: trial for trial in new})
            for trial in new:
                stages.add(trial.id, trial.batch)

        admit([record.trial for record in records.records.values()])
        admit(course.more(records, progress.added))
        yield "planning, s", time.process_time() - begun
        events: list[tuple[float, int, str, int]] = []
        numbers = itertools.count()
        done = lost = failed = 0
        idle, free_since = 0.0, dict.fromkeys(range(workers), 0.0)
        at: dict[str, int] = {}  # trial -> its worker
        free = list(range(workers))
        last = 0.0
        while True:
            clock.begin(clock.at)
            while free and (name_ := stages.choose()) is not None:
                stages.start(name_)
                progress.started(name_)
                worker = free.pop()
                idle += clock.monotonic() - free_since[worker]
                at[name_] = worker
                place = stages.places[name_]
                stage = place.chain.index(place.claim) if place.claim else len(place.chain) - 1
                heapq.heappush(events, (clock.monotonic() + STAGE * (0.5 + rng.random()), next(numbers), name_, stage))
            clock.end()
            if not events:
                if not stages.places:
                    break
                clock.at += 0.5  # those that were lost wait
                continue
            when, _, trial, stage = heapq.heappop(events)
            last = max(last, when)
            clock.begin(when)
            if rng.random() < LOST:
                lost += 1
                stages.lose(trial)
                progress.paused(trial)
                _release(trial, at, free, free_since, when)
            elif rng.random() < FAILED:
                failed += 1
                progress.failed(trial, "OutOfMemoryError: no message")
                stages.end(trial)
                _release(trial, at, free, free_since, when)
            else:
                record = records.records[trial]
                new = [result(known[trial], i, rng) for i in range(len(record.trained), stage + 1)]
                done += len(new)
                progress.stages(trial, new, "key")
                goes_on = True
                for one in new:
                    goes_on = stages.finish(trial, one.stage)
                if stage == len(stages.places[trial].chain) - 1:
                    progress.finished(trial)
                    stages.end(trial)
                    _release(trial, at, free, free_since, when)
                elif goes_on:
                    idle += clock.monotonic() - when
                    heapq.heappush(
                        events, (clock.monotonic() + STAGE * (0.5 + rng.random()), next(numbers), trial, stage + 1)
                    )
                else:
                    progress.paused(trial)
                    _release(trial, at, free, free_since, when)
            admit(course.more(records, progress.added))
            clock.end()
        begun = time.process_time()
        records.write()
        yield "trials", float(len(records.records))
        yield "stage results", float(done)
        yield "workers lost", float(lost)
        yield "trials failed", float(failed)
        yield "results a second of the driver's processor", done / clock.busy
        yield "idle until there is no more to begin, %", 100 * idle / (workers * last)
        yield "virtual hours", last / 3600
        yield "last writing, s", time.process_time() - begun
        yield "memory, MiB", memory()
        yield "memory a trial, KiB", 1024 * (memory() - before) / len(records.records)
        yield "journal and tables, MiB", sum(path.stat().st_size for path in run.iterdir()) / 2**20


def _release(trial: str, at: dict[str, int], free: list[int], free_since: dict[int, float], when: float) -> None:
    worker = at.pop(trial)
    free.append(worker)
    free_since[worker] = when


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--workers", type=int, default=256)
    parser.add_argument("--search", default="grid", help="grid, random, or a sampler of Optuna's")
    asked = parser.parse_args()
    for trials in asked.trials:
        print(f"{trials} trials, {asked.search}")
        for name, value in simulate(trials, asked.workers, asked.search):
            print(f"  {name:45}{value:12.1f}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
