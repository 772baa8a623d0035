"""Rows of a task as a model has encoded them: kept in Arrow and memory-mapped where the model says that it is worth it.

Kept rows are encoded in chunks of CHUNK, padded where short, so that a row's features do not depend on which rows stand
beside it: with the cache off (`folder=None`) every batch is encoded afresh and the results are bit-equal.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from mcit_core.config import Value
from mcit_core.example import Example
from mcit_core.models import Batch, KeepsFeatures, Model
from mcit_core.stages.digest import digest
from mcit_core.stages.numerics import numerics

T = TypeVar("T")
CHUNK = 32
#: batches that are prepared before they are asked for
AHEAD = 2
FORMAT = 3
TEXTS = ("instruction", "answer", "content_kind")
#: one more, of the benchmarks that are `ScoresRows`
SCORING = "scoring"
#: makes the example of one row of an index
Opener = Callable[[Mapping[str, Any]], Example]


class Ready(NamedTuple):
    """The rows at some places of a split, prepared in chunks to be encoded."""

    places: Tensor
    parts: list[Any]


class Rows:
    """One split of one task: `rows[index]` gives a batch; labels, answers and kinds lie beside them. `index` is that of
    a benchmark; or, where its features are `kept`, its texts alone, with the `sizes` of its rows."""

    def __init__(
        self,
        model: Model,
        index: pa.Table,
        open_row: Opener,
        kept: Batch | None = None,
        sizes: list[int] | None = None,
    ) -> None:
        self.model, self._index, self._open, self._kept, self._sizes = model, index, open_row, kept, sizes
        self.answers: list[str] = index["answer"].to_pylist()
        self.content_kinds: list[str] = index["content_kind"].to_pylist()
        self.instructions: list[str] = index["instruction"].to_pylist()
        self._scorings: list[str] | None = index[SCORING].to_pylist() if SCORING in index.column_names else None
        self.labels = model.answer_ids(self.answers)
        self.length = model.instruction_length(self.instructions)

    def __len__(self) -> int:
        return len(self.answers)

    def scoring(self, row: int) -> str | None:
        """What the benchmark's rules look at besides, None where they look at the answer alone."""
        return None if self._scorings is None else self._scorings[row]

    def labels_at(self, index: Tensor) -> Tensor:
        return self.labels[index.to(self.labels.device)]

    def __getitem__(self, index: Tensor) -> Batch:
        if self._kept is not None:
            return self.encoded(self.prepared(index))
        # part by part: a whole split's pictures would fill the memory
        return self.model.join([*self.parts(index)])

    def parts(self, index: Tensor) -> Iterable[Batch]:
        """The rows of `index` in batches of at most CHUNK, in order."""
        for some in index.split(CHUNK):
            yield self.encoded(self.prepared(some))

    def prepared(self, index: Tensor) -> Ready:
        """What the CPU does for a batch: rows opened, pictures decoded, texts cut into tokens."""
        index = index.cpu()
        return Ready(index, [] if self._kept is not None else [self._prepare(some) for some in index.split(CHUNK)])

    def _prepare(self, some: Tensor) -> Any:
        where = some.tolist()
        if isinstance(self.model, KeepsFeatures):
            where += where[:1] * (CHUNK - len(where))
        return self.model.prepare([self._open(self._row(i)) for i in where], self.length)

    def encoded(self, ready: Ready) -> Batch:
        if self._kept is not None:
            return self._kept[ready.places].to(self.model.device)
        parts = []
        for some, prepared in zip(ready.places.split(CHUNK), ready.parts, strict=True):
            parts.append(self.model.encode(prepared)[torch.arange(len(some), device=self.model.device)])
        return self.model.join(parts)

    def _row(self, row: int) -> dict[str, Any]:
        found: dict[str, Any] = self._index.slice(row, 1).to_pylist()[0]
        return found

    def stored_bytes(self, row: int) -> int:
        """What a row takes as its benchmark stores it."""
        return stored_bytes(self._row(row)) if self._sizes is None else self._sizes[row]


def ahead(jobs: Iterable[Callable[[], T]], device: torch.device) -> Iterator[T]:
    """What each job gives, in their order. Beside a GPU another thread makes the next ones while this one is used: one
    alone, since a tokenizer cannot be in two."""
    if device.type != "cuda":
        yield from (job() for job in jobs)
        return
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def stored_bytes(row: Mapping[str, Any]) -> int:
    """Of a row of an index: of its pictures, which are bytes or paths of files, instruction and answer."""
    pictures = sum(len(one) if isinstance(one, bytes) else os.path.getsize(one) for one in row["images"])
    return pictures + len(row["instruction"].encode()) + len(row["answer"].encode())


def table_digest(index: pa.Table) -> str:
    """Digest of all that an index says, independent of how Arrow stores it; of pictures that are files also of their
    sizes and times of change."""
    total = hashlib.sha256()
    for name in sorted(index.column_names):
        for value in (name, *index[name].to_pylist()):
            parts = value if isinstance(value, list) else [value]
            if name == "images":
                parts = [part if isinstance(part, bytes) else f"{part} {_stamp(part)}" for part in parts]
            told = [part if isinstance(part, bytes) else repr(part).encode() for part in parts]
            # with lengths, so that no two rows read alike that are cut elsewhere
            total.update(repr([len(part) for part in told]).encode())
            for part in told:
                total.update(part)
    return total.hexdigest()


def _stamp(path: str) -> str:
    """Size and time of change of a file that is there from here."""
    try:
        status = os.stat(path)
    except OSError:
        return "not there"
    return f"{status.st_size} {status.st_mtime_ns}"


def open_rows(
    model: Model,
    key: Mapping[str, Value],
    source: str | None,
    make_index: Callable[[], pa.Table],
    open_row: Opener,
    folder: Path | None,
) -> tuple[Rows, str]:
    """The rows of `make_index()` and the digest of what they say, from the cache in `folder` where it has them.

    `source` changes whenever the index does; where it is None the index is made and hashed each time, so that the cache
    never stands in for rows that have changed. `key` names what else decides the features, the code that opens and
    encodes them included. A damaged cache file is reported and made again. Without a folder, and of a model that does
    not keep features, there is no cache.
    """
    if folder is None or not isinstance(model, KeepsFeatures):
        index = make_index()
        return Rows(model, index, open_row), table_digest(index)
    made = make_index() if source is None else None
    said = source if made is None else table_digest(made)
    machine = {"device": model.device.type, "numerics": numerics(model.device)}
    made_from = {**key, **machine, "rows": said, "model": model.digest, "format": FORMAT}
    path = folder / f"{digest(made_from)[:32]}.arrow"
    if path.exists():
        try:
            return _read(model, path, open_row)
        except (pa.ArrowInvalid, OSError, ValueError, KeyError) as error:
            warnings.warn(f"{path} is damaged ({error}); it is made again", stacklevel=2)
    _write(model, path, make_index() if made is None else made, open_row)
    return _read(model, path, open_row)


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread meanwhile: the last bits of a feature depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _write(model: Model, path: Path, index: pa.Table, open_row: Opener) -> None:
    assert isinstance(model, KeepsFeatures)
    with one_thread():
        features = model.columns(Rows(model, index, open_row)[torch.arange(index.num_rows)])
    columns: dict[str, pa.Array] = {}
    shapes: dict[str, list[int]] = {}
    for name, tensor in features.items():
        values = tensor.cpu().numpy()
        shapes[name] = list(values.shape[1:])
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), int(np.prod(values.shape[1:])))
    for name in (*TEXTS, SCORING):
        if name in index.column_names:
            columns[f"row_{name}"] = index[name].combine_chunks()
    columns["row_bytes"] = pa.array([stored_bytes(row) for row in index.to_pylist()], pa.int64())
    body = pa.record_batch(columns)
    head = {"shapes": json.dumps(shapes), "data": table_digest(index), "checksum": _checksum(body)}
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


def _read(model: Model, path: Path, open_row: Opener) -> tuple[Rows, str]:
    assert isinstance(model, KeepsFeatures)
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
    named = {f"row_{name}": name for name in (*TEXTS, SCORING)}
    texts = pa.table({named[column]: body[column] for column in body.schema.names if column in named})
    sizes: list[int] = body["row_bytes"].to_pylist()
    return Rows(model, texts, open_row, model.from_columns(tensors), sizes), head["data"]
