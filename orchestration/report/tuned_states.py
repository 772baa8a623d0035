"""The states of Fwd-Prompt's figures on tuned inputs, from a RUN's trials and the stage store: each with the tuners
that its stages left, or why it is not there.

Source: Zheng et al., arXiv 2401.09181, look at a model in the states initial, direct, multitask, sequential and replay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mcit_core.config import Experiment
from mcit_core.data.workbench import Workbench
from mcit_core.stages.results import StageResult
from mcit_core.training.stage import build_tuner
from mcit_core.tuned_inputs import puts_prompts
from mcit_core.tuners import Tuner
from orchestration.keep.kept_state import KeptStates
from orchestration.keep.records import WHOLE, Records
from orchestration.keep.stage_store import StageStore
from orchestration.keep.trial_record import TrialRecord
from orchestration.plan.spec import SweepSpec
from orchestration.plan.trials import tuner_settings
from orchestration.search.proposals import run_trials_of

#: the shipped sweep that has all of them
ALL_OF_THEM = "states"
#: a state -> the methods that leave it, and what a sweep that lacks them is to be given
METHODS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "direct": (("direct",), "add `direct` to `references` in the sweep"),
    "multitask": (("multitask",), "add `multitask` to `references` in the sweep"),
    "sequential": (("sequential", "sequential_prompt"), "add `sequential` to `references` in the sweep"),
    "replay": (
        ("er",),
        "add `er` to `axes.method` in the sweep, with a tuner of prompts for all (`base`: `tuner: prompt_pool`, "
        "`train.lr: 0.03`)",
    ),
}


@dataclass(frozen=True)
class State:
    """The tuner that a state gives to each task's rows, and the trial whose stages left it."""

    record: TrialRecord
    tuners: Mapping[str, Tuner]

    @property
    def experiment(self) -> Experiment:
        return self.record.trial.experiment

    @property
    def told(self) -> str:
        """Which trial it is of, in words."""
        return f"{self.record.trial.id} (seed {self.experiment.seed}, {self.record.trial.order})"


@dataclass
class States:
    """found: by their names in METHODS; missing: why one is not there, and what makes it."""

    found: dict[str, State] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def first(self) -> State | None:
        return next(iter(self.found.values()), None)

    def lacks(self, *names: str) -> str:
        """What is missing of some states, in words; "" for nothing."""
        told = [f"{name} is missing: {self.missing[name]}" for name in names or METHODS if name in self.missing]
        return f"{'; '.join(told)}. `mcit sweep {ALL_OF_THEM}` makes all of them" if told else ""


def find_states(run: Path, spec: SweepSpec, bench: Workbench, stages: str) -> States:
    """Of each state the first seed and order that there is: of one tuner with one set of settings, and with the seed
    and order of the states before it where that can be. `stages`: the stage store. Raises FileNotFoundError where the
    RUN has no results."""
    records = Records(run, spec, run_trials_of(spec, run))
    records.read()
    usual = next(iter(records.records.values())).trial.experiment
    same = [
        record
        for record in records.records.values()
        if (record.trial.experiment.benchmark, record.trial.experiment.model) == (usual.benchmark, usual.model)
    ]
    kept, states = KeptStates(StageStore(stages)), States()
    for name, (methods, how) in METHODS.items():
        mine = [record for record in same if record.trial.method in methods]
        if not mine:
            states.missing[name] = how
            continue
        try:
            states.found[name] = _first(mine, states.first, bench, kept)
        except (ValueError, KeyError, RuntimeError) as error:
            states.missing[name] = " ".join(str(error).split())
    return states


def _first(records: list[TrialRecord], like: State | None, bench: Workbench, kept: KeptStates) -> State:
    """Raises ValueError with what keeps the first of them from being it, where none is."""
    problem: Exception | None = None
    for record in _near(records, like):
        try:
            return _state(record, like, bench, kept)
        except (ValueError, KeyError, RuntimeError) as error:  # the last two of a state of other code
            problem = problem or error
    raise ValueError(str(problem))


def _near(records: list[TrialRecord], like: State | None) -> list[TrialRecord]:
    """In the order of the sweep, those first that have the tuner, then seed and order of `like`."""
    if like is None:
        return records
    other = like.experiment

    def far(record: TrialRecord) -> tuple[bool, bool, bool]:
        mine = record.trial.experiment
        return _tuner(mine) != _tuner(other), mine.seed != other.seed, mine.order != other.order

    return sorted(records, key=far)


def _tuner(experiment: Experiment) -> tuple[str, str | None]:
    return experiment.tuner, tuner_settings(experiment)


def _state(record: TrialRecord, like: State | None, bench: Workbench, kept: KeptStates) -> State:
    """Raises ValueError where a trial is not finished, tunes no prompts or has no state in the store."""
    experiment = record.trial.experiment
    if experiment.protects("grouping"):
        raise ValueError(f"{record.trial.id} keeps weights for groups of tasks; leave `grouping` out")
    tuner = build_tuner(experiment, bench, None)
    if not puts_prompts(bench, experiment.order[0], tuner):
        raise ValueError(
            f"{record.trial.id} has tuner {experiment.tuner}, which leaves the input as it is; give the sweep one of "
            "prompts for all (`base`: `tuner: prompt_pool`, `train.lr: 0.03`)"
        )
    if like is not None and _tuner(experiment) != _tuner(like.experiment):
        raise ValueError(f"{record.trial.id} has another tuner, or other settings of it, than {like.record.trial.id}")
    if record.status not in WHOLE:
        raise ValueError(f"{record.trial.id} is {record.status.lower()}; run the sweep again")
    if experiment.protocol == "direct":
        return State(record, {one.task: _loaded(record, one, bench, kept) for one in record.trained if one.task})
    last = _loaded(record, record.trained[-1], bench, kept)
    return State(record, dict.fromkeys(experiment.order, last))


def _loaded(record: TrialRecord, result: StageResult, bench: Workbench, kept: KeptStates) -> Tuner:
    """The tuner as a stage left it."""
    return build_tuner(record.trial.experiment, bench, kept.of(record, result).state.group(0))
