"""The file `proposals` of a RUN: what its search has proposed, a checksummed line for each batch.

It is what a search goes on from, so that a setting stays proposed whatever version of a library would propose another
one. What became of the settings stands in the RUN's journal and tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import JsonValue, TypeAdapter

from mcit_core.choices import kind_of, options_of
from mcit_core.stages.digest import digest
from orchestration.keep.files import writing
from orchestration.keep.journal import Journal, read_journal
from orchestration.plan.spec import SweepSpec
from orchestration.plan.sweep_file import resolved
from orchestration.plan.trials import Trial, make_trials
from orchestration.search import Proposal

PROPOSALS = "proposals"
#: the number of the batch of settings that were known from other RUNs
KNOWN = -1
#: what of a sweep file the proposals do not follow from
_FREE = ("name", "references", "resources", "tracking")


@dataclass(frozen=True)
class Batch:
    """`rival`: what the best setting that was known then showed, by `pairing.cell`; None where there was none, or
    nothing is compared with it."""

    proposals: list[Proposal]
    rival: dict[str, float] | None = None


_BATCH = TypeAdapter(Batch)


def rule_of(spec: SweepSpec) -> str:
    """What a search's proposals follow from, as a digest: all of the sweep file but how many there are to be, and what
    changes no number."""
    told = {key: value for key, value in resolved(spec).items() if key not in _FREE}
    # a point of a sequence depends on the order of the axes, what a setting is compared by on that of the objectives
    told["axes"] = [[name, axis] for name, axis in spec.axes_as_written().items()]
    told["orders"] = [[*order] for order in spec.orders]
    search: dict[str, JsonValue] = {name: value for name, value in options_of(spec.search).items() if name != "trials"}
    if isinstance(search.get("objectives"), dict):
        search["objectives"] = [*search["objectives"].items()]  # type: ignore[union-attr]
    processes = {"processes": spec.processes} if spec.processes != 1 else {}
    return digest({**told, **processes, "search": {"kind": kind_of(spec.search), **search}})


class Proposals:
    """Those of the RUN folder `run` by the rule of `spec`; the file may hold others of other rules."""

    def __init__(self, run: Path, spec: SweepSpec) -> None:
        self._journal = Journal(run / PROPOSALS)
        self._rule = rule_of(spec)

    def read(self) -> list[Batch]:
        """The batches in order, the known settings first (none where none were written)."""
        batches: dict[int, Batch] = {}
        for line in read_journal(self._journal.path):
            if line["rule"] == self._rule:
                number = int(str(line["batch"]))
                # a batch that is written anew, since its line was lost, begins anew what follows from it
                batches = {n: batch for n, batch in batches.items() if n < number or number == KNOWN}
                batches[number] = _BATCH.validate_python(line["content"])
        found = [batches.get(KNOWN, Batch([]))]
        while len(found) - 1 in batches:  # what follows a line that was lost was proposed from it, and is anew
            found.append(batches[len(found) - 1])
        return found

    @property
    def has_known(self) -> bool:
        """Whether the known settings were written down."""
        lines = read_journal(self._journal.path)
        return any(line["rule"] == self._rule and line["batch"] == KNOWN for line in lines)

    def append(self, number: int, batch: Batch) -> None:
        """Write down a batch. Raises StorageError."""
        with writing(self._journal.path):
            self._journal.append({"rule": self._rule, "batch": number, "content": asdict(batch)})


def proposed_trials(spec: SweepSpec, proposals: Sequence[Proposal]) -> list[Trial]:
    """The trials of proposals, in their order, each with the references that it is the first to need."""
    found: dict[str, Trial] = {}
    for one in proposals:
        for trial in make_trials(spec, [one.values], one.number, one.batch):
            # where methods are compared, what was a reference of one setting may be another setting itself
            if trial.id not in found or (found[trial.id].setting is None and trial.setting is not None):
                found[trial.id] = trial
    return list(found.values())


def run_trials_of(spec: SweepSpec, run: Path) -> list[Trial]:
    """All trials of a RUN: those of its sweep file, or what its search has proposed."""
    if not spec.searched:
        return make_trials(spec)
    _, *batches = Proposals(run, spec).read()
    settings = [one for batch in batches for one in batch.proposals]
    return proposed_trials(spec, settings[: int(str(options_of(spec.search)["trials"]))])
