"""Optuna: its samplers as searches, its study as a file beside the results, PED-ANOVA. The one file that imports it.

Optuna keeps nothing here. A study is made anew in memory for every batch, from what the search was told, with a sampler
seeded by (seed, batch): so a search that was interrupted goes on as it would have, whatever state a sampler keeps.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from pydantic import JsonValue

from mcit_core.stages.digest import digest
from orchestration.plan.space import Point, Space
from orchestration.plan.spec import Range
from orchestration.results.reading import plain_value
from orchestration.search import OWN_DRAWS, Proposal, Search
from orchestration.search.settings import OptunaSettings, SearchSettings
from orchestration.search.uniform import Random, Sobol

#: settings of a generation of NSGA-II and -III; Optuna's 50 are more than most sweeps have in all
POPULATION = 20
#: a Gaussian process sees the newest so many settings, since what it takes grows with their cube
GP_HISTORY = 200
#: and is asked so often for a setting that is new and makes sense
GP_DRAWS = 4
#: a positive axis whose ends are this far apart is one of ratios, as a rate is
RATIO = 100.0

_STATES = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


class Optuna(Search):
    """By Optuna's samplers: tpe (Bergstra et al., NeurIPS 2011, multi-objective by Ozaki et al., JAIR 2022), gp, nsga2
    (Deb et al., 2002), nsga3 (Deb & Jain, 2014). `random` and `qmc` are the searches of kind random and sobol."""

    def __init__(self, settings: OptunaSettings, space: Space) -> None:
        super().__init__(settings, space)
        self.settings = settings

    def propose(self, batch: int) -> list[Proposal]:
        if self.settings.sampler in ("random", "qmc"):
            plain = (Random if self.settings.sampler == "random" else Sobol)(self.settings, self.space)
            plain.tell(self.state())
            return plain.propose(batch)
        with quietly():
            directions = [*self.settings.objectives.values()]
            study = optuna.create_study(directions=directions, sampler=self._sampler(batch))
            kinds = distributions(self.space)
            study.add_trials([as_trial(one, kinds, self.settings.objectives) for one in self._history()])

            def draw(number: int) -> Proposal:
                trial = study.ask()
                point: Point = {}
                for axis, values in self.space.axes.items():
                    if self.space.applies(axis, point):
                        point[axis] = suggest(trial, axis, values)
                memo = study.get_trials(deepcopy=False)[trial.number].system_attrs
                return Proposal(number, batch, self.space.reduced(point), dict(memo))

            # each draw of a Gaussian process fits it anew
            draws = GP_DRAWS if self.settings.sampler == "gp" else OWN_DRAWS
            return self.filled(batch, self.settings.batch, self.settings.seed, draw, draws)

    def _history(self) -> list[Proposal]:
        known = self.state()
        if self.settings.sampler != "gp":
            return known
        complete = [proposal.number for proposal in known if proposal.state == "complete"][-GP_HISTORY:]
        return [proposal for proposal in known if proposal.state != "complete" or proposal.number >= complete[0]]

    def _sampler(self, batch: int) -> BaseSampler:
        seed = int(digest([self.settings.seed, batch]), 16) % 2**32
        match self.settings.sampler:
            case "gp":
                return GPSampler(seed=seed, warn_independent_sampling=False)
            case "nsga2":
                return NSGAIISampler(seed=seed, population_size=POPULATION)
            case "nsga3":
                return NSGAIIISampler(seed=seed, population_size=POPULATION)
            case _:
                return TPESampler(seed=seed)


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Axis -> Optuna's word for its values. Lists are names without an order."""
    found: dict[str, BaseDistribution] = {}
    for axis, values in space.axes.items():
        if not isinstance(values, Range):
            found[axis] = CategoricalDistribution([_label(value) for value in values])
        elif values.whole:
            low, high, step = int(values.low), int(values.high), int(values.stride)
            found[axis] = IntDistribution(low, high, log=values.log, step=step)
        else:
            found[axis] = FloatDistribution(values.low, values.high, log=values.log, step=values.step)
    return found


def _label(value: JsonValue) -> CategoricalChoiceType:
    """A value as Optuna takes it among names."""
    plain = plain_value(value)
    assert not isinstance(plain, list | dict)
    return plain


def suggest(trial: optuna.Trial, axis: str, values: list[JsonValue] | Range) -> JsonValue:
    """A value of an axis by a trial's sampler."""
    if isinstance(values, Range):
        if values.whole:
            low, high, step = int(values.low), int(values.high), int(values.stride)
            return int(trial.suggest_int(axis, low, high, log=values.log, step=step))
        value = float(trial.suggest_float(axis, values.low, values.high, log=values.log, step=values.step))
        return values.nearest(value)
    labels = [_label(value) for value in values]
    return values[labels.index(trial.suggest_categorical(axis, labels))]


def as_trial(proposal: Proposal, kinds: Mapping[str, BaseDistribution], objectives: Mapping[str, str]) -> FrozenTrial:
    """A setting as a trial of a study with the distributions `kinds`. `objectives`: of the study; what a pruned setting
    had come to is told where it is the one objective's, which a study of several has no word for."""
    partial = proposal.partial if [*objectives.items()] == [("average_accuracy", "maximize")] else None
    return optuna.create_trial(
        state=_STATES[proposal.state],
        values=list(proposal.objectives) or None,
        params={axis: _label(value) for axis, value in proposal.values.items()},
        distributions={axis: kinds[axis] for axis in proposal.values},
        system_attrs=dict(proposal.memo),
        intermediate_values={} if partial is None else {partial[0]: partial[1]},
        constraints=proposal.constraints,
        user_attrs={"setting": proposal.number},
    )


class StudyLog:
    """`path`: a study of Optuna's with the settings that have ended, for optuna-dashboard. A view: it is written anew
    at the start, so that nothing follows from what a crash has left of it. Raises OSError."""

    def __init__(self, path: Path, name: str, settings: SearchSettings, space: Space) -> None:
        self._kinds, self._objectives = distributions(space), settings.objectives
        with quietly():
            new = path.with_name(f".{path.name}")
            for old in (new, *new.parent.glob(f"{new.name}.lock*"), *path.parent.glob(f"{path.name}.lock*")):
                old.unlink(missing_ok=True)
            optuna.create_study(storage=_storage(new), study_name=name, directions=[*self._objectives.values()])
            os.replace(new, path)
            self._study = optuna.load_study(study_name=name, storage=_storage(path))
            self._study.set_metric_names([*settings.objectives])
        self._written: set[int] = set()

    def add(self, proposals: Iterable[Proposal]) -> None:
        """Add those that have ended and are not there."""
        new = [one for one in proposals if one.state != "running" and one.number not in self._written]
        with quietly():
            self._study.add_trials([as_trial(one, self._kinds, self._objectives) for one in new])
        self._written |= {one.number for one in new}


def _storage(path: Path) -> optuna.storages.JournalStorage:
    from optuna.storages.journal import JournalFileBackend

    return optuna.storages.JournalStorage(JournalFileBackend(str(path)))


def ped_anova(settings: Sequence[Mapping[str, JsonValue]], goodness: Sequence[float], top: int) -> dict[str, float]:
    """Axis -> how far its values among the `top` best of some settings (axis -> value) are from those among all, by
    PED-ANOVA, unnormalised. `goodness`: of each of them, more is better."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    axes = list(dict.fromkeys(axis for setting in settings for axis in setting))
    kinds = {axis: seen_distribution([setting[axis] for setting in settings if axis in setting]) for axis in axes}
    with quietly():
        study = optuna.create_study(direction="maximize")
        for setting, value in zip(settings, goodness, strict=True):
            params, used = dict(setting), {axis: kinds[axis] for axis in setting}
            study.add_trial(optuna.create_trial(params=params, distributions=used, value=value))
        # it takes ceil(quantile * settings) of them: half a setting less keeps round-off from adding one
        evaluator = PedAnovaImportanceEvaluator(target_quantile=(top - 0.5) / len(goodness))
        # unnormalised, since Optuna makes equal shares of nothing
        return get_param_importances(study, evaluator=evaluator, params=axes, normalize=False)


def seen_distribution(values: Sequence[JsonValue]) -> BaseDistribution:
    """Whole numbers and others by their size, on a logarithmic scale where they span a factor of RATIO; all else, and
    numbers among other values, as names."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        # an axis has text, numbers, booleans and null alone: `reading.plain_value`
        return CategoricalDistribution([v for v in dict.fromkeys(values) if not isinstance(v, list | dict)])
    low, high = min(numbers), max(numbers)
    log = low > 0 and high / low >= RATIO
    if isinstance(low, int) and isinstance(high, int) and all(isinstance(value, int) for value in numbers):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)


@contextmanager
def quietly() -> Iterator[None]:
    """Without Optuna's line on every study, and its warnings: on unnormalised shares (they are normalised here), on
    values of which there is one setting (it leaves these out, as `results.importance` says), and what is new."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
