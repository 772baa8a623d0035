"""Benchmarks that are files: `coin`, `ucit`, `mllm_dcl` and `mllm_acl` as they are published.

    benchmark: {kind: ucit, root: /data/UCIT, test_rows: 1000}

Every picture is read in one way, for training and for tests: by its path below `images` (the root where it is not set),
else below the task's folder, in colour, of an animation the first frame, not turned by what a camera noted.
"""

from __future__ import annotations

import json
import os
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mcit_core.benchmarks import Judging
from mcit_core.benchmarks.json_rows import BadRow, Row, read_objects, rows_of
from mcit_core.benchmarks.layouts import COIN, MLLM_ACL, MLLM_DCL, TEST, TRAIN, UCIT, VALIDATION, Layout
from mcit_core.benchmarks.scorers import Scoring, best_score, content_score
from mcit_core.benchmarks.settings import CoinSettings, FilesSettings
from mcit_core.benchmarks.shapes import shape
from mcit_core.example import Example, read_picture
from mcit_core.folders import file_digest, user_cache, write_atomic
from mcit_core.registry import near
from mcit_core.stages.digest import digest
from mcit_core.stages.fingerprint import rows_code

SCHEMA = pa.schema(
    {
        "images": pa.list_(pa.string()),
        "instruction": pa.string(),
        "answer": pa.string(),
        "content_kind": pa.string(),
        "history": pa.list_(pa.struct({"question": pa.string(), "answer": pa.string()})),
        "id": pa.string(),
        # what a rule of scoring looks at, as JSON
        "scoring": pa.string(),
        # of the file: a conversation is one
        "element": pa.int64(),
    }
)
#: rows that are made at once
PART = 10_000
#: bad rows that are told one by one
TOLD = 3


@dataclass(frozen=True)
class TaskFiles:
    """Where a task is. `pictures`: the folders that a picture's path may begin in, by what is looked for first; behind
    them comes the folder of the file itself, and that above."""

    name: str
    train: Path
    test: Path
    validation: Path | None
    pictures: tuple[Path, ...]
    scoring: Scoring
    suffix: str = ""
    answer_tokens: int | None = None

    def folders(self, tests: bool) -> tuple[Path, ...]:
        own = (self.test if tests else self.train).parent
        return *self.pictures, own, own.parent

    def file(self, split: str) -> Path:
        """Validation rows come out of the training file where there is no file of their own."""
        return {"train": self.train, "test": self.test}.get(split, self.validation or self.train)


def place_of(path: Path, number: int) -> str:
    return f"line {number}" if path.suffix == ".jsonl" else f"row {number}"


class FilesBenchmark:
    """The Benchmark contract (see `mcit_core.benchmarks`) on files; see the module's text."""

    name: ClassVar[str]
    layout: ClassVar[Layout | None] = None
    Settings: ClassVar[type[FilesSettings]] = FilesSettings

    def __init__(self, settings: FilesSettings) -> None:
        """Looks for the tasks, and reads none of them. Raises FileNotFoundError where there are none, and ValueError
        where it cannot be told which files are a task's."""
        self.settings = settings
        self.root = Path(settings.root).expanduser()
        if not self.root.is_dir():
            raise FileNotFoundError(f"benchmark.root: there is no folder {self.root}")
        images = None if settings.images is None else Path(settings.images).expanduser()
        if images is not None and not images.is_dir():
            raise FileNotFoundError(f"benchmark.images: there is no folder {images}")
        self._images = images
        self._tables: dict[tuple[str, str], pa.Table] = {}
        self.files = {task.name: task for task in self._found()}
        self.tasks = tuple(self.files)
        self.exact_match = all(self.rule(task) == "exact" for task in self.tasks)

    def _scoring(self, task: str) -> Scoring:
        """A task's rules; of a model's own sample, which is asked as task `pretraining`, exact match."""
        return self.files[task].scoring if task in self.files else Scoring("exact", "exact")

    def rule(self, task: str) -> str:
        """The rule that a task's answers are scored by."""
        scoring = self._scoring(task)
        return scoring.published if self.settings.scoring == "published" else scoring.strict

    def judging(self, task: str) -> Judging:
        """See TellsJudging; of a model's own sample as of a task that is told nothing of."""
        scoring = self._scoring(task)
        told = self.files[task].answer_tokens if task in self.files else None
        return Judging(f"{scoring.strict}, {scoring.published}", told)

    # --- where things are

    def _inside(self) -> tuple[Path, ...]:
        """Folders that may hold the tasks' folders."""
        assert self.layout is not None
        return tuple(folder for part in self.layout.inside if (folder := self.root / part).is_dir())

    def _found(self) -> Iterator[TaskFiles]:
        layout = self.layout
        assert layout is not None
        self._check_aliases([*layout.tasks])
        found: list[TaskFiles] = []
        looked: list[str] = []
        for name, task in layout.tasks.items():
            alias = self.settings.aliases.get(name)
            names = (alias,) if alias else (name, *task.folders)
            folder = _folder(self._inside(), names)
            apart = _folder(self._inside(), task.test_folders)
            looked += names
            if folder is None or not any(folder.glob("*.json*")):
                continue
            pictures = tuple(self.root / part for part in layout.pictures)
            found.append(self._task(name, folder, apart or folder, pictures, task.scoring, task.suffix))
        if not found:
            where = " or ".join(map(str, self._inside())) or self.root
            raise FileNotFoundError(f"benchmark.root: {where} has no folder of a task; looked for {', '.join(looked)}")
        yield from found

    def _check_aliases(self, names: list[str]) -> None:
        for name in self.settings.aliases:
            if name not in names:
                known = ", ".join(names)
                raise ValueError(f"benchmark.aliases: no task {name!r}, expected one of {known}{near(name, names)}")

    def _task(
        self, name: str, folder: Path, tests: Path, pictures: tuple[Path, ...], scoring: Scoring, suffix: str = ""
    ) -> TaskFiles:
        begin = (self._images,) if self._images is not None else pictures
        return TaskFiles(
            name,
            file_of(folder, TRAIN, name),
            file_of(tests, TEST, name),
            next((folder / one for one in VALIDATION if (folder / one).is_file()), None),
            begin,
            scoring,
            suffix,
        )

    # --- rows

    def rows(self, task: str, split: str) -> pa.Table:
        """Raises ValueError where a row cannot be read and `on_bad_row` is error, and where no row is left."""
        if (task, split) not in self._tables:
            files = self.files[task]
            index = self._index(files, files.file(split), tests=split == "test")
            table = index.take(pa.array(self._kept(task, split, index), pa.int64())).drop_columns("element")
            if table.num_rows == 0:
                raise ValueError(f"task {task}: {files.file(split)} leaves no row for {split}")
            self._tables[task, split] = table
        return self._tables[task, split]

    def _index(self, files: TaskFiles, path: Path, tests: bool) -> pa.Table:
        """The rows of a file, kept below the user's cache as long as neither it nor what it is read by changes. Its
        metadata: how many `elements` the file has, and its `problems`."""
        made_of = [rows_code("mcit_core.benchmarks.files"), files.name, files.suffix if tests else ""]
        made_of += [file_digest(path), *map(str, files.folders(tests)), files.scoring.strict, files.scoring.published]
        kept = user_cache() / "indexes" / f"{digest(made_of)[:32]}.arrow"
        table = _kept_index(kept, files.folders(tests))
        if table is None:
            table = _made_index(files, path, tests)
            with suppress(OSError):  # where it cannot be kept it is made again
                kept.parent.mkdir(parents=True, exist_ok=True)
                sink = pa.BufferOutputStream()
                with pa.ipc.new_file(sink, table.schema) as writer:
                    writer.write_table(table)
                write_atomic(kept, sink.getvalue().to_pybytes())
        problems: list[str] = json.loads(table.schema.metadata[b"problems"])
        if problems:
            self._tell(path, problems)
        return table

    def _tell(self, path: Path, problems: list[str]) -> None:
        more = f"; and {len(problems) - TOLD} more" if problems[TOLD:] else ""
        told = "; ".join(problems[:TOLD]) + more
        if self.settings.on_bad_row == "error":
            raise ValueError(
                f"{path}: {len(problems)} rows cannot be read: {told}. Mend them, or set benchmark.on_bad_row: skip"
            )
        warnings.warn(f"{path}: {len(problems)} rows are left out: {told}", stacklevel=2)

    def _kept(self, task: str, split: str, index: pa.Table) -> list[int]:
        """The rows of a split among those of its file, in the file's order. What is drawn are the file's elements, bad
        ones included, so that a row that turns bad moves no other one."""
        settings, files = self.settings, self.files[task]
        owner = index["element"].to_pylist()
        owned = [*range(len(owner))]
        if split != "test" and files.validation is None:
            elements = int(index.schema.metadata[b"elements"])
            order = np.random.default_rng([settings.subset_seed, zlib.crc32(task.encode())]).permutation(elements)
            apart = {*order[: max(1, round(settings.validation_share * elements))].tolist()}
            owned = [i for i, element in enumerate(owner) if (element in apart) == (split == "validation")]
        most = {"train": settings.train_rows, "test": settings.test_rows}.get(split)
        if most is None or most >= len(owned):
            return owned
        return sorted(np.random.default_rng([settings.subset_seed, 1]).permutation(owned)[:most].tolist())

    def open(self, row: Mapping[str, Any]) -> Example:
        """Raises ValueError that names a picture that cannot be read."""
        history = tuple((turn["question"], turn["answer"]) for turn in row.get("history") or [])
        return Example(tuple(map(read_picture, row["images"])), row["instruction"], history)

    # --- scores

    def score(self, task: str, prediction: str, answer: str) -> float:
        return self.score_row(task, prediction, answer, "{}")

    def score_row(self, task: str, prediction: str, answer: str, scoring: str) -> float:
        """By the task's rule; see ScoresRows."""
        told = json.loads(scoring)
        return best_score(self.rule(task), prediction.strip(), told.get("golds", [answer]), told)

    def content_score(self, task: str, prediction: str, answer: str, content_kind: str) -> float:
        return self.content_row(task, prediction, answer, "{}")

    def content_row(self, task: str, prediction: str, answer: str, scoring: str) -> float:
        """See `content_score`."""
        told = json.loads(scoring)
        return content_score(self._scoring(task), prediction, told.get("golds", [answer]), told)

    def strict_row(self, task: str, prediction: str, answer: str, scoring: str) -> float:
        """By the data set's own rule; see ScoresForm."""
        told = json.loads(scoring)
        return best_score(self._scoring(task).strict, prediction.strip(), told.get("golds", [answer]), told)

    def form_row(self, task: str, prediction: str, answer: str, scoring: str) -> float:
        """1.0 where the answer has the shape of one of those that count as right."""
        return float(shape(prediction) in map(shape, json.loads(scoring).get("golds", [answer])))


def _kept_index(path: Path, folders: tuple[Path, ...]) -> pa.Table | None:
    """None where it is not there, damaged, or a picture of it is gone, or has come, since."""
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
    except (pa.ArrowInvalid, OSError):
        return None
    pictures = pc.unique(table["images"].combine_chunks().flatten()).to_pylist()
    missing: list[str] = json.loads(table.schema.metadata[b"missing"])
    same = all(map(os.path.exists, pictures)) and not any(picture_of(image, folders) for image in missing)
    return table if same else None


def _made_index(files: TaskFiles, path: Path, tests: bool) -> pa.Table:
    """The rows of a file, made part by part: a large one would fill the memory as Python's objects."""
    parts: list[pa.RecordBatch] = []
    rows: list[dict[str, object]] = []
    problems: list[str] = []
    missing: list[str] = []
    elements = 0
    for number, found in read_objects(path):
        try:
            rows += [{**_row(row, files, tests), "element": elements} for row in rows_of(found, number)]
        except BadRow as error:
            problems.append(f"{place_of(path, number)}: {error}")
            missing += [error.picture] if error.picture else []
        elements += 1
        if len(rows) >= PART:
            parts.append(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
            rows = []
    parts.append(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    told = {"elements": str(elements), "problems": json.dumps(problems), "missing": json.dumps(missing)}
    return pa.Table.from_batches(parts).replace_schema_metadata(told)


def _row(row: Row, files: TaskFiles, tests: bool) -> dict[str, object]:
    """Raises BadRow where a picture is missing, or no answer could be compared with its golds."""
    folders = files.folders(tests)
    paths = [picture_of(image, folders) for image in row.images]
    if None in paths:
        where, image = ", ".join(dict.fromkeys(map(str, folders))), row.images[paths.index(None)]
        raise BadRow(f"there is no picture {image[:200]} in {where}", picture=image)
    told: dict[str, object] = {"image": row.images[0] if row.images else "", "question": row.instruction, **row.told}
    if len(row.golds) > 1:
        told["golds"] = row.golds
    if tests:
        for rule in {files.scoring.strict, files.scoring.published}:
            try:
                best_score(rule, row.golds[0], row.golds, told)
            except ValueError as error:
                raise BadRow(f"by the rule {rule} {error}: {row.golds[0][:60]!r}") from error
    return {
        "images": [*map(str, paths)],
        "instruction": row.instruction + (files.suffix if tests else ""),
        "answer": row.golds[0],
        "content_kind": files.name,
        "history": [{"question": question, "answer": answer} for question, answer in row.history],
        "id": row.id,
        "scoring": json.dumps(told, sort_keys=True),
    }


def _folder(inside: tuple[Path, ...], names: tuple[str, ...]) -> Path | None:
    """The first of the named folders that is there, in whatever case."""
    for parent in inside:
        there = {path.name.lower(): path for path in sorted(parent.iterdir()) if path.is_dir()}
        for name in names:
            if name.lower() in there:
                return there[name.lower()]
    return None


def file_of(folder: Path, names: tuple[str, ...], task: str) -> Path:
    """The first of the named files that is there; of a pattern the only one that fits."""
    for name in names:
        found = sorted(folder.glob(name))
        if len(found) == 1:
            return found[0]
        if found:
            told = ", ".join(path.name for path in found)
            raise ValueError(
                f"task {task}: {folder} has several files like {name} ({told}); keep one of them there, or "
                "(llava_json) say which in a benchmark.yaml"
            )
    raise FileNotFoundError(f"task {task}: {folder} has none of {', '.join(names)}")


def picture_of(image: str, folders: tuple[Path, ...]) -> Path | None:
    """Where a picture is, None where it is in none of the folders."""
    with suppress(OSError, ValueError):  # a name that no file can have
        return next((path for folder in folders if (path := folder / image.removeprefix("./")).is_file()), None)
    return None


class Coin(FilesBenchmark):
    name, layout, Settings = "coin", COIN, CoinSettings

    def _inside(self) -> tuple[Path, ...]:
        assert isinstance(self.settings, CoinSettings)
        wanted = f"Instructions_{self.settings.instructions}"
        places = (self.root / wanted, self.root / "CoIN" / wanted)
        found = tuple(folder for folder in places if folder.is_dir())
        if not found:
            there = sorted(path.name for path in self.root.glob("Instructions_*"))
            raise FileNotFoundError(
                f"benchmark.instructions: {self.root} has no folder {wanted}"
                + (f"; it has {', '.join(there)}" if there else "")
            )
        return found


class Ucit(FilesBenchmark):
    name, layout = "ucit", UCIT


class MllmDcl(FilesBenchmark):
    name, layout = "mllm_dcl", MLLM_DCL


class MllmAcl(FilesBenchmark):
    name, layout = "mllm_acl", MLLM_ACL
