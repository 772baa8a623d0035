"""What trials cost: seconds of training and evaluation, bytes in the store, memory, of each setting and in all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from mcit_core.choices import kind_of, options_of
from mcit_core.config import Experiment
from mcit_core.stages.looks import looks
from mcit_core.stages.results import UNTOUCHED
from orchestration.plan.stage_tree import Costs, Look, StageTree, look_at
from orchestration.plan.stored import MadeFrom, Stored, shows
from orchestration.plan.timings import (
    USUAL,
    Timing,
    evaluation_likeness,
    rows_name,
    steps_name,
    training_likeness,
    untouched_likeness,
)
from orchestration.plan.trials import Trial
from orchestration.results.words import format_value, short_axis_names

#: seconds of an optimizer step and of an evaluated row of the embedded model, with two workers on two cores
STEP_SECONDS, ROW_SECONDS = 0.17, 0.0026
#: rows of a task's splits in the embedded benchmark; retention: of the embedded model's own sample
ROWS = {"validation": 200, "test": 500, "retention": 300}


@dataclass(frozen=True)
class Amount:
    """`train` and `evaluate` are a worker's seconds, `disk` bytes in the stage store. `stages` are to be trained, and
    `kept` are stored; `untimed` and `unsized` those of `stages` of which seconds and bytes are not known, and left
    out. Numbers of stages are parts where they are shared."""

    train: float = 0.0
    evaluate: float = 0.0
    disk: float = 0.0
    stages: float = 0.0
    kept: float = 0.0
    untimed: float = 0.0
    unsized: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Amount)))

    def __mul__(self, factor: float) -> Amount:
        return Amount(*(factor * getattr(self, f.name) for f in fields(Amount)))

    @property
    def seconds(self) -> float:
        return self.train + self.evaluate


@dataclass
class Line:
    """A setting's part. A stage that several trials share is charged to them in equal parts, so that the lines add up
    to the total. `peak`: bytes of a GPU's memory that a stage took, at most; None where that was not measured."""

    setting: str
    trials: list[Trial] = field(default_factory=list)
    amount: Amount = Amount()
    peak: float | None = None
    timings: set[Timing] = field(default_factory=set)


@dataclass
class Bill:
    """`stages`: key -> the stage by itself; `begin`: the untouched model's evaluation, which comes before. `steps` and
    `rows` (None: not known) are those of all stages, stored ones too; `nominal`: some of the steps are a guess."""

    tree: StageTree
    lines: list[Line]
    stages: dict[str, Amount]
    begin: Amount
    total: Amount
    steps: int
    rows: int | None
    nominal: bool


def bill(trials: list[Trial], tree: StageTree, counted: Costs, stored: Stored, device: str) -> Bill:
    """What is left to do for trials of the tree, as far as the timings in `stored` tell it."""
    timer = _Timer(stored, device)
    experiments = {key: trial.experiment for trial in reversed(trials) for key in tree.chains[trial.id]}
    stages = {key: timer.stage(tree, key, counted.looks[key], one) for key, one in experiments.items()}
    untouched = {trial.id: timer.untouched(trial.experiment) for trial in trials}
    users = Counter(key for chain in tree.chains.values() for key in chain)
    viewers = Counter(name for names in untouched.values() for name in names)
    lines: dict[str, Line] = {}
    for trial, setting in zip(trials, settings_of(trials), strict=True):
        line = lines.setdefault(setting, Line(setting))
        line.trials.append(trial)
        for key in tree.chains[trial.id]:
            line.amount += stages[key] * (1 / users[key])
            line.timings |= timer.used.get(key, set())
            line.peak = max(filter(None, (line.peak, timer.peaks.get(key))), default=None)
        for name, amount in untouched[trial.id].items():
            line.amount += amount * (1 / viewers[name])
    once = {name: amount for names in untouched.values() for name, amount in names.items()}
    begin = sum(once.values(), Amount())
    steps = [timer.steps(tree, key, one) for key, one in experiments.items()]
    rows = [timer.rows(one, look) for key, one in experiments.items() for look in counted.looks[key]]
    return Bill(
        tree,
        [*lines.values()],
        stages,
        begin,
        sum(stages.values(), begin),
        sum(number for number, _ in steps),
        None if None in rows else sum(number or 0 for number in rows),
        not all(sure for _, sure in steps),
    )


class _Timer:
    """By the key of a stage, `used`: the timings that its training comes from, `peaks`: bytes of a GPU's memory."""

    def __init__(self, stored: Stored, device: str) -> None:
        self.stored, self.timings, self.device = stored, stored.timings, device
        self.used: dict[str, set[Timing]] = {}
        self.peaks: dict[str, float] = {}
        self._found: dict[tuple[str, ...], Timing | None] = {}

    def _timing(self, likeness: tuple[str, ...], one: Experiment, training: bool) -> Timing | None:
        if likeness not in self._found:
            found = (self.timings.train if training else self.timings.evaluate)(likeness)
            if found is None and kind_of(one.model) == "mini":
                found = Timing(0.0, STEP_SECONDS if training else ROW_SECONDS, 0, USUAL)
            self._found[likeness] = found
        return self._found[likeness]

    def stage(self, tree: StageTree, key: str, looked: set[Look], one: Experiment) -> Amount:
        made_from, timings = tree.made_from[key], self.timings
        there = self.stored.stages.get(key)
        seconds, untimed = 0.0, False
        for look, rows in self._left(one, looked, there or ()):
            like = evaluation_likeness(made_from, self.device, look.task, look.split)
            timing = self._timing(like, one, False)
            untimed |= timing is None or rows is None
            seconds += 0.0 if timing is None or rows is None else timing.seconds(rows)
        if there is not None:
            return Amount(evaluate=seconds, kept=1.0, untimed=float(untimed))
        like = training_likeness(made_from, self.device)
        timing, size = self._timing(like, one, True), timings.bytes(like)
        self.used[key] = {timing} if timing else set()
        if (peak := timings.memory(like)) is not None:
            self.peaks[key] = peak
        return Amount(
            timing.seconds(self.steps(tree, key, one)[0]) if timing else 0.0,
            seconds,
            size or 0.0,
            stages=1.0,
            untimed=float(untimed or timing is None),
            unsized=float(size is None),
        )

    def steps(self, tree: StageTree, key: str, one: Experiment) -> tuple[int, bool]:
        """A stage's optimizer steps, and whether they are sure: with epochs they are once such a stage was trained."""
        if one.train.epochs is None:
            return tree.steps[key], True
        found = self.timings.steps.get(steps_name(tree.made_from[key]))
        return (tree.steps[key], False) if found is None else (found, True)

    def untouched(self, one: Experiment) -> dict[tuple[object, ...], Amount]:
        """What the untouched model is evaluated on, by what it is the same for."""
        if one.protocol == "majority":  # which asks no model
            return {}
        like = untouched_likeness(one, self.device)
        timing = self._timing(like, one, False)
        found: dict[tuple[object, ...], Amount] = {}
        wanted = {look_at(one, *place) for place in looks(one, UNTOUCHED)}
        left = dict(self._left(one, wanted, self.stored.untouched))
        for look in wanted:
            rows = left.get(look, 0)
            known = rows == 0 or (timing is not None and rows is not None)
            seconds = timing.seconds(rows) if timing is not None and rows else 0.0
            found[(*like, look)] = Amount(evaluate=seconds, untimed=0.0 if known else 1.0)
        return found

    def _left(self, one: Experiment, looked: set[Look], there: Sequence[MadeFrom]) -> list[tuple[Look, int | None]]:
        """Those that are not stored, with their rows where these are known; none of a sample that the model lacks."""
        wanted = [look for look in sorted(looked, key=str) if not any(shows(made, one, look) for made in there)]
        return [(look, rows) for look in wanted if (rows := self.rows(one, look)) != 0]

    def rows(self, one: Experiment, look: Look) -> int | None:
        """Rows that are evaluated, None where that is not known without reading the benchmark."""
        known = embedded_rows(one, look.split)
        if known is None:
            known = self.timings.rows.get(rows_name(one.benchmark, look.task, look.split))
        return look.most if known is None else min(known, look.most or known)


def embedded_rows(one: Experiment, split: str) -> int | None:
    """Rows of a split of the embedded benchmark, and of the sample of the embedded model; other models come with none.
    None of other benchmarks."""
    if split == "retention":
        return ROWS[split] if kind_of(one.model) == "mini" else 0
    if kind_of(one.benchmark) != "mini":
        return None
    return int(str(options_of(one.benchmark).get(f"{split}_rows", ROWS[split])))


def settings_of(trials: list[Trial]) -> list[str]:
    """Of each trial the setting that it is of, in words: method and axis values; the tuner too where a method has
    several."""
    short = short_axis_names(
        name for name in dict.fromkeys(key for t in trials for key in t.settings) if name != "method"
    )
    tuners: dict[str, set[str]] = {}
    for trial in trials:
        tuners.setdefault(trial.method, set()).add(trial.experiment.tuner)
    found = []
    for trial in trials:
        words = [
            f"{short[name]} {format_value(value)}"
            for name, value in trial.settings.items()
            if name != "method" and value is not None
        ]
        if len(tuners[trial.method]) > 1 and trial.stages:
            words = [trial.experiment.tuner, *words]
        found.append(f"{trial.method} ({', '.join(words)})" if words else trial.method)
    return found


def critical_path(tree: StageTree, stages: Mapping[str, Amount]) -> tuple[float, int]:
    """The longest chain of stages of which each waits for the one before: its seconds, and how many they are."""
    longest: dict[str, tuple[float, int]] = {}
    for chain in tree.chains.values():
        for key in chain:  # parents come first
            before = longest.get(tree.parents[key] or "", (0.0, 0))
            longest[key] = (before[0] + stages[key].seconds, before[1] + 1)
    return max(longest.values(), default=(0.0, 0))


def gpus_held(workers: int, gpus: float) -> int:
    """GPUs that so many workers keep to themselves, each with `gpus`; a share of a GPU never spans two."""
    return math.ceil(workers / int(1 / gpus)) if 0 < gpus < 1 else math.ceil(workers * gpus)
