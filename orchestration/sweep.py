"""Run a sweep over continual-learning experiments: `python -m orchestration.sweep sweeps/threshold.yaml`.

The same command again goes on where it stopped: finished stages come from the store. Exit codes: 0 all trials fine,
1 some failed, 2 refused before anything ran, 130 stopped by Ctrl-C before the first trial.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mcit_core.choices import kind_of
from mcit_core.yaml_document import SpecError
from orchestration.arguments import Command, check_device, find_sweep, fitting, parser, read_command
from orchestration.dry_run import print_plan
from orchestration.keep.files import StorageError, without_userinfo, writing
from orchestration.plan.spec import SweepSpec
from orchestration.plan.sweep_file import load_spec, resolved
from orchestration.plan.trials import Trial, at_once, known_trials, stand_ins
from orchestration.search.registry import settings_of
from orchestration.search.settings import OptunaSettings, SearchSettings

if TYPE_CHECKING:
    from orchestration.keep.records import Records
    from orchestration.plan.halving import Race
    from orchestration.run.progress import Progress
    from orchestration.run.stopping import Stop
    from orchestration.search.course import Course
    from orchestration.tracking.background import BackgroundTracker


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # on a terminal that is not UTF-8 a sign more or less harms nothing
    asked = parser(__doc__).parse_args(words)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        spec = load_spec(find_sweep(asked.file), asked.assignments)
        trials = known_trials(spec)
        command = read_command(asked, words, spec, at_once(spec, trials))
        check_device(spec, trials)
        console = Console(highlight=False, quiet=command.quiet, soft_wrap=True)
        if command.dry_run:
            print_plan(console, spec, stand_ins(spec), command)
            if command.unfit:
                errors.print(command.unfit, markup=False)
            return 2 if command.unfit else 0
        return run(command, spec, trials, console)
    except SpecError as error:
        errors.print(str(error), markup=False)
        return 2
    except StorageError as error:
        errors.print(str(error), markup=False)
        return 1
    except KeyboardInterrupt:
        errors.print("stopped; the same command goes on from what is finished")
        return 130


def begin_run(folder: Path, fresh: bool) -> None:
    """The RUN folder; with `fresh` an empty one, the old one renamed to NAME.TIMESTAMP beside it."""
    if fresh and folder.exists():
        begun = time.strftime("%Y%m%d-%H%M%S")
        names = (folder.with_name(f"{folder.name}.{begun}{tail}") for tail in ("", *(f"-{i}" for i in range(2, 100))))
        folder.rename(next(name for name in names if not name.exists()))
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def run(command: Command, spec: SweepSpec, trials: list[Trial], console: Console) -> int:
    """Train what is missing, then write and print everything."""
    from orchestration.keep.run_lock import run_lock

    if not spec.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # this process too uses what the trials use
    with run_lock(command.storage / spec.name):
        return _run(command, spec, trials, console)


def _run(command: Command, spec: SweepSpec, trials: list[Trial], console: Console) -> int:
    from orchestration.keep.provenance import describe, run_id, write_sweep
    from orchestration.keep.records import Records
    from orchestration.search.course import Course, known_beforehand
    from orchestration.tracking.background import BackgroundTracker
    from orchestration.tracking.tracker import Tracker, tracking_uri, wants_system_metrics

    begun = time.time()
    storage, folder = command.storage, command.storage / spec.name
    on = _count(command.workers, "worker") if command.workers else "as many workers as fit on the cluster"
    console.print(f"{spec.name}: {what_runs(spec, trials)} on {on}; results in {folder}", markup=False)
    check_stages(command.stages, console)
    console.print("model and data: loading; features are made once for each task")
    provenance = describe(spec, trials, storage)
    known = known_beforehand(spec, folder, command.fresh)
    begin_run(folder, command.fresh)
    provenance |= run_id(folder)
    course = Course(spec, folder, known)
    for line in course.said:
        console.print(line, markup=False)
    records = Records(folder, spec, course.trials())
    from orchestration.run.from_store import key_here
    from orchestration.run.stopping import stoppable

    # a race has to see every trial pass its rungs again
    for line in records.begin(lambda trial: key_here(trial.experiment, storage / "features"), bool(spec.halving)):
        console.print(line, markup=False)
    write_sweep(folder, resolved(spec), provenance)
    uri = tracking_uri(spec, storage)
    tracker = BackgroundTracker(
        Tracker(uri, records, provenance, wants_system_metrics(spec)),
        lambda text: console.print(text, style="yellow", markup=False),
    )

    def finish(trouble: str = "", patience: float = 60) -> int:
        records.write()
        course.conclude(records)
        provenance["finished"] = time.strftime("%Y-%m-%d %H:%M:%S")
        provenance["seconds"] = round(time.time() - begun, 1)
        write_sweep(folder, resolved(spec), provenance)
        from orchestration.report import write_report

        with writing(folder / "report.html"):
            report = write_report(folder)
        tracked = tracker.finish(patience)
        for told in filter(None, (trouble, course.trouble)):
            console.print(told, style="yellow", markup=False)
        experiment = tracker.tracker.mirror.experiment
        return conclude(command, folder, report, uri, records, course.over, tracked, experiment)

    with stoppable(lambda: finish(patience=2)) as stop:
        try:
            trouble = _train(command, spec, course, console, records, tracker, stop)
        except SpecError:
            tracker.finish(2)  # or else MLflow would have the sweep running for ever
            raise
    return finish(trouble)


def what_runs(spec: SweepSpec, trials: list[Trial]) -> str:
    settings = settings_of(spec.search)
    if not isinstance(settings, SearchSettings):
        return _count(len(trials), "trial")
    each = len(spec.orders) * len(spec.seeds)
    sampler = f" ({settings.sampler})" if isinstance(settings, OptunaSettings) else ""
    return f"{_count(settings.trials, 'setting')} by {kind_of(spec.search)}{sampler}, {_count(each, 'trial')} each"


def check_stages(place: str, console: Console) -> None:
    """That an object store can be written to, before anything is begun. Raises SpecError."""
    from orchestration.keep.files import LocalFolder
    from orchestration.keep.opening import open_folder

    folder = open_folder(place)
    if isinstance(folder, LocalFolder):
        return
    try:
        exact = folder.exact
    except StorageError as error:
        raise SpecError(f"--stages {error}") from error
    if not exact:
        console.print(
            f"{folder.root}: this store does not honour If-None-Match, so that two workers may train one stage; that "
            "costs time and changes nothing",
            style="yellow",
            markup=False,
        )


def _train(
    command: Command,
    spec: SweepSpec,
    course: Course,
    console: Console,
    records: Records,
    tracker: BackgroundTracker,
    stop: Stop,
) -> str:
    """Run the trials on Ray, until all have ended or the user stops them; those of which everything is known or stored
    need none. Returns what went wrong beside the trials themselves. Raises SpecError where there is no Ray."""
    from orchestration.run.progress import Progress

    with Progress(console, records, tracker.request) as progress:
        tracker.request()  # the sweep's run is there from the start
        from mcit_core.data.workbench import drop_workbenches

        try:
            from orchestration.run.from_store import read_race, read_trials

            def more() -> list[Trial]:
                return course.more(records, progress.added)

            left = [record.trial for record in records.records.values() if record.status != "FINISHED"]
            race = course.race(records)
            if race is not None and course.over:
                if read_race(records, race, progress):
                    left = []
                else:
                    race = course.race(records)  # anew, since that one may have begun
            # a race has to see every trial pass
            while race is None and (left or (left := more())):
                stored = len(left)
                left = read_trials(left, command.storage / "features", command.stages, progress)
                if left and len(left) == stored:
                    break
            drop_workbenches()  # models are no more use here, and their memory is their workers'
            return _train_on_ray(command, spec, left, more, race, progress, stop) if left or not course.over else ""
        except KeyboardInterrupt:
            return progress.hopeless


def _train_on_ray(
    command: Command,
    spec: SweepSpec,
    trials: list[Trial],
    more: Callable[[], list[Trial]],
    race: Race | None,
    progress: Progress,
    stop: Stop,
) -> str:
    if not command.address:
        # read when ray is imported: off, a Ray of the sweep's own takes the loopback alone, on Linux too
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    from orchestration.run.ray_tune import end_tune, ray_session, rooms, run_trials
    from orchestration.run.shared_storage import check_shared
    from orchestration.tracking.mirror import load_client

    load_client()
    where = f"joining the cluster at {command.address}" if command.address else "starting on this machine"
    progress.console.print(f"Ray: {where}, for {_count(len(trials), 'trial')}", markup=False)
    with ExitStack() as stack:
        try:
            stack.enter_context(ray_session(command.address))
        except Exception as error:  # Ray has a class of its own for every way in which this fails
            reason = " ".join((str(error) or repr(error)).split())
            if not command.address:
                raise SpecError(f"Ray does not start: {reason}") from error
            token = "where it asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as on the cluster"
            raise SpecError(f"the Ray cluster at {command.address} cannot be joined: {reason}; {token}") from error
        if command.address and not check_shared(command.storage):
            progress.console.print(
                f"{command.storage}: a lock there counts on its own node alone, so that two nodes may train one stage "
                "of two sweeps; that costs time and changes nothing",
                style="yellow",
                markup=False,
            )
        if command.address and command.workers:  # of a cluster that may grow
            workers = command.workers
        else:
            fit = fitting(spec, rooms(), "the largest node" if command.address else "this machine, as Ray counts,")
            workers = min(command.workers or at_once(spec, trials), fit)
        stop.take_signals()  # which Ray has taken
        stop.end_running = end_tune
        try:
            run_trials(spec, trials, more, race, command.storage, command.stages, progress, workers)
        except Exception as error:  # whatever Tune ends with, what the trials have shown is in the records
            reason = " ".join((str(error) or repr(error)).split())
            told = f"Ray Tune ended with an error ({type(error).__name__}: {reason}); results are complete up to there"
            return progress.hopeless or told
        finally:
            stop.end_running = None
    return progress.hopeless


def conclude(
    command: Command,
    folder: Path,
    report: Path,
    uri: str,
    records: Records,
    over: bool,
    tracked: bool,
    experiment: str,
) -> int:
    """Print the table, where to look, and what to do about what is missing. over: whether a search has proposed all of
    its settings. experiment: MLflow's id of it, "" where that is not known."""
    from orchestration.report.console import print_summary

    # a file or a pipe has no width of its own; 80 columns would cut names
    print_summary(folder, Console(highlight=False, width=None if sys.stdout.isatty() else 140))
    statuses = [record.status for record in records.records.values()]
    print(f"\nreport: {report}")
    print(f"compare runs: {where_to_look(uri)}")
    for line in what_to_click(uri, experiment, records.spec) if experiment else ():
        print(f"  {line}")
    if not tracked:
        print(f"MLflow does not have everything; later: python -m orchestration.track {folder}")
    if "FAILED" in statuses or "UNFINISHED" in statuses or not over:
        more = "" if over else " and more to be proposed"
        print(
            f"{statuses.count('FAILED')} failed, {statuses.count('UNFINISHED')} unfinished{more}; finished stages are "
            f"kept. Go on with: {command.again}"
        )
        return 1
    return 0


def where_to_look(uri: str) -> str:
    """How to see what MLflow has: a server by its address, a database by MLflow's own."""
    shown = without_userinfo(uri)
    return shown if shown.startswith(("http://", "https://")) else f"mlflow ui --backend-store-uri {shlex.quote(shown)}"


def what_to_click(uri: str, experiment: str, spec: SweepSpec) -> list[str]:
    """Where in MLflow's pages the sweep is. By its address, since MLflow's list leads to its pages for language
    models, where there is nothing of it."""
    from orchestration.results.words import short_axis_names

    shown = without_userinfo(uri).rstrip("/")
    server = shown if shown.startswith(("http://", "https://")) else "http://127.0.0.1:5000"
    axes = [f"axis.{name}" for name in short_axis_names(spec.axes).values()]
    swept = f" of {' and '.join(axes[:3])} with average_accuracy" if axes else ""
    return [
        f"then open {server}/#/experiments/{experiment}/runs?workflowType=machine_learning",
        f"the run {spec.name}: what came out under Overview, its settings as charts under Model metrics",
        f"the + beside it: its trials; tick some, then Compare: Parallel Coordinates Plot{swept}",
    ]


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + "s" * (n != 1)


if __name__ == "__main__":
    sys.exit(main())
