"""Seconds, bytes and memory of stages, from stages that were trained before.

What must be equal: the model with all its options, the benchmark but for its numbers of rows, the tuner, batch size,
parts of a batch, precision, threads, and whether it is a GPU. Learning rates, schedules, seeds and orders do not
matter. Of what is left the most alike count: LIKE, the same kinds of protection and the same sizes, on the same task
where that is known; NEAR, the same kinds of protection, other sizes or strengths; ROUGH, other protection.
Seconds are those of a worker that has its device to itself (`busy`).
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from mcit_core.choices import kind_of, options_of
from mcit_core.config import PROTECTING, Experiment
from mcit_core.stages.digest import digest

#: how alike the stages are that seconds come from, the best first; USUAL: none, a figure of the project's own
LIKE, NEAR, ROUGH, PROBED, USUAL = "like", "near", "rough", "probe", "usual"
#: of each level of a likeness, how alike its stages are
LEVELS = (LIKE, LIKE, NEAR, ROUGH)
#: numbers of steps that differ less tell nothing of what a stage takes beside its steps
APART = 1.5


@dataclass(frozen=True)
class Sample:
    """A stage's training, or an evaluation: `units` optimizer steps or rows took so many seconds on `hardware`."""

    units: int
    seconds: float
    hardware: str = ""


@dataclass(frozen=True)
class Timing:
    """`fixed` seconds and `each` for every step or row, from `samples` of which the middle half lies within `spread`
    (0.08: ± 8 %; None where there is one) of what that gives; `units`: the fewest and the most that one of them had."""

    fixed: float
    each: float
    samples: int
    alike: str
    spread: float | None = None
    units: tuple[int, int] = (0, 0)
    hardware: str = ""

    def seconds(self, units: float) -> float:
        return self.fixed + self.each * units


def fit(samples: Sequence[Sample], alike: str) -> Timing:
    """Medians over those of the samples (at least one) that ran on the commonest hardware. Where their numbers of steps
    differ enough, what a stage takes beside its steps is told apart by the slope between the lower and the upper ones;
    else it is shared out over the steps, which makes longer stages too dear."""
    (hardware, _), *_ = Counter(sample.hardware for sample in samples).most_common(1)
    used = [sample for sample in samples if sample.hardware == hardware]
    low, high = min(s.units for s in used), max(s.units for s in used)
    fixed, each = 0.0, 0.0
    if high >= APART * low:
        middle = (low + high) / 2
        ends = [[s for s in used if (s.units > middle) == upper] for upper in (False, True)]
        (x0, y0), (x1, y1) = ((_median(s.units for s in end), _median(s.seconds for s in end)) for end in ends)
        each = (y1 - y0) / (x1 - x0)
        fixed = y0 - each * x0
    if each <= 0 or fixed < 0:
        fixed, each = 0.0, _median(s.seconds / s.units for s in used)
    timing = Timing(fixed, each, len(used), alike, None, (low, high), hardware)
    if len(used) < 2 or not each:
        return timing
    off = sorted(abs(s.seconds / timing.seconds(s.units) - 1) for s in used)
    return Timing(fixed, each, len(used), alike, off[(len(off) - 1) // 2], (low, high), hardware)


def _median(values: Iterable[float]) -> float:
    return float(statistics.median(values))


@dataclass
class Timings:
    """Samples by what they are of; see `training_likeness` and `evaluation_likeness`. `rows`: of (benchmark, task,
    split) its rows, where all of them were evaluated; `steps`: of a stage in epochs, by what decides them, its
    steps."""

    training: dict[str, list[Sample]] = field(default_factory=dict)
    evaluation: dict[str, list[Sample]] = field(default_factory=dict)
    disk: dict[str, list[int]] = field(default_factory=dict)
    peak: dict[str, float] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    probed: set[str] = field(default_factory=set)  # levels of likeness whose samples come from a probe

    def add_training(self, likeness: Sequence[str], sample: Sample) -> None:
        for name in likeness:
            self.training.setdefault(name, []).append(sample)

    def add_evaluation(self, likeness: Sequence[str], sample: Sample) -> None:
        for name in likeness:
            self.evaluation.setdefault(name, []).append(sample)

    def add_size(self, likeness: Sequence[str], size: int, peak: float | None) -> None:
        """Bytes of a stage in the store, and of a GPU's memory while it trained (None: not known)."""
        for name in likeness:
            self.disk.setdefault(name, []).append(size)
            if peak is not None:
                self.peak[name] = max(peak, self.peak.get(name, 0.0))

    def train(self, likeness: Sequence[str]) -> Timing | None:
        return self._find(self.training, likeness)

    def evaluate(self, likeness: Sequence[str]) -> Timing | None:
        return self._find(self.evaluation, likeness)

    def _find(self, among: Mapping[str, list[Sample]], likeness: Sequence[str]) -> Timing | None:
        for name, alike in zip(likeness, LEVELS, strict=True):
            if name in among:
                return fit(among[name], PROBED if name in self.probed else alike)
        return None

    def bytes(self, likeness: Sequence[str]) -> float | None:
        """The median of a stage's bytes in the store."""
        return next((_median(self.disk[name]) for name in likeness if name in self.disk), None)

    def memory(self, likeness: Sequence[str]) -> float | None:
        """The most bytes of a GPU that such a stage was measured to take; not of other sizes or protection."""
        return next((self.peak[name] for name in likeness[:2] if name in self.peak), None)


def training_likeness(made_from: Mapping[str, JsonValue], device: str) -> tuple[str, ...]:
    """What decides the seconds of a stage's training, a level after the other from all of it to the least (LEVELS).
    `made_from` as a stage's key and its record have it."""
    fields = _mapping(made_from["fields"])
    must = [*_must(made_from, device, _mapping(fields["train"])), fields["tuner"], made_from.get("pictures")]
    acting = [[name, _mapping(fields[name]).get(word)] for name, (word, _) in PROTECTING.items() if name in fields]
    sizes = _sizes(fields)
    levels = ([*must, acting, sizes, made_from["task"]], [*must, acting, sizes], [*must, acting], must)
    return tuple(digest(level) for level in levels)


def evaluation_likeness(made_from: Mapping[str, JsonValue], device: str, task: str, split: str) -> tuple[str, ...]:
    """As `training_likeness`, of an evaluation of the stage on a task; retention is a task. The last level is any tuner
    of the model, as good as what is known of the untouched one."""
    fields = _mapping(made_from["fields"])
    must = [*_must(made_from, device, _mapping(fields["train"]), reading=True), made_from.get("pictures")]
    tuner, sizes = fields["tuner"], _sizes(fields, protection=False)
    levels = ([*must, tuner, sizes, task, split], [*must, tuner, sizes], [*must, tuner], must)
    return tuple(digest(["evaluation", level]) for level in levels)


def untouched_likeness(experiment: Experiment, device: str) -> tuple[str, ...]:
    """As `evaluation_likeness`, of the model without a tuner: every level is its last."""
    train = experiment.train.model_dump()
    made_from: dict[str, JsonValue] = {"benchmark": experiment.benchmark, "model": experiment.model}
    pictures = "grey" if experiment.protocol == "blind" else None
    must = [*_must(made_from, device, train, reading=True), pictures]
    return (digest(["evaluation", must]),) * len(LEVELS)


def rows_name(benchmark: JsonValue, task: str, split: str) -> str:
    """What `Timings.rows` has the rows of a split under."""
    return digest(["rows", benchmark, task, split])


def steps_name(made_from: Mapping[str, JsonValue]) -> str:
    """What `Timings.steps` has the steps of a stage in epochs under."""
    train = _mapping(_mapping(made_from["fields"])["train"])
    return digest(["steps", made_from["benchmark"], made_from["task"], train.get("epochs"), train.get("batch_size")])


def _must(
    made_from: Mapping[str, JsonValue], device: str, train: Mapping[str, JsonValue], reading: bool = False
) -> list[JsonValue]:
    benchmark = str(made_from["benchmark"])
    if isinstance(made_from["benchmark"], dict):
        options = {k: v for k, v in options_of(made_from["benchmark"]).items() if not k.endswith("_rows")}
        benchmark = digest([kind_of(made_from["benchmark"]), options]) if options else kind_of(made_from["benchmark"])
    model = made_from["model"]
    parts = [train.get("batch_size"), train.get("accumulate", 1)]
    return [
        benchmark,
        model,
        device,
        train.get("precision"),
        train.get("threads"),
        train.get("processes", 1),
        *([] if reading else parts),
    ]


def _sizes(fields: Mapping[str, JsonValue], protection: bool = True) -> dict[str, JsonValue]:
    """The fields of a tuner and of what protects, but for learning rates."""
    return {
        section: {name: value for name, value in values.items() if not name.endswith("lr")}
        for section, values in fields.items()
        if isinstance(values, dict) and section != "train" and (protection or section not in PROTECTING)
    }


def _mapping(value: JsonValue) -> dict[str, JsonValue]:
    """Raises ValueError for what is no mapping, as in a record of another making."""
    if not isinstance(value, dict):
        raise ValueError(f"expected a mapping, got {value!r}")
    return value


def busy(seconds: object, cpu: object, device: str) -> float | None:
    """Seconds of work of `seconds` by the clock, of which a process was on the CPU for `cpu`: on a CPU the fewer of the
    two, which is what it takes where nothing else runs. None where they are not known."""
    clock, used = finite(seconds), finite(cpu)
    return clock if clock is None or used is None or device != "cpu" else min(clock, used)


def finite(value: object) -> float | None:
    """A number of seconds or bytes as a record has it, None for anything else."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value >= 0 else None
