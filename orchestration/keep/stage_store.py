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
from typing import NotRequired, TypedDict

from pydantic import JsonValue
from safetensors import SafetensorError

from mcit_core.stages.digest import digest
from mcit_core.stages.keys import StageKey
from mcit_core.stages.results import Evaluation, Measured, Trace
from mcit_core.stages.state import StageState
from orchestration.keep.files import Entry, StorageError
from orchestration.keep.leases import POLL, Leases, leases_in
from orchestration.keep.opening import open_folder

#: 1: state and evaluations carry checksums; 2: the record does too. Every version is read, the last one is written.
FORMAT = 2
FORMATS = (1, 2)
Trained = tuple[StageState, Measured]
RECORD, STATE = "record.json", "state.safetensors"
#: the folder of a stage's evaluations within its own, and of those that are of no stage
EVALUATIONS = "evaluations"


class BusyError(Exception):
    """Another sweep trains the stage at the moment."""


class MeasuredRecord(TypedDict):
    """`Measured` as JSON; format 1 had no traces."""

    metrics: dict[str, float]
    traces: NotRequired[dict[str, Trace]]


class StageRecord(TypedDict):
    """What an entry says of itself."""

    made_from: dict[str, JsonValue]
    measured: MeasuredRecord
    checksum: str  # of the state


class StageStore:
    """<key[:2]>/<key>/{state.safetensors, record.json, evaluations/}, evaluations/ of the untouched model, leases/ and
    damaged/ under `where`. `wait` says whether `stage` waits for what another trains."""

    def __init__(self, where: str | Path, leases: Leases | None = None, wait: bool = True) -> None:
        self.folder = open_folder(where)
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
                    state, measured = train()
                    self.put_stage(key, state, measured)
                    return state, measured, False
        return *found, True

    def get_stage(self, key: str, touch: bool = True, leased: bool = False) -> Trained | None:
        """A stored stage, or None; `touch` notes that it was used. A damaged entry is reported, set aside and counts
        as absent, under the stage's lease, which the caller may hold (`leased`): who has none might set aside what has
        just been made again. While another holds it, it only counts as absent."""
        record = self.folder.read(_place(key, RECORD))
        if record is None:
            return None
        try:
            state, measured = _checked(key, record, self.folder.read(_place(key, STATE)))
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            if not leased:
                return self._again_under_lease(key, touch, error)
            self._damaged(key, error)
            return None
        if touch:
            self.folder.touch(_place(key, RECORD))
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
        aside = self._set_aside(_place(key, RECORD), _place(key, STATE))
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
        if not self.folder.exact or self.folder.create(_place(stage.key, STATE), data) is None:
            if self.folder.read(_place(stage.key, RECORD)) is not None:
                return
            self.folder.write(_place(stage.key, STATE), data)
        self.folder.write(_place(stage.key, RECORD), json.dumps(record, indent=1).encode())

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
            record = json.loads(data)
            if record["format"] not in FORMATS or record["checksum"] != digest(record["evaluation"]):
                raise ValueError("its checksum or format does not match")
            found = Evaluation.from_json(record["evaluation"])
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

    def record(self, key: str) -> StageRecord | None:
        """What an entry says of itself, None where there is none or it cannot be read. The state is not looked at."""
        data = self.folder.read(_place(key, RECORD))
        try:
            return None if data is None else _read_record(key, data)
        except (ValueError, KeyError, TypeError):
            return None

    def peek(self, key: str) -> StageState:
        """A stage's state; nothing in the store is touched or moved. Raises KeyError where it is not there, and
        ValueError where it is damaged."""
        record = self.folder.read(_place(key, RECORD))
        if record is None:
            raise KeyError(key)
        try:
            return _checked(key, record, self.folder.read(_place(key, STATE)))[0]
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ValueError(f"stage {key[:12]} in {self.folder.root} is damaged ({error})") from error

    def entries(self) -> dict[str, list[Entry]]:
        """The files of every stage that has a record, by key, its evaluations among them."""
        found: dict[str, list[Entry]] = {}
        for entry in self.folder.files():
            key = stage_of(entry.name)
            if key is not None:
                found.setdefault(key, []).append(entry)
        return {key: files for key, files in found.items() if any(f.name == _place(key, RECORD) for f in files)}

    def evaluations(self) -> list[tuple[str, str | None, Entry]]:
        """Key, stage and file of every evaluation."""
        found: list[tuple[str, str | None, Entry]] = []
        for entry in self.folder.files():
            parts = entry.name.split("/")
            if EVALUATIONS in parts[:-1] and parts[-1].endswith(".json") and not parts[-1].startswith("."):
                found.append((parts[-1].removesuffix(".json"), stage_of(entry.name), entry))
        return found

    def delete(self, key: str) -> None:
        """Take a stage out of the store. Raises StorageError."""
        self.folder.delete(_place(key, RECORD))  # first, so that no reader meets half an entry
        self.folder.delete(_place(key, STATE).rpartition("/")[0])


def _place(key: str, name: str) -> str:
    return f"{key[:2]}/{key}/{name}"


def stage_of(name: str) -> str | None:
    """The key of the stage that a file belongs to."""
    parts = name.split("/")
    return parts[1] if len(parts) > 2 and len(parts[0]) == 2 and parts[1].startswith(parts[0]) else None


def _evaluation(key: str, stage: str | None) -> str:
    return _place(stage, f"{EVALUATIONS}/{key}.json") if stage else f"{EVALUATIONS}/{key[:2]}/{key}.json"


def _read_record(key: str, data: bytes) -> StageRecord:
    record = json.loads(data)
    if record["format"] not in FORMATS:
        raise ValueError(f"format {record['format']}, expected one of {FORMATS}")
    if record["format"] > 1 and record.pop("record_checksum") != digest(record):
        raise ValueError(f"the checksum of {RECORD} does not match")
    if record["key"] != key:
        raise ValueError("it is another stage's")
    if record["format"] == 1:
        record["measured"] = {"metrics": record.pop("metrics")}
    if not all(isinstance(record[name], dict) for name in ("measured", "made_from")):
        raise ValueError("measured or made_from is no mapping")
    return StageRecord(made_from=record["made_from"], measured=record["measured"], checksum=record["checksum"])


def _checked(key: str, record: bytes, state: bytes | None) -> Trained:
    body = _read_record(key, record)
    if state is None:
        raise ValueError(f"{STATE} is missing")
    if hashlib.sha256(state).hexdigest() != body["checksum"]:
        raise ValueError(f"the checksum of {STATE} does not match")
    return StageState.from_bytes(state), Measured.from_json(body["measured"])
