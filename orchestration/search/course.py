"""The course of a search: which settings may run now, and what the search is told, in an order that is always the same.

Batch b is proposed once every setting of batch b - 1 - lag has ended, from the outcomes of the batches up to that one,
in the order of their settings. So the proposals depend neither on how many workers there are, nor on which trial ends
first, nor on an interruption; and while the last trials of a batch run, workers have the next batch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mcit_core.choices import kind_of
from orchestration.keep.files import writing
from orchestration.keep.records import Records
from orchestration.plan.space import Space
from orchestration.plan.spec import RobustRule, SweepSpec
from orchestration.plan.trials import Trial, make_trials
from orchestration.search import Proposal, Search
from orchestration.search.objectives import outcome
from orchestration.search.proposals import KNOWN, Proposals, proposed_trials
from orchestration.search.registry import SEARCHES, settings_of
from orchestration.search.settings import GridSettings, SearchSettings
from orchestration.search.warm import known_settings

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
    """Of one command on the RUN folder `run`. `said`: what there is to say of its beginning."""

    def __init__(self, spec: SweepSpec, run: Path) -> None:
        self.spec, self.run = spec, run
        self.search, settings = search_of(spec)
        self.said: list[str] = []
        self._batches: list[list[Proposal]] = []
        self._trials: dict[int, list[str]] = {}  # setting -> its trials and the references that they need
        self._over = False
        self._told = 0  # batches whose outcomes the search knows
        self._study: StudyLog | None = None
        if isinstance(settings, SearchSettings):
            self.settings = settings
            self._file = Proposals(run, spec)
            known, *batches = self._file.read()
            self._begin(known, batches)
        else:
            self._batches = [self.search.propose(0)]
            self._over = True

    def _begin(self, known: list[Proposal], batches: list[list[Proposal]]) -> None:
        if self.settings.known and not self._file.has_known:
            known, said = known_settings(self.spec, self.settings, self.search.space)
            self._file.append(KNOWN, known)
            self.said += said
        self.search.tell(known)
        self._known = known
        for batch in batches:
            if not self._over:
                self._take(batch)

    def _take(self, batch: list[Proposal]) -> None:
        """Count a batch in, as far as the search goes."""
        self.search.tell(batch)
        left = self.settings.trials - sum(map(len, self._batches))
        self._batches.append(batch[:left])
        self._over = len(batch) >= left or len(batch) < self.settings.batch

    @property
    def over(self) -> bool:
        """Whether no more settings come."""
        return self._over

    @property
    def proposed(self) -> list[Proposal]:
        """Every setting so far, in order, as it was proposed."""
        return [one for batch in self._batches for one in batch]

    def trials(self) -> list[Trial]:
        """The trials of every setting so far, each with its references: of a grid all references first."""
        if not self.spec.searched:
            return make_trials(self.spec, [one.values for one in self.proposed])
        return proposed_trials(self.spec, self.proposed)

    def more(self, records: Records, added: Callable[[list[Trial]], None]) -> list[Trial]:
        """The trials of the settings that may be proposed now, as far as they have to be run. `added` is told of those
        that are not among the records yet, and takes them up there. Raises StorageError."""
        found: list[Trial] = []
        while not self._over and self._is_in(len(self._batches) - 1 - self.settings.lag, records):
            new = [trial for trial in self._ask(records) if trial.id not in records.records]
            added(new)
            found += [trial for trial in new if records.records[trial.id].status != "FINISHED"]
        return found

    def _is_in(self, batch: int, records: Records) -> bool:
        """Whether every trial of a batch has ended, the references of its settings too."""
        return batch < 0 or self._have_ended(self._batches[batch], records)

    def _have_ended(self, proposals: list[Proposal], records: Records) -> bool:
        names = [name for one in proposals for name in self._trials_of(one)]
        return all(name in records.records and records.records[name].status != "UNFINISHED" for name in names)

    def _trials_of(self, proposal: Proposal) -> list[str]:
        if proposal.number not in self._trials:
            found = make_trials(self.spec, [proposal.values], proposal.number, proposal.batch)
            self._trials[proposal.number] = [trial.id for trial in found]
        return self._trials[proposal.number]

    def _ask(self, records: Records) -> list[Trial]:
        number = len(self._batches)
        self._tell(number - self.settings.lag, records)
        batch = self.search.propose(number)
        # before any of them runs: the search goes on from what stands there
        self._file.append(number, batch)
        self._take(batch)
        return proposed_trials(self.spec, self._batches[-1])

    def _tell(self, before: int, records: Records) -> None:
        """Tell the search the outcomes of the batches before this one."""
        while self._told < before:
            ended = [
                outcome(one, records, self.settings, self.spec.robust or RobustRule())
                for one in self._batches[self._told]
            ]
            self.search.tell(ended)
            self._told += 1
            self._show(ended)

    def conclude(self, records: Records) -> None:
        """Once nothing runs any more: the settings that the search was not told, in the study beside the results.
        Raises StorageError."""
        if not self.spec.searched:
            return
        rule = self.spec.robust or RobustRule()
        left = [one for batch in self._batches[self._told :] for one in batch]
        self._show([outcome(one, records, self.settings, rule) for one in left if self._have_ended([one], records)])

    def _show(self, ended: list[Proposal]) -> None:
        """Add to the study in which optuna-dashboard shows the search."""
        from orchestration.search.optuna_search import StudyLog  # takes a second to load

        path = self.run / STUDY_LOG
        with writing(path):
            if self._study is None:
                self._study = StudyLog(path, self.spec.name, self.settings, self.search.space)
                self._study.add(self._known)
            self._study.add(ended)
