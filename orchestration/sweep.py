"""Run a sweep over continual-learning experiments: `python -m orchestration.sweep sweeps/threshold.yaml`.

The same command again goes on where it stopped: finished stages come from the store. Exit codes: 0 all trials fine,
1 some failed, 2 refused before anything ran, 130 stopped by Ctrl-C before the first trial.
"""

from __future__ import annotations

import argparse
import os
import shlex
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mcit_core.yaml_document import SpecError
from orchestration.keep.files import Folder
from orchestration.plan.halving import race
from orchestration.plan.spec import SweepSpec
from orchestration.plan.stage_tree import costs
from orchestration.plan.sweep_file import load_spec, resolved
from orchestration.plan.trials import Trial, make_trials

if TYPE_CHECKING:
    from orchestration.keep.records import Records

#: seconds of an optimizer step and of a task's evaluation, measured with the embedded model, two workers on two cores
STEP_SECONDS, EVALUATION_SECONDS = 0.17, 1.8


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="a sweep file in YAML, for example sweeps/threshold.yaml")
    parser.add_argument("--dry-run", action="store_true", help="print trials, stages and estimated time; train nothing")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="assignments",
        help="override a key of the file or a field of the experiment, for example train.steps=20",
    )
    parser.add_argument(
        "--storage",
        type=Path,
        default=None,
        metavar="DIR",
        help="where results, stages and mlflow.db go (default: runs)",
    )
    parser.add_argument(
        "--stages",
        default=None,
        metavar="PLACE",
        help="a folder or URI to share finished stages in, for example s3://bucket/stages (default: DIR/stages)",
    )
    parser.add_argument("--workers", type=int, default=None, metavar="N", help="trials at a time")
    parser.add_argument("--address", default=None, help="join the Ray cluster at this address instead of starting one")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="begin a new RUN; the old one is kept beside it, finished stages are reused",
    )
    parser.add_argument("--quiet", action="store_true", help="print the final table and paths only")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        spec = load_spec(args.file, args.assignments)
        storage = choose_storage(args.storage)
        args.stages = choose_stages(args.stages, storage)
        if args.workers is not None and args.workers < 1:
            raise SpecError(f"--workers {args.workers}: expected at least 1")
        check_address(args)
    except SpecError as error:
        errors.print(str(error), markup=False)
        return 2
    trials = make_trials(spec)
    workers = args.workers or spec.workers or max(1, int((os.cpu_count() or 1) / max(spec.cpus, 1e-9)))
    console = Console(highlight=False, quiet=args.quiet, soft_wrap=True)
    if args.dry_run:
        print_plan(console, spec, trials, workers)
        return 0
    try:
        return run(args, spec, trials, storage, workers, console)
    except SpecError as error:
        errors.print(str(error), markup=False)
        return 2
    except KeyboardInterrupt:
        errors.print("stopped; the same command goes on from what is finished")
        return 130


def check_address(args: argparse.Namespace) -> None:
    """Refuse an address where no Ray cluster can be, before anything is done. RAY_ADDRESS stands in for --address."""
    address = args.address or os.environ.get("RAY_ADDRESS") or "local"
    what = f"--address {address}" if args.address else f"RAY_ADDRESS={address}"
    args.address = None if address == "local" else address
    if address in ("local", "auto"):
        return
    form = "expected HOST:PORT of the cluster's head, for example 127.0.0.1:6379"
    if address.startswith(("http://", "https://")):
        raise SpecError(f"{what}: this is the address for `ray job submit --address`, not one to join; {form}")
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not host or not port.isdigit():
        raise SpecError(f"{what}: {form}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise SpecError(f"{what}: no Ray cluster answers there ({error}); {form}") from None


def begin_run(folder: Path, fresh: bool) -> None:
    """The RUN folder; with `fresh` an empty one, the old one renamed to NAME.TIMESTAMP beside it."""
    if fresh and folder.exists():
        begun = time.strftime("%Y%m%d-%H%M%S")
        names = (folder.with_name(f"{folder.name}.{begun}{tail}") for tail in ("", *(f"-{i}" for i in range(2, 100))))
        folder.rename(next(name for name in names if not name.exists()))
    folder.mkdir(parents=True, exist_ok=True)


def choose_storage(storage: Path | None, option: str = "--storage") -> Path:
    """The storage folder. Inside a Ray job a relative one would lie in Ray's temporary copy of the code: refused."""
    chosen = storage or Path("runs")
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and not chosen.is_absolute():
        raise SpecError(
            f"{option} {chosen}: inside a Ray job a relative folder is lost with the job; "
            "give an absolute one that every node can reach"
        )
    if "://" in str(chosen) or str(chosen).startswith(("s3:", "gs:", "hdfs:")):
        raise SpecError(f"{option} {chosen}: expected a folder that every worker can reach; only --stages can be a URI")
    for folder in (chosen, *chosen.parents):
        if folder.exists():
            if not folder.is_dir():
                raise SpecError(f"{option} {chosen}: {folder} is a file; expected a folder")
            if not os.access(folder, os.W_OK):
                raise SpecError(f"{option} {chosen}: {folder} cannot be written to")
            break
    return chosen.resolve()


def choose_stages(place: str | None, storage: Path) -> str:
    """The stage store: a folder, or a URI that pyarrow opens."""
    if place is None:
        return str(storage / "stages")
    try:
        Folder(place).exists()
    except (OSError, ValueError) as error:
        raise SpecError(
            f"--stages {place}: cannot be opened ({error}); expected a folder, or a URI as s3://bucket/stages"
        ) from None
    return place if "://" in place else str(choose_storage(Path(place), "--stages"))


def print_plan(console: Console, spec: SweepSpec, trials: list[Trial], workers: int) -> None:
    counted = costs(trials)
    for trial in trials:
        settings = ", ".join(f"{key}={value}" for key, value in trial.settings.items() if value is not None)
        console.print(f"  {trial.id}  seed {trial.experiment.seed}  {trial.order}  {settings}", markup=False)
    evaluations = counted.stages * (len(spec.tasks) + 1)
    seconds = (sum(counted.distinct.values()) * STEP_SECONDS + evaluations * EVALUATION_SECONDS) / workers
    console.print(
        f"{counted.trials} trials, {counted.stages} stages, {len(counted.distinct)} distinct "
        f"({counted.stages - len(counted.distinct)} shared), {sum(counted.distinct.values())} optimizer steps"
    )
    halving = race(spec, trials)
    if halving:
        left = len(set(halving.settings.values()))
        plan = [f"{left} settings"]
        for rung in halving.rule.rungs(len(spec.tasks)):
            left = halving.rule.kept(left)
            plan.append(f"the best {left} and their equals after stage {rung}")
        console.print(f"halving: {', '.join(plan)}; the counts are those without it, so at most")
    console.print(f"estimated time {_clock(seconds)} on {_count(workers, 'worker')}; nothing was trained")
    console.print(
        f"(from {STEP_SECONDS:g} s a step and {EVALUATION_SECONDS:g} s a task's evaluation, measured for model mini "
        "with two workers on two cores)"
    )


def run(
    args: argparse.Namespace, spec: SweepSpec, trials: list[Trial], storage: Path, workers: int, console: Console
) -> int:
    """Train what is missing, then write and print everything."""
    from orchestration.keep.provenance import describe, run_id, write_sweep
    from orchestration.keep.records import Records
    from orchestration.tracking.background import BackgroundTracker
    from orchestration.tracking.tracker import Tracker, default_uri

    begun = time.time()
    folder = storage / spec.name
    begin_run(folder, args.fresh)
    records = Records(folder, spec, trials)
    console.print(
        f"{spec.name}: {_count(len(trials), 'trial')} on {_count(workers, 'worker')}; results in {folder}", markup=False
    )
    provenance = describe(spec, storage) | run_id(folder)
    write_sweep(folder, resolved(spec), provenance)
    uri = spec.mlflow or default_uri(storage)
    tracker = BackgroundTracker(
        Tracker(uri, records, provenance), lambda text: console.print(text, style="yellow", markup=False)
    )
    _train(args, spec, trials, storage, workers, console, records, tracker)
    records.write()
    provenance |= {"finished": time.strftime("%Y-%m-%d %H:%M:%S"), "seconds": round(time.time() - begun, 1)}
    write_sweep(folder, resolved(spec), provenance)
    from orchestration.report import write_report

    report = write_report(folder)
    tracked = tracker.finish()
    return conclude(args, folder, report, uri, records, tracked)


def _train(
    args: argparse.Namespace,
    spec: SweepSpec,
    trials: list[Trial],
    storage: Path,
    workers: int,
    console: Console,
    records: Records,
    tracker: Any,
) -> None:
    """Run the trials on Ray, until all have ended or the user stops them. Raises SpecError where there is no Ray."""
    if not args.address:
        # read when ray is imported: off, a Ray of the sweep's own takes the loopback alone, on Linux too
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    from orchestration.run.progress import Progress
    from orchestration.run.ray_tune import ray_session, run_trials

    with ExitStack() as stack:
        try:
            stack.enter_context(ray_session(args.address, workers, spec.cpus, spec.gpus))
        except Exception as error:  # Ray has a class of its own for every way in which this fails
            reason = " ".join((str(error) or repr(error)).split())
            if not args.address:
                raise SpecError(f"Ray does not start: {reason}") from error
            token = "where it asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as on the cluster"
            raise SpecError(f"the Ray cluster at {args.address} cannot be joined: {reason}; {token}") from error
        tracker.request()  # the sweep's run is there from the start
        try:
            listener = stack.enter_context(Progress(console, records, tracker.request))
            run_trials(spec, trials, storage, args.stages, listener, workers)
        except KeyboardInterrupt:
            return


def conclude(args: argparse.Namespace, folder: Path, report: Path, uri: str, records: Records, tracked: bool) -> int:
    """Print the table, where to look, and what to do about what is missing."""
    from orchestration.report.console import print_summary

    # a file or a pipe has no width of its own; 80 columns would cut names
    print_summary(folder, Console(highlight=False, width=None if sys.stdout.isatty() else 140))
    again = "python -m orchestration.sweep " + shlex.join(
        [word for word in sys.argv[1:] or [str(args.file)] if word != "--fresh"]
    )
    statuses = [record.status for record in records.records.values()]
    print(f"\nreport: {report}")
    print(f"compare runs: mlflow ui --backend-store-uri {shlex.quote(uri)}")
    if not tracked:
        print(f"MLflow does not have everything; later: python -m orchestration.track {folder}")
    if "FAILED" in statuses or "UNFINISHED" in statuses:
        print(
            f"{statuses.count('FAILED')} failed, {statuses.count('UNFINISHED')} unfinished; finished stages are kept. "
            f"Go on with: {again}"
        )
        return 1
    return 0


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + "s" * (n != 1)


def _clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


if __name__ == "__main__":
    sys.exit(main())
