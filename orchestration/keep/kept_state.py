"""The state that a stage of a RUN left, found in the stage store by what it measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pydantic import JsonValue

from mcit_core.stages.results import StageResult
from mcit_core.stages.state import StageState
from mcit_core.yaml_document import SpecError
from orchestration.keep.stage_records import StageRecord
from orchestration.keep.stage_store import StageStore
from orchestration.keep.trial_record import TrialRecord
from orchestration.keep.upkeep import stages_of

#: what a stage's training measured, which no second training of it does to the last digit
TRAINED = ("seconds/train", "loss/first", "loss/last")


@dataclass(frozen=True)
class Kept:
    """A stage of the store: its key, what it was made from, and the state that it left."""

    key: str
    made_from: dict[str, JsonValue]
    state: StageState


class KeptStates:
    """The states of a store, whose records are read once."""

    def __init__(self, store: StageStore) -> None:
        self.store = store

    @cached_property
    def _entries(self) -> dict[str, StageRecord]:
        return {key: entry for key in self.store.entries() if (entry := self.store.record(key)) is not None}

    def of(self, record: TrialRecord, result: StageResult) -> Kept:
        """The very stage whose results the RUN has. Its key is not worked out anew, since code, versions and machine
        may be others than those that trained it: it is the stage of these settings that measured the same, to the last
        digit of the seconds it took. Raises SpecError where it is not there, ValueError where it is damaged."""
        entries, root = self._entries, self.store.folder.root
        alike = stages_of({key: entry["made_from"] for key, entry in entries.items()}, record.trial)[result.stage]
        measured = {name: result.metrics[name] for name in TRAINED if name in result.metrics}
        keys = [
            key
            for key in alike
            if {name: entries[key]["measured"]["metrics"].get(name) for name in measured} == measured
        ]
        if len(keys) == 1 and measured:
            return Kept(keys[0], entries[keys[0]]["made_from"], self.store.peek(keys[0]))
        what = f"stage {result.stage} of {record.trial.id}"
        if keys:
            raise SpecError(f"{what}: {len(keys)} stages in {root} may be it, and nothing tells which")
        why = f"{len(alike)} of its settings, trained at another time" if alike else "none of its settings"
        raise SpecError(
            f"{what} is not in {root} ({len(entries)} stages, {why}); --stages names the store where it is another, "
            "and the sweep's own command trains again what was deleted"
        )
