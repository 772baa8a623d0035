"""Finished stages and evaluations by key, on this machine or behind any URI that pyarrow.fs opens.

An entry is there once its record is: the state is written first, the record with all checksums last.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NotRequired, TypedDict

from pyarrow import fs
from pydantic import JsonValue
from safetensors import SafetensorError

from mcit_core.stages.digest import digest
from mcit_core.stages.keys import StageKey
from mcit_core.stages.results import Evaluation, Measured, Trace
from mcit_core.stages.state import StageState
from orchestration.keep.files import Entry, Folder, StorageError
from orchestration.keep.leases import POLL, Leases

#: 1: state and evaluations carry checksums; 2: the record does too. Every version is read, the last one is written.
FORMAT = 2
FORMATS = (1, 2)
Trained = tuple[StageState, Measured]
RECORD, STATE = "record.json", "state.safetensors"


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
    """<key[:2]>/<key>/{state.safetensors, record.json}, evaluations/<key>.json, leases/ and damaged/ under `where`."""

    def __init__(
        self, where: str | Path, filesystem: fs.FileSystem | None = None, leases: Leases | None = None
    ) -> None:
        self.folder = Folder(where, filesystem)
        self.leases = leases or Leases(self.folder)

    def stage(self, key: StageKey, train: Callable[[], Trained]) -> tuple[StageState, Measured, bool]:
        """A stage's state, what was measured, and whether they came from the store. Trains under a lease, so that no
        other worker on this store trains the same; where another does already, waits and takes what it leaves.
        Raises StorageError where the store cannot be written to."""
        found = self.get_stage(key.key)
        while found is None:
            lease = self.leases.attempt(key.key, key.parent)
            if lease is None:
                time.sleep(POLL)
                found = self.get_stage(key.key)
                continue
            with lease:
                found = self.get_stage(key.key)  # its last holder may just have finished it
                if found is None:
                    state, measured = train()
                    self.put_stage(key, state, measured)
                    return state, measured, False
        return *found, True

    def get_stage(self, key: str, touch: bool = True) -> Trained | None:
        """A stored stage, or None; `touch` notes that it was used. A damaged entry is reported, set aside and counts
        as absent."""
        raw = self._raw(key)
        if raw is None:
            return None
        try:
            state, measured = _checked(key, *raw)
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            if self._raw(key) == raw:  # or else another worker has set it aside already, or even made it again
                aside = self._set_aside(_place(key, RECORD), _place(key, STATE))
                warnings.warn(
                    f"stored stage {key[:12]} is damaged ({error}); {aside}, it is trained again", stacklevel=2
                )
            return None
        if touch:
            self.folder.touch(_place(key, RECORD))
        return state, measured

    def _raw(self, key: str) -> tuple[bytes, bytes | None] | None:
        """Record and state as they lie there; the state is None where it is missing."""
        record = self.folder.read(_place(key, RECORD))
        return None if record is None else (record, self.folder.read(_place(key, STATE)))

    def put_stage(self, stage: StageKey, state: StageState, measured: Measured) -> None:
        """Keep a stage; where another worker was quicker its entry stands, since equal keys mean equal content.
        Raises StorageError."""
        if self._raw(stage.key) is not None:
            return
        data = state.to_bytes()
        record = {
            "format": FORMAT,
            "key": stage.key,
            "made_from": stage.made_from,
            "measured": measured.to_json(),
            "checksum": hashlib.sha256(data).hexdigest(),
        }
        record["record_checksum"] = digest(record)
        self.folder.write(_place(stage.key, STATE), data)
        self.folder.write(_place(stage.key, RECORD), json.dumps(record, indent=1).encode())

    def get_evaluation(self, key: str) -> Evaluation | None:
        name = f"evaluations/{key}.json"
        data = self.folder.read(name)
        if data is None:
            return None
        try:
            record = json.loads(data)
            if record["format"] not in FORMATS or record["checksum"] != digest(record["evaluation"]):
                raise ValueError("its checksum or format does not match")
            return Evaluation.from_json(record["evaluation"])
        except (ValueError, KeyError, TypeError) as error:
            aside = self._set_aside(name)
            warnings.warn(f"stored evaluation {key[:12]} is damaged ({error}); {aside}, it is made again", stacklevel=2)
            return None

    def put_evaluation(self, key: str, evaluation: Evaluation) -> None:
        """Raises StorageError."""
        body = evaluation.to_json()
        record = {"format": FORMAT, "checksum": digest(body), "evaluation": body}
        self.folder.write(f"evaluations/{key}.json", json.dumps(record).encode())

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

    def entries(self) -> dict[str, list[Entry]]:
        """The files of every entry that has a record, by key."""
        found: dict[str, list[Entry]] = {}
        for entry in self.folder.files():
            parts = entry.name.split("/")
            if len(parts) == 3 and parts[1].startswith(parts[0]):
                found.setdefault(parts[1], []).append(entry)
        return {key: files for key, files in found.items() if any(f.name.endswith(RECORD) for f in files)}

    def delete(self, key: str) -> None:
        """Take a stage out of the store. Raises StorageError."""
        self.folder.delete(_place(key, RECORD))  # first, so that no reader meets half an entry
        self.folder.delete(_place(key, STATE).rpartition("/")[0])


def _place(key: str, name: str) -> str:
    return f"{key[:2]}/{key}/{name}"


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
