"""Finished stages and evaluations by key, on this machine or in an object store.

An entry is there once its record is: the state is written first, the record with all checksums last. Evaluations lie
with their stage, so that they go with it.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError

from mcit_core.stages.digest import digest
from mcit_core.stages.keys import StageKey
from mcit_core.stages.results import Evaluation, Measured
from mcit_core.stages.state import StageState
from orchestration.keep.files import StorageError
from orchestration.keep.leases import POLL, Leases, leases_in
from orchestration.keep.stage_records import (
    EVALUATIONS,
    FORMAT,
    PEAK,
    RECORD,
    STATE,
    StageRecords,
    place,
    read_evaluation,
    read_record,
    stage_of,
)

Trained = tuple[StageState, Measured]


class BusyError(Exception):
    """Another sweep trains the stage at the moment."""


class StageStore(StageRecords):
    """Stages and evaluations as `StageRecords` has them. `wait` says whether `stage` waits for what another trains."""

    def __init__(self, where: str | Path, leases: Leases | None = None, wait: bool = True) -> None:
        super().__init__(where)
        self.leases = leases or leases_in(self.folder)
        self.wait = wait
        self._flat: set[str] | None = None  # evaluations where an earlier version kept them

    def stage(self, key: StageKey, train: Callable[[], Trained]) -> tuple[StageState, Measured, bool]:
        """A stage's state, what was measured, and whether they came from the store. Trains under a lease, so that no
        other worker on this store trains the same; where another does already, waits and takes what it leaves.
        Raises StorageError where the store cannot be written to, BusyError instead of waiting."""
        found = self.get_stage(key.key)
        while found is None:
            lease = self.leases.attempt(key.key, key.parent)
            if lease is None:
                if not self.wait:
                    raise BusyError(f"another sweep trains stage {key.key[:12]}")
                time.sleep(POLL)
                found = self.get_stage(key.key)
                continue
            with lease:
                found = self.get_stage(key.key, leased=True)  # its last holder may just have finished it
                if found is None:
                    state, measured = _with_peak(train)
                    self.put_stage(key, state, measured)
                    return state, measured, False
        return *found, True

    def get_stage(self, key: str, touch: bool = True, leased: bool = False) -> Trained | None:
        """A stored stage, or None; `touch` notes that it was used. A damaged entry is reported, set aside and counts
        as absent, under the stage's lease, which the caller may hold (`leased`): who has none might set aside what has
        just been made again. While another holds it, it only counts as absent."""
        record = self.folder.read(place(key, RECORD))
        if record is None:
            return None
        try:
            state, measured = _checked(key, record, self.folder.read(place(key, STATE)))
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            if not leased:
                return self._again_under_lease(key, touch, error)
            self._damaged(key, error)
            return None
        if touch:
            self.folder.touch(place(key, RECORD))
        return state, measured

    def _again_under_lease(self, key: str, touch: bool, error: Exception) -> Trained | None:
        try:
            lease = self.leases.attempt(key)
        except StorageError:  # it will stay where it is
            self._damaged(key, error)
            return None
        if lease is None:
            return None
        with lease:
            return self.get_stage(key, touch, leased=True)

    def _damaged(self, key: str, error: Exception) -> None:
        aside = self._set_aside(place(key, RECORD), place(key, STATE))
        warnings.warn(f"stored stage {key[:12]} is damaged ({error}); {aside}, it is trained again", stacklevel=2)

    def put_stage(self, stage: StageKey, state: StageState, measured: Measured) -> None:
        """Keep a stage; where another worker was quicker its entry stands, since equal keys mean equal content.
        Raises StorageError."""
        data = state.to_bytes()
        record = {
            "format": FORMAT,
            "key": stage.key,
            "made_from": stage.made_from,
            "measured": measured.to_json(),
            "checksum": hashlib.sha256(data).hexdigest(),
        }
        record["record_checksum"] = digest(record)
        # where that is one request, whether there is anything is asked by writing; a state alone a dead worker has left
        if not self.folder.exact or self.folder.create(place(stage.key, STATE), data) is None:
            if self.folder.read(place(stage.key, RECORD)) is not None:
                return
            self.folder.write(place(stage.key, STATE), data)
        self.folder.write(place(stage.key, RECORD), json.dumps(record, indent=1).encode())

    def get_evaluation(self, key: str, stage: str | None = None) -> Evaluation | None:
        """An evaluation of a stage, by their keys, or of the untouched model."""
        name = _evaluation(key, stage)
        data = self.folder.read(name)
        if data is None and key in self._in_flat():
            name = f"{EVALUATIONS}/{key}.json"
            data = self.folder.read(name)
        if data is None:
            return None
        try:
            found = read_evaluation(data)
        except (ValueError, KeyError, TypeError) as error:
            if self.folder.read(name) == data:  # or else another worker has made it again already
                aside = self._set_aside(name)
                warnings.warn(
                    f"stored evaluation {key[:12]} is damaged ({error}); {aside}, it is made again", stacklevel=2
                )
            return None
        if stage_of(name) is None:
            self.folder.touch(name)  # the others are used when their stage is
        return found

    def _in_flat(self) -> set[str]:
        if self._flat is None:
            names = [entry.name.split("/") for entry in self.folder.files(EVALUATIONS)]
            self._flat = {parts[1].removesuffix(".json") for parts in names if len(parts) == 2}
        return self._flat

    def put_evaluation(self, key: str, evaluation: Evaluation, stage: str | None = None) -> None:
        """Raises StorageError."""
        body = evaluation.to_json()
        record = {"format": FORMAT, "checksum": digest(body), "evaluation": body}
        self.folder.write(_evaluation(key, stage), json.dumps(record).encode())

    def untouched(self, wanted: Mapping[str, Callable[[], Evaluation]]) -> dict[str, Evaluation]:
        """Evaluations of the untouched model, by key, which all trials need at once: each from the store or made under
        a lease, so that workers share the work; what another makes is waited for last. Raises StorageError."""
        found: dict[str, Evaluation] = {}
        pause = POLL
        while len(found) < len(wanted):
            before = len(found)
            for key in [key for key in wanted if key not in found]:
                there = self.get_evaluation(key)
                lease = self.leases.attempt(key) if there is None else None
                if lease is not None:
                    with lease:
                        there = self.get_evaluation(key)  # its last holder may just have made it
                        if there is None:
                            there = wanted[key]()
                            self.put_evaluation(key, there)
                if there is not None:
                    found[key] = there
            if len(found) == before:
                time.sleep(pause)
                pause = min(2 * pause, 20 * POLL)
        return found

    def _set_aside(self, *names: str) -> str:
        """Move a damaged entry's files, record first, out of the way. Says in words where they are."""
        place = f"damaged/{names[0].split('/')[-2][:64]}-{uuid.uuid4().hex[:8]}"
        try:
            for name in names:
                self.folder.move(name, f"{place}/{name.rpartition('/')[2]}")
        except StorageError as error:
            return f"it stays where it is ({error})"
        return f"set aside in {self.folder.path(place)}"

    def peek(self, key: str) -> StageState:
        """A stage's state; nothing in the store is touched or moved. Raises KeyError where it is not there, and
        ValueError where it is damaged."""
        record = self.folder.read(place(key, RECORD))
        if record is None:
            raise KeyError(key)
        try:
            return _checked(key, record, self.folder.read(place(key, STATE)))[0]
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ValueError(f"stage {key[:12]} in {self.folder.root} is damaged ({error})") from error

    def delete(self, key: str) -> None:
        """Take a stage out of the store. Raises StorageError."""
        self.folder.delete(place(key, RECORD))  # first, so that no reader meets half an entry
        self.folder.delete(place(key, STATE).rpartition("/")[0])


def _with_peak(train: Callable[[], Trained]) -> Trained:
    """What `train` gives, and where this process uses a GPU the most that its tensors took of it meanwhile. Beside the
    training, whose code is a part of every key, so that no key changes by it."""
    if not torch.cuda.is_initialized():
        return train()
    torch.cuda.reset_peak_memory_stats()
    state, measured = train()
    peak = float(torch.cuda.max_memory_allocated())
    return state, Measured({**measured.metrics, PEAK: peak}, measured.traces)


def _evaluation(key: str, stage: str | None) -> str:
    return place(stage, f"{EVALUATIONS}/{key}.json") if stage else f"{EVALUATIONS}/{key[:2]}/{key}.json"


def _checked(key: str, record: bytes, state: bytes | None) -> Trained:
    body = read_record(key, record)
    if state is None:
        raise ValueError(f"{STATE} is missing")
    if hashlib.sha256(state).hexdigest() != body["checksum"]:
        raise ValueError(f"the checksum of {STATE} does not match")
    return StageState.from_bytes(state), Measured.from_json(body["measured"])
