"""The course of a search: which settings may run now, and what the search is told, in an order that is always the same.

Batch b is proposed once every setting of batch b - 1 - lag has ended, from the outcomes of the batches up to that one,
in the order of their settings. So the proposals depend neither on how many workers there are, nor on which trial ends
first, nor on an interruption; and while the last trials of a batch run, workers have the next batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mcit_core.choices import kind_of
from orchestration.keep.records import Records
from orchestration.keep.trial_record import TrialRecord
from orchestration.plan.halving import Race, Races, race
from orchestration.plan.pairing import Paired, cell
from orchestration.plan.space import Space
from orchestration.plan.spec import RobustRule, SweepSpec
from orchestration.plan.trials import Trial, make_trials
from orchestration.search import Proposal, Search
from orchestration.search.objectives import outcome
from orchestration.search.proposals import KNOWN, Batch, Proposals, proposed_trials
from orchestration.search.registry import SEARCHES, settings_of
from orchestration.search.settings import GridSettings, SearchSettings
from orchestration.search.warm import KnownSettings, known_settings

if TYPE_CHECKING:
    from orchestration.search.optuna_search import StudyLog

#: a study of Optuna's in a RUN
STUDY_LOG = "study.log"


def search_of(spec: SweepSpec) -> tuple[Search, GridSettings | SearchSettings]:
    """The search that a sweep asks for, and its settings."""
    made = settings_of(spec.search)
    search = SEARCHES.load(kind_of(spec.search))(made, Space(spec))
    assert isinstance(search, Search)
    return search, made


class Course:
    """Of one command on the RUN folder `run`. `known`: what `known_beforehand` has found; `said`: what there is to say
    of the beginning."""

    def __init__(self, spec: SweepSpec, run: Path, known: KnownSettings | None = None) -> None:
        self.spec, self.run = spec, run
        self.search, settings = search_of(spec)
        self.said: list[str] = []
        self._batches: list[Batch] = []
        self._trials: dict[int, list[str]] = {}  # setting -> its trials and the references that they need
        self._owned: dict[int, list[str]] = {}  # setting -> its trials alone
        self._over = False
        self._in = 0  # the first so many batches have ended, as far as was looked
        self._told = 0  # batches whose outcomes the search knows
        self._best: Proposal | None = None  # of those
        self._races: Races | None = None
        self._study: StudyLog | None = None
        #: why there is no study beside the results, if so
        self.trouble = ""
        if isinstance(settings, SearchSettings):
            self.settings = settings
            self._file = Proposals(run, spec)
            first, *batches = self._file.read()
            if self.settings.known and not self._file.has_known:
                found, self.said = known or known_settings(spec, self.settings, self.search.space)
                first = Batch(found)
                self._file.append(KNOWN, first)
            self._begin(first.proposals, batches)
        else:
            self._batches = [Batch(self.search.propose(0))]
            self._over = True

    def _begin(self, known: list[Proposal], batches: list[Batch]) -> None:
        self.search.tell(known)
        self._known = known
        for batch in batches:
            if not self._over:
                self._take(batch)

    def _take(self, batch: Batch) -> None:
        """Count a batch in, as far as the search goes."""
        self.search.tell(batch.proposals)
        left = self.settings.trials - len(self.proposed)
        self._batches.append(replace(batch, proposals=batch.proposals[:left]))
        self._over = len(batch.proposals) >= left or len(batch.proposals) < self.settings.batch

    @property
    def over(self) -> bool:
        """Whether no more settings come."""
        return self._over

    @property
    def proposed(self) -> list[Proposal]:
        """Every setting so far, in order, as it was proposed."""
        return [one for batch in self._batches for one in batch.proposals]

    def trials(self) -> list[Trial]:
        """The trials of every setting so far, each with its references: of a grid all references first."""
        if not self.spec.searched:
            return make_trials(self.spec, [one.values for one in self.proposed])
        return proposed_trials(self.spec, self.proposed)

    def more(self, records: Records, added: Callable[[list[Trial]], None]) -> list[Trial]:
        """The trials of the settings that may be proposed now, as far as they have to be run. `added` takes them up in
        the records, where some may be already. Raises StorageError."""
        found: list[Trial] = []
        while not self._over and self._is_in(len(self._batches) - 1 - self.settings.lag, records):
            asked = self._ask(records)
            new = [trial for trial in asked if trial.id not in records.records]
            added(asked)
            found += [trial for trial in new if records.records[trial.id].status != "FINISHED"]
        return found

    def _is_in(self, batch: int, records: Records) -> bool:
        """Whether every trial of the batches up to this one has ended, the references of their settings too. After an
        interruption a later one may be in while an earlier one is not."""
        while self._in <= batch and self._have_ended(self._batches[self._in].proposals, records):
            self._in += 1
        return self._in > batch

    def _have_ended(self, proposals: list[Proposal], records: Records) -> bool:
        names = [name for one in proposals for name in self._trials_of(one)]
        return all(name in records.records and records.records[name].status != "UNFINISHED" for name in names)

    def _trials_of(self, proposal: Proposal) -> list[str]:
        if proposal.number not in self._trials:
            found = make_trials(self.spec, [proposal.values], proposal.number, proposal.batch)
            self._trials[proposal.number] = [trial.id for trial in found]
            self._owned[proposal.number] = [trial.id for trial in found if trial.setting is not None]
        return self._trials[proposal.number]

    def _own(self, proposal: Proposal, records: Records) -> list[TrialRecord]:
        """The records of a setting's trials, without its references."""
        self._trials_of(proposal)
        return [records.records[name] for name in self._owned[proposal.number]]

    def _ask(self, records: Records) -> list[Trial]:
        number = len(self._batches)
        self._tell(number - self.settings.lag, records)
        batch = Batch(self.search.propose(number), self._rival(records))
        # before any of them runs: the search goes on from what stands there
        self._file.append(number, batch)
        self._take(batch)
        trials = proposed_trials(self.spec, self._batches[-1].proposals)
        self._enter(trials, batch.rival, records)
        return trials

    def _tell(self, before: int, records: Records) -> None:
        """Tell the search the outcomes of the batches before this one."""
        while self._told < before:
            ended = [self._outcome(one, records) for one in self._batches[self._told].proposals]
            self.search.tell(ended)
            self._best = self._better(ended)
            self._told += 1
            self._show(ended)

    def _better(self, ended: list[Proposal]) -> Proposal | None:
        """The best by the first objective of the one so far and of complete ones that keep to the constraints, of
        equals the first."""
        found = [one for one in [self._best, *ended] if one is not None and one.state == "complete" and one.feasible]
        sign = self.settings.sign(next(iter(self.settings.objectives)))
        return max(found, key=lambda one: sign * one.objectives[0], default=None)

    def _rival(self, records: Records) -> dict[str, float] | None:
        if self.spec.robust is None or self.spec.robust.pruner is None or self._best is None:
            return None
        return {name: value for one in self._own(self._best, records) for name, value in _cells(one).items()}

    def race(self, records: Records) -> Race | None:
        """Which of the trials do not run to their end, as the sweep file says; it knows of all that are proposed."""
        if self.spec.halving or (self.spec.robust and self.spec.robust.pruner):
            self._races = Races()
            for batch in self._batches:
                self._enter(proposed_trials(self.spec, batch.proposals), batch.rival, records)
        return self._races

    def _enter(self, trials: list[Trial], rival: dict[str, float] | None, records: Records) -> None:
        """Have the trials of a batch take part in the races."""
        if self._races is None:
            return

        def cells_of(trial: str) -> dict[str, float] | None:
            record = records.records[trial]
            return None if record.status == "UNFINISHED" else _cells(record)

        found = race(self.spec, trials)
        if found is not None:
            self._races.add(found.settings, found)
        elif rival is not None:
            paired = Paired(trials, rival, cells_of)
            self._races.add([trial.id for trial in trials if trial.id in paired], paired)

    def conclude(self, records: Records) -> None:
        """Once nothing runs any more: the settings that the search was not told, in the study beside the results."""
        if not self.spec.searched:
            return
        left = [one for batch in self._batches[self._told :] for one in batch.proposals]
        self._show([self._outcome(one, records) for one in left if self._have_ended([one], records)])

    def _outcome(self, one: Proposal, records: Records) -> Proposal:
        return outcome(one, self._own(one, records), records, self.settings, self.spec.robust or RobustRule())

    def _show(self, ended: list[Proposal]) -> None:
        """Add to the study in which optuna-dashboard shows the search: a view, for whose sake nothing may fail."""
        if self.trouble:
            return
        from orchestration.search.optuna_search import StudyLog  # takes a second to load

        path = self.run / STUDY_LOG
        try:
            if self._study is None:
                self._study = StudyLog(path, self.spec.name, self.settings, self.search.space)
                self._study.add(self._known)
            self._study.add(ended)
        except Exception as error:  # a full disk, and whatever Optuna's storage has for a file system of its own kind
            why = " ".join((str(error) or repr(error)).split())
            self.trouble = f"{path} is not complete ({why}); nothing depends on it, and the same command writes it anew"


def known_beforehand(spec: SweepSpec, run: Path, fresh: bool) -> KnownSettings | None:
    """The settings of other RUNs that a search begins with, where it is to begin: read before the RUN folder is
    touched. Raises SpecError for a RUN that cannot be read."""
    search, settings = search_of(spec)
    if not isinstance(settings, SearchSettings) or not settings.known:
        return None
    begun = not fresh and Proposals(run, spec).has_known
    return None if begun else known_settings(spec, settings, search.space)


def _cells(record: TrialRecord) -> dict[str, float]:
    """The validation accuracies of a finished trial after its last stage; none of one that has not finished."""
    if record.status != "FINISHED" or not record.trained:
        return {}
    last = record.trained[-1]
    found = zip(record.trial.experiment.order, last.row(record.trial.experiment.order, "validation"), strict=True)
    return {cell(record.trial, task): value for task, value in found if value is not None}
