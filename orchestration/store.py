"""Finished stages and evaluations on disk, by key. An entry appears whole or not at all, and carries checksums."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
import warnings
from pathlib import Path
from typing import Any

from mcit_core.digest import digest
from mcit_core.sequence import Evaluation
from mcit_core.stages import StageKey
from mcit_core.state import StageState
from orchestration.files import write_atomic

FORMAT = 1


class DiskStore:
    """<key[:2]>/<key>/{record.json, state.safetensors} and evaluations/<key>.json under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "evaluations").mkdir(parents=True, exist_ok=True)

    def _folder(self, key: str) -> Path:
        return self.root / key[:2] / key

    def get_stage(self, key: str) -> tuple[StageState, dict[str, float]] | None:
        """A stored stage, or None. A damaged entry is reported, set aside and counts as absent."""
        folder = self._folder(key)
        if not folder.exists():
            return None
        try:
            record = json.loads((folder / "record.json").read_text())
            weights = folder / "state.safetensors"
            if record["format"] != FORMAT:
                raise ValueError(f"format {record['format']}, expected {FORMAT}")
            if hashlib.sha256(weights.read_bytes()).hexdigest() != record["checksum"]:
                raise ValueError("the checksum of state.safetensors does not match")
            return StageState.load(weights), record["metrics"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            aside = self.root / "damaged" / f"{key}-{uuid.uuid4().hex[:8]}"
            aside.parent.mkdir(exist_ok=True)
            os.replace(folder, aside)
            warnings.warn(
                f"stored stage {key[:12]} is damaged ({error}); set aside in {aside}, it is trained again", stacklevel=2
            )
            return None

    def put_stage(self, stage: StageKey, state: StageState, metrics: dict[str, float]) -> None:
        """Keep a stage; where another worker was quicker its entry stands, since equal keys mean equal content."""
        folder = self._folder(stage.key)
        scratch = self.root / f".{stage.key[:12]}.{uuid.uuid4().hex[:8]}"
        scratch.mkdir()
        weights = scratch / "state.safetensors"
        state.save(weights)
        record = {
            "format": FORMAT,
            "key": stage.key,
            "made_from": stage.made_from,
            "metrics": metrics,
            "checksum": hashlib.sha256(weights.read_bytes()).hexdigest(),
        }
        write_atomic(scratch / "record.json", json.dumps(record, indent=1).encode())
        folder.parent.mkdir(exist_ok=True)
        try:
            os.rename(scratch, folder)
        except OSError:
            shutil.rmtree(scratch)
            if not folder.exists():
                raise

    def get_evaluation(self, key: str) -> Evaluation | None:
        path = self.root / "evaluations" / f"{key}.json"
        if not path.exists():
            return None
        try:
            record = json.loads(path.read_text())
            body: dict[str, Any] = record["evaluation"]
            if record["format"] != FORMAT or record["checksum"] != digest(body):
                raise ValueError("its checksum or format does not match")
            return body
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"stored evaluation {key[:12]} is damaged ({error}); it is made again", stacklevel=2)
            return None

    def put_evaluation(self, key: str, evaluation: Evaluation) -> None:
        record = {"format": FORMAT, "checksum": digest(evaluation), "evaluation": evaluation}
        write_atomic(self.root / "evaluations" / f"{key}.json", json.dumps(record).encode())
