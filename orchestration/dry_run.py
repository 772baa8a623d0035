"""What `--dry-run` prints of a sweep: its trials, and what they cost."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mcit_core.stages.keys import NOMINAL_ROWS
from mcit_core.yaml_document import SpecError
from orchestration.arguments import Command
from orchestration.keep.files import StorageError
from orchestration.plan.bill import (
    ROW_SECONDS,
    STEP_SECONDS,
    Amount,
    Bill,
    Line,
    bill,
    critical_path,
    gpus_held,
)
from orchestration.plan.deadline import fewest_workers, wall_seconds
from orchestration.plan.halving import race
from orchestration.plan.memory import Memory, kind, memory_of
from orchestration.plan.spec import SweepSpec
from orchestration.plan.stage_tree import Costs, StageTree, costs, stage_tree
from orchestration.plan.stored import Stored, read_store
from orchestration.plan.timings import LIKE, NEAR, PROBED, ROUGH, USUAL, Timing
from orchestration.plan.trials import Trial, at_once
from orchestration.results.words import some
from orchestration.search.registry import settings_of
from orchestration.search.settings import SearchSettings

#: a plan of more trials than LISTED lists SHOWN of them, and so of settings
LISTED, SHOWN = 250, 20
#: characters of a line that a setting's name has at least
LABEL = 12
#: columns that a narrow terminal does without, the first at first
DISPENSABLE = ("timed", "stored", "trials", "peak", "disk", "evaluation", "training")
#: settings that are named where seconds are explained
TOLD = 3
#: how alike -> in words
ALIKE = {
    LIKE: "the same settings",
    NEAR: "the same protection, but other sizes or strengths",
    ROUGH: "the same tuner, but other protection",
    PROBED: "a few steps here",
    USUAL: "no stored stage",
}
#: seconds of a unit, from which on it is used, and its name
UNITS = ((2 * 86_400, 86_400, "d"), (5400, 3600, "h"), (90, 60, "min"))


def print_plan(console: Console, spec: SweepSpec, trials: list[Trial], command: Command) -> None:
    """Trains nothing, unless `command.probe` asks for a few steps. Raises what a probe meets."""
    tree = stage_tree(trials)
    counted = costs(trials, tree)
    device = "cuda" if spec.gpus and any(trial.experiment.train.device != "cpu" for trial in trials) else "cpu"
    _print_trials(console, trials)
    if spec.searched:
        console.print("settings at random stand in for those that the search will propose")
    try:
        stored = read_store(command.stages, trials, tree, device)
    except StorageError as error:
        console.print(f"no timings are read from the stage store: {error}", markup=False)
        stored = Stored()
    if command.probe:
        if spec.processes > 1:
            raise SpecError(f"--probe times one process, and resources.processes is {spec.processes}; leave it out")
        _probe(console, trials, tree, stored, device, command)
    found = bill(trials, tree, counted, stored, device)
    _print_counts(console, spec, trials, counted, found)
    memory = memory_of(trials)
    wide = Console(highlight=False, width=None if sys.stdout.isatty() else 140, quiet=command.quiet)
    table, left_out = settings_table(found, memory, spec, command.rate, wide.width)
    wide.print(table)
    if left_out:
        console.print(f"this terminal is too narrow for {', '.join(left_out)}")
    for line in [*told_lines(found, spec, command), *memory.lines]:
        console.print(line, markup=False)


def _print_trials(console: Console, trials: list[Trial]) -> None:
    for trial in trials if len(trials) <= LISTED else trials[:SHOWN]:
        settings = ", ".join(f"{key}={value}" for key, value in trial.settings.items() if value is not None)
        console.print(f"  {trial.id}  seed {trial.experiment.seed}  {trial.order}  {settings}", markup=False)
    if len(trials) > LISTED:
        console.print(f"  and {len(trials) - SHOWN} more, in the same way", markup=False)


def _probe(
    console: Console, trials: list[Trial], tree: StageTree, stored: Stored, device: str, command: Command
) -> None:
    from orchestration.plan.probe import probe

    begun, lines = time.perf_counter(), 0
    try:
        for line in probe(trials, tree, stored.timings, device, command.storage / "features"):
            console.print(line, markup=False)
            lines += 1
    except Exception as error:  # whatever a model, data or a GPU that is not here can raise
        why = " ".join((str(error) or repr(error)).split())
        raise SpecError(f"--probe: {why}; leave it out, and the plan does without its times") from error
    if lines:
        console.print(f"the probe took {clock(time.perf_counter() - begun)}; nothing of it is in the stage store")
    else:
        console.print("--probe: nothing to try, all is timed by what is stored")


def _print_counts(console: Console, spec: SweepSpec, trials: list[Trial], counted: Costs, found: Bill) -> None:
    rows = found.rows
    splits = sum(counted.evaluated.values())
    console.print(
        f"{counted.trials} trials, {counted.stages} stages, {len(counted.distinct)} distinct "
        f"({counted.stages - len(counted.distinct)} shared), {found.steps} optimizer steps, "
        f"{f'{splits} splits' if rows is None else f'at most {rows} rows'} evaluated after stages"
    )
    if found.nominal:
        console.print(f"steps of stages in epochs are counted as if a task had {NOMINAL_ROWS} training rows")
    if found.total.kept:
        console.print(
            f"{found.total.kept:.0f} of the stages are stored already and are not trained again, if data and weights "
            "are as they were; what follows is for the others"
        )
    halving = race(spec, trials)
    if halving:
        search = settings_of(spec.search)
        left = search.batch if isinstance(search, SearchSettings) else len(set(halving.settings.values()))
        plan = [f"of every batch {left} settings" if spec.searched else f"{left} settings"]
        for rung in halving.rule.rungs(len(spec.tasks)):
            left = halving.rule.kept(left)
            plan.append(f"the best {left} and their equals after stage {rung}")
        console.print(f"halving: {', '.join(plan)}; the counts are those without it, so at most")


def settings_table(
    found: Bill, memory: Memory, spec: SweepSpec, rate: float | None, width: int
) -> tuple[Table, list[str]]:
    """A line for each setting and one for all of them. Columns of which nothing is known are left out, and so are those
    for which `width` characters are too few: their names come back too."""
    lines = found.lines if len(found.lines) <= SHOWN else found.lines[:SHOWN]
    rest = found.lines[len(lines) :]
    if rest:
        more = Line(f"and {len(rest)} more settings")
        for line in rest:
            more.trials += line.trials
            more.amount += line.amount
            more.timings |= line.timings
            more.peak = max(filter(None, (more.peak, line.peak)), default=None)
        lines = [*lines, more]
    total = Line("in all", [trial for line in found.lines for trial in line.trials], found.total)
    total.timings = {timing for line in found.lines for timing in line.timings}
    total.peak = max((line.peak for line in found.lines if line.peak), default=None)
    columns: list[tuple[str, Callable[[Line], str]]] = [
        ("trials", lambda line: str(len(line.trials))),
        ("stages", lambda line: number(line.amount.stages)),
    ]
    if found.total.kept:
        columns.append(("stored", lambda line: number(line.amount.kept)))
    columns += [
        ("training", lambda line: known(line.amount, clock(line.amount.train))),
        ("evaluation", lambda line: known(line.amount, clock(line.amount.evaluate))),
        ("worker-h", lambda line: known(line.amount, hours(line.amount.seconds))),
    ]
    if spec.gpus:
        columns.append(
            ("GPU-h", lambda line: known(line.amount, hours(line.amount.seconds * spec.gpus * spec.processes)))
        )
    if any(line.peak for line in found.lines) or memory.peaks:
        columns.append(("peak", lambda line: peak(line, memory)))
    if found.total.unsized < found.total.stages:
        columns.append(("disk", lambda line: ("≥ " if line.amount.unsized else "") + size(line.amount.disk)))
    if rate is not None:
        columns.append(("money", lambda line: known(line.amount, money(line.amount, spec, rate))))
    if any(line.timings for line in found.lines):
        columns.append(("timed", timed))
    shown = {name: [show(line) for line in [*lines, total]] for name, show in columns}
    left_out: list[str] = []
    for name in DISPENSABLE:
        if name in shown and LABEL + sum(1 + max(map(len, [title, *cells])) for title, cells in shown.items()) > width:
            del shown[name]
            left_out.append(name)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("setting", overflow="fold", min_width=LABEL)
    for name in shown:
        table.add_column(name, justify="right", no_wrap=True)
    for number_of_line, line in enumerate([*lines, total]):
        table.add_row(Text(line.setting), *(cells[number_of_line] for cells in shown.values()))
    return table, left_out


def told_lines(found: Bill, spec: SweepSpec, command: Command) -> Iterable[str]:
    """Where the seconds come from, how long it takes on the workers there are, and the fewest for a deadline."""
    total = found.total
    if total.untimed:
        yield (
            f"of {math.ceil(total.untimed - 1e-9)} stages and evaluations no time is known beforehand (–); --probe "
            "tries them here, and after a first sweep its stored stages tell; nothing was trained"
        )
    yield from origins(found)
    yield "a stage that trials share is charged to them in equal parts, so the settings add up to the total"
    if total.untimed:
        if command.deadline is not None:
            yield "--deadline: without a time for every stage no number of workers can be told"
        return
    workers = command.workers or 1
    least = ""
    if spec.searched:  # a batch waits for an earlier one, which the stand-ins do not
        workers, least = min(workers, at_once(spec, [])), "at least "
    seconds = {key: amount.seconds for key, amount in found.stages.items()}
    wall = wall_seconds(found.tree, seconds, workers, found.begin.seconds)
    yield (
        f"estimated time {least}{clock(wall)} on {count(workers, 'worker')}, beside what starting and making features "
        f"takes{'' if command.probe else '; nothing was trained'}"
    )
    if command.rate is not None:
        whose = "a GPU" if spec.gpus else "a worker" if spec.processes == 1 else "a process"
        yield (
            f"money: {command.rate:g} an hour of {whose}, only while it works; "
            f"reserved for the whole time, idle too: {reserved(workers, wall, spec, command.rate)}"
        )
    if command.deadline is not None and spec.searched:
        yield f"--deadline: a search's batches wait for one another; more than {at_once(spec, [])} workers have no use"
    elif command.deadline is not None:
        yield from deadline_lines(found, spec, command.deadline, command.rate, seconds)


def origins(found: Bill) -> Iterable[str]:
    """A line for each way in which seconds of training are known, the best first."""
    for alike in ALIKE:
        settings = [line.setting for line in found.lines if any(t.alike == alike for t in line.timings)]
        timings = {timing for line in found.lines for timing in line.timings if timing.alike == alike}
        if timings:
            yield f"{alike}: {origin(alike, timings)}; {some(settings, TOLD)}"


def origin(alike: str, timings: set[Timing]) -> str:
    if alike == USUAL:
        return (
            f"{STEP_SECONDS:g} s a step and {1000 * ROW_SECONDS:g} ms an evaluated row, measured for model mini with "
            "two workers on two cores"
        )
    takes = f"{between([timing.each for timing in timings], '.3g')} s a step"
    if any(timing.fixed for timing in timings):
        takes += f" and {between([timing.fixed for timing in timings], '.2g')} s a stage"
    if alike == PROBED:
        return f"{takes}, from the probe"
    samples = between([timing.samples for timing in timings], "g")
    spreads = [timing.spread for timing in timings if timing.spread is not None]
    steps = between([number for timing in timings for number in timing.units], "g")
    hardware = sorted({timing.hardware for timing in timings} - {""})
    return (
        f"{takes}, medians of {samples} stored stage{'s' * (samples != '1')} of {steps} steps"
        f"{' on ' + some(hardware, 2) if hardware else ''} with {ALIKE[alike]}"
        f"{f', half of them within {100 * max(spreads):.0f} %' if spreads else ''}"
    )


def between(numbers: list[float] | list[int], form: str) -> str:
    low, high = (f"{number:{form}}" for number in (min(numbers), max(numbers)))
    return low if low == high else f"{low} to {high}"


def deadline_lines(
    found: Bill, spec: SweepSpec, deadline: float, rate: float | None, seconds: dict[str, float]
) -> Iterable[str]:
    begin = found.begin.seconds
    fewest = fewest_workers(found.tree, seconds, deadline, begin)
    if fewest is None:
        most = max(len(found.tree.chains), 1)
        path, stages = critical_path(found.tree, found.stages)
        best = wall_seconds(found.tree, seconds, most, begin)
        yield (
            f"--deadline {clock(deadline)}: no number of workers is enough; {most}, one for each trial, take "
            f"{clock(best)}, and {count(stages, 'stage')} that wait for one another {clock(path)}"
        )
        return
    workers, wall = fewest
    idle = workers * wall - found.total.seconds
    costs_money = "" if rate is None else f", money {reserved(workers, wall, spec, rate)}"
    held = f" with {count(gpus_held(workers * spec.processes, spec.gpus), 'GPU')}" if spec.gpus else ""
    yield (
        f"--deadline {clock(deadline)}: {count(workers, 'worker')}{held} at least, done in {clock(wall)}; reserved, "
        f"idle too, {hours(workers * wall)} worker-h ({hours(max(idle, 0.0))} idle){costs_money}"
    )


def reserved(workers: int, wall: float, spec: SweepSpec, rate: float) -> str:
    """Money for workers, or their GPUs, that are held from beginning to end."""
    processes = workers * spec.processes
    held = gpus_held(processes, spec.gpus) if spec.gpus else processes
    return f"{held * wall / 3600 * rate:,.2f}"


def money(amount: Amount, spec: SweepSpec, rate: float) -> str:
    return f"{amount.seconds / 3600 * (spec.gpus or 1) * spec.processes * rate:,.2f}"


def known(amount: Amount, text: str) -> str:
    """A number of seconds or of what follows from them, as far as it is known."""
    if not amount.untimed:
        return text
    return f"≥ {text}" if amount.seconds else "–"


def peak(line: Line, memory: Memory) -> str:
    """Measured, or else (~) estimated."""
    if line.peak:
        return size(line.peak)
    estimated = [memory.peaks[name] for t in line.trials if (name := kind(t.experiment)) and name in memory.peaks]
    return f"~{size(max(estimated))}" if estimated else "–"


def timed(line: Line) -> str:
    """How alike the stages are that the seconds come from, at worst."""
    return max((timing.alike for timing in line.timings), key=[*ALIKE].index, default="")


def clock(seconds: float) -> str:
    """A duration in its own unit: "3.2 s", "12 min", "2.5 h"."""
    for least, unit, name in UNITS:
        if seconds >= least:
            value = seconds / unit
            return f"{value:.0f} {name}" if name == "min" else f"{value:,.1f} {name}"
    return f"{seconds:.0f} s" if seconds >= 10 or not seconds else f"{seconds:.1f} s"


def hours(seconds: float) -> str:
    value = seconds / 3600
    return (
        f"{value:,.0f}"
        if value >= 100
        else f"{value:.1f}"
        if value >= 10
        else f"{value:.2f}"
        if value >= 0.1
        else f"{value:.3f}"
    )


def size(found: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if found >= unit:
            return f"{found / unit:.1f} {name}"
    return f"{found / 1e3:.0f} kB"


def number(value: float) -> str:
    """A number of stages, which is a part where they are shared."""
    return f"{value:.0f}" if abs(value - round(value)) < 1e-6 else f"{value:.1f}"


def count(n: int, what: str) -> str:
    return f"{n} {what}" + "s" * (n != 1)
