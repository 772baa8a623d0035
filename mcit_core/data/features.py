"""Frozen features, computed once per (model, task, split) and memory-mapped from Arrow.

Rows are encoded in chunks of CHUNK, padded where short, so that a row's features do not depend on which rows stand
beside it: with the cache off (`folder=None`) every batch is encoded afresh and the results are bit-equal.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from mcit_core.config import Value
from mcit_core.models import FrozenFeatures, Model
from mcit_core.stages.digest import digest
from mcit_core.stages.numerics import numerics

CHUNK = 32
FORMAT = 2


class Rows:
    """One split of one task: `rows[index]` gives frozen features; labels, answers and kinds lie beside them."""

    def __init__(
        self, model: Model, table: pa.Table, image_shape: tuple[int, int, int], features: FrozenFeatures | None = None
    ) -> None:
        self.model, self.image_shape, self._features = model, image_shape, features
        self.answers: list[str] = table["answer"].to_pylist()
        self.content_kinds: list[str] = table["content_kind"].to_pylist()
        self.instructions: list[str] = table["instruction"].to_pylist()
        self.labels = model.answer_ids(self.answers)
        # one padding for the whole split: a row's features then do not depend on its batch
        self.length = model.instruction_length(self.instructions)
        self._images = table["image"] if features is None else None

    def __len__(self) -> int:
        return len(self.answers)

    def __getitem__(self, index: Tensor) -> FrozenFeatures:
        if self._features is not None:
            picked = self._features[index.cpu()]
            return FrozenFeatures(*(getattr(picked, f.name).to(self.model.device) for f in fields(picked)))
        assert self._images is not None
        where = index.tolist()
        parts = []
        for start in range(0, len(where), CHUNK):
            some = where[start : start + CHUNK]
            padded = some + some[:1] * (CHUNK - len(some))
            images = np.stack([np.frombuffer(self._images[i].as_py(), np.uint8) for i in padded])
            encoded = self.model.encode(
                images.reshape(CHUNK, *self.image_shape), [self.instructions[i] for i in padded], self.length
            )
            parts.append(encoded[torch.arange(len(some), device=self.model.device)])
        return self.model.join(parts)


def table_digest(table: pa.Table) -> str:
    """Digest of what the rows say, independent of how Arrow stores them."""
    total = hashlib.sha256()
    for name in ("image", "instruction", "answer", "content_kind"):
        for value in table[name].to_pylist():
            total.update(value if isinstance(value, bytes) else value.encode())
            total.update(b"\0")
    return total.hexdigest()


def open_rows(
    model: Model,
    key: Mapping[str, Value],
    source: str | None,
    make_table: Callable[[], pa.Table],
    image_shape: tuple[int, int, int],
    folder: Path | None,
) -> tuple[Rows, str]:
    """The rows of `make_table()` and the digest of what they say, from the cache in `folder` where it has them.

    `source` changes whenever the table does; where it is None the table is made and hashed each time, so that the cache
    never stands in for rows that have changed. `key` names what else decides the features, the code that encodes them
    included. A damaged cache file is reported and made again.
    """
    table = make_table() if folder is None or source is None else None
    if folder is None:
        return Rows(model, table, image_shape), table_digest(table)
    said = source if table is None else table_digest(table)
    machine = {"device": model.device.type, "numerics": numerics(model.device)}
    made_from = {**key, **machine, "rows": said, "model": model.digest, "format": FORMAT}
    path = folder / f"{digest({**made_from, 'image_shape': [*image_shape]})[:32]}.arrow"
    if path.exists():
        try:
            return _read(model, path, image_shape)
        except (pa.ArrowInvalid, OSError, ValueError, KeyError) as error:
            warnings.warn(f"{path} is damaged ({error}); it is made again", stacklevel=2)
    _write(model, path, make_table() if table is None else table, image_shape)
    return _read(model, path, image_shape)


def _write(model: Model, path: Path, table: pa.Table, image_shape: tuple[int, int, int]) -> None:
    torch.set_num_threads(1)  # the last bits of a feature depend on the number of threads
    features = Rows(model, table, image_shape)[torch.arange(table.num_rows)]
    columns: dict[str, pa.Array] = {}
    shapes: dict[str, list[int]] = {}
    for f in fields(FrozenFeatures):
        values = getattr(features, f.name).cpu().numpy()
        shapes[f.name] = list(values.shape[1:])
        columns[f.name] = pa.FixedSizeListArray.from_arrays(
            pa.array(values.reshape(-1)), int(np.prod(values.shape[1:]))
        )
    for name in ("instruction", "answer", "content_kind"):
        columns[f"row_{name}"] = table[name].combine_chunks()
    body = pa.record_batch(columns)
    head = {"shapes": json.dumps(shapes), "data": table_digest(table), "checksum": _checksum(body)}
    body = body.replace_schema_metadata(head)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{uuid.uuid4().hex[:8]}.tmp")
    with pa.OSFile(str(scratch), "wb") as sink, pa.ipc.new_file(sink, body.schema) as writer:
        writer.write_batch(body)
    os.replace(scratch, path)


def _checksum(body: pa.RecordBatch) -> str:
    total = hashlib.sha256()
    for column in body.columns:
        for buffer in column.buffers():
            if buffer is not None:
                total.update(buffer)
    return total.hexdigest()


def _read(model: Model, path: Path, image_shape: tuple[int, int, int]) -> tuple[Rows, str]:
    body = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    head = {k.decode(): v.decode() for k, v in body.schema.metadata.items()}
    if _checksum(body) != head["checksum"]:
        raise ValueError("checksum does not match")
    shapes = json.loads(head["shapes"])
    tensors = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        for name, shape in shapes.items():
            values = body[name].values.to_numpy(zero_copy_only=True)
            tensors[name] = torch.from_numpy(values).view(-1, *shape)
    table = pa.table({name: body[f"row_{name}"] for name in ("instruction", "answer", "content_kind")})
    return Rows(model, table, image_shape, FrozenFeatures(**tensors)), head["data"]
