"""What a stage store says of its entries, without their tensors: a plan reads it and needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NotRequired, TypedDict

from pydantic import JsonValue

from mcit_core.stages.digest import digest
from mcit_core.stages.results import Evaluation, Trace
from orchestration.keep.files import Entry
from orchestration.keep.opening import open_folder

#: 1: state and evaluations carry checksums; 2: the record does too. Every version is read, the last one is written.
FORMAT = 2
FORMATS = (1, 2)
RECORD, STATE = "record.json", "state.safetensors"
#: bytes of a GPU's memory at once, at most, while a stage trained: a metric of stages that were trained on one
PEAK = "memory/peak"
#: the folder of a stage's evaluations within its own, and of those that are of no stage
EVALUATIONS = "evaluations"


class MeasuredRecord(TypedDict):
    """`Measured` as JSON; format 1 had no traces."""

    metrics: dict[str, float]
    traces: NotRequired[dict[str, Trace]]


class StageRecord(TypedDict):
    """What an entry says of itself."""

    made_from: dict[str, JsonValue]
    measured: MeasuredRecord
    checksum: str  # of the state


class StageRecords:
    """<key[:2]>/<key>/{state.safetensors, record.json, evaluations/}, evaluations/ of the untouched model, leases/ and
    damaged/ under `where`. Raises StorageError where that cannot be reached."""

    def __init__(self, where: str | Path) -> None:
        self.folder = open_folder(where)

    def record(self, key: str) -> StageRecord | None:
        """What an entry says of itself, None where there is none or it cannot be read. The state is not looked at."""
        data = self.folder.read(place(key, RECORD))
        try:
            return None if data is None else read_record(key, data)
        except (ValueError, KeyError, TypeError):
            return None

    def entries(self) -> dict[str, list[Entry]]:
        """The files of every stage that has a record, by key, its evaluations among them."""
        found: dict[str, list[Entry]] = {}
        for entry in self.folder.files():
            key = stage_of(entry.name)
            if key is not None:
                found.setdefault(key, []).append(entry)
        return {key: files for key, files in found.items() if any(f.name == place(key, RECORD) for f in files)}

    def evaluations(self) -> list[tuple[str, str | None, Entry]]:
        """Key, stage and file of every evaluation."""
        return [
            (entry.name.rpartition("/")[2].removesuffix(".json"), stage_of(entry.name), entry)
            for entry in self.folder.files()
            if is_evaluation(entry.name)
        ]

    def evaluation(self, name: str) -> Evaluation | None:
        """An evaluation by its file's name, None where it cannot be read. Nothing is touched or moved."""
        data = self.folder.read(name)
        try:
            return None if data is None else read_evaluation(data)
        except (ValueError, KeyError, TypeError):
            return None


def place(key: str, name: str) -> str:
    return f"{key[:2]}/{key}/{name}"


def stage_of(name: str) -> str | None:
    """The key of the stage that a file belongs to."""
    parts = name.split("/")
    return parts[1] if len(parts) > 2 and len(parts[0]) == 2 and parts[1].startswith(parts[0]) else None


def is_evaluation(name: str) -> bool:
    *folders, last = name.split("/")
    return EVALUATIONS in folders and last.endswith(".json") and not last.startswith(".")


def read_record(key: str, data: bytes) -> StageRecord:
    """Raises ValueError, KeyError or TypeError for what is no whole record of this stage."""
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


def read_evaluation(data: bytes) -> Evaluation:
    """Raises ValueError, KeyError or TypeError for what is no whole evaluation."""
    record = json.loads(data)
    if record["format"] not in FORMATS or record["checksum"] != digest(record["evaluation"]):
        raise ValueError("its checksum or format does not match")
    return Evaluation.from_json(record["evaluation"])
