"""Benchmarks that are files: `coin`, `ucit`, `mllm_dcl` and `mllm_acl` as they are published.

    benchmark: {kind: ucit, root: /data/UCIT, test_rows: 1000}

Every picture is read in one way, for training and for tests: by its path below `images` (the root where it is not set),
else below the task's folder, in colour, of an animation the first frame, not turned by what a camera noted.
"""

from __future__ import annotations

import json
import os
import uuid
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from mcit_core.benchmarks.json_rows import BadRow, Row, read_objects, rows_of
from mcit_core.benchmarks.layouts import COIN, MLLM_ACL, MLLM_DCL, TEST, TRAIN, UCIT, VALIDATION, Layout
from mcit_core.benchmarks.scorers import Scoring, score
from mcit_core.benchmarks.settings import CoinSettings, FilesSettings
from mcit_core.benchmarks.vqa_words import normalised
from mcit_core.example import Example
from mcit_core.folders import file_digest, user_cache
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
    }
)
#: bad rows that are told one by one
TOLD = 3


@dataclass(frozen=True)
class TaskFiles:
    """Where a task is. `pictures`: the folders that a picture's path may begin in, by what is looked for first."""

    name: str
    train: Path
    test: Path
    validation: Path | None
    pictures: tuple[Path, ...]
    scoring: Scoring
    suffix: str = ""

    def file(self, split: str) -> Path:
        """Validation rows come out of the training file where there is no file of their own."""
        return {"train": self.train, "test": self.test}.get(split, self.validation or self.train)


@dataclass(frozen=True)
class Problem:
    file: Path
    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}, {self.place}: {self.what}"


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
            _file(folder, TRAIN, name),
            _file(tests, TEST, name),
            next((folder / one for one in VALIDATION if (folder / one).is_file()), None),
            (*begin, folder, tests, folder.parent),
            scoring,
            suffix,
        )

    # --- rows

    def rows(self, task: str, split: str) -> pa.Table:
        """Raises ValueError where a row cannot be read and `on_bad_row` is error."""
        if (task, split) not in self._tables:
            self._tables[task, split] = self._read(task, split)
        return self._tables[task, split]

    def _read(self, task: str, split: str) -> pa.Table:
        path = self._index_path(task, split)
        if path.exists():
            try:
                with pa.memory_map(str(path)) as source:
                    table = pa.ipc.open_file(source).read_all()
                if self._whole(table):
                    return table
            except (pa.ArrowInvalid, OSError):
                pass  # it is made again
        table, problems = self._made(task, split)
        if problems:
            self._tell(problems, table.num_rows)
        else:  # what is told is told every time
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_suffix(f".{uuid.uuid4().hex[:8]}.tmp")
            with pa.OSFile(str(scratch), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            os.replace(scratch, path)
        return table

    def _index_path(self, task: str, split: str) -> Path:
        told = self.settings.model_dump(exclude={"scoring", "on_bad_row"})
        files = self.files[task]
        made_of = [rows_code("mcit_core.benchmarks.files"), told, task, split, [*map(str, files.pictures)]]
        made_of += [file_digest(files.file(split))]
        return user_cache() / "indexes" / f"{digest(made_of)[:32]}.arrow"

    def _whole(self, table: pa.Table) -> bool:
        return all(os.path.exists(path) for path in {path for row in table["images"].to_pylist() for path in row})

    def _made(self, task: str, split: str) -> tuple[pa.Table, list[Problem]]:
        files, problems = self.files[task], []
        rows: list[dict[str, Any]] = []
        owner: list[int] = []  # the element that a row is of: a conversation is not parted
        path = files.file(split)
        for number, found in read_objects(path):
            try:
                made = [self._row(row, files, split) for row in rows_of(found, number)]
            except BadRow as error:
                problems.append(Problem(path, place_of(path, number), str(error)))
                continue
            rows += made
            owner += [number] * len(made)
        kept = self._kept(task, split, owner)
        return pa.Table.from_pylist([rows[i] for i in kept], schema=SCHEMA), problems

    def _row(self, row: Row, files: TaskFiles, split: str) -> dict[str, Any]:
        """Raises BadRow where a picture is missing."""
        paths = [picture_of(image, files.pictures) for image in row.images]
        if None in paths:
            where = ", ".join(dict.fromkeys(map(str, files.pictures)))
            raise BadRow(f"there is no picture {row.images[paths.index(None)]} in {where}")
        told = {
            "golds": row.golds,
            "image": row.images[0] if row.images else "",
            "question": row.instruction,
            **row.told,
        }
        return {
            "images": [*map(str, paths)],
            "instruction": row.instruction + (files.suffix if split == "test" else ""),
            "answer": row.golds[0],
            "content_kind": files.name,
            "history": [{"question": question, "answer": answer} for question, answer in row.history],
            "id": row.id,
            "scoring": json.dumps(told, sort_keys=True),
        }

    def _kept(self, task: str, split: str, owner: list[int]) -> list[int]:
        """The rows of a split among those of its file, in the file's order."""
        settings, files = self.settings, self.files[task]
        order = np.random.default_rng([settings.subset_seed, zlib.crc32(task.encode())])
        elements = list(dict.fromkeys(owner))
        if split != "test" and files.validation is None and elements:
            drawn = order.permutation(len(elements))
            apart = {elements[i] for i in drawn[: max(1, round(settings.validation_share * len(elements)))]}
            owned = [i for i, element in enumerate(owner) if (element in apart) == (split == "validation")]
        else:
            owned = [*range(len(owner))]
        most = {"train": settings.train_rows, "test": settings.test_rows}.get(split)
        if most is None or most >= len(owned):
            return owned
        return sorted(np.random.default_rng([settings.subset_seed, 1]).permutation(owned)[:most].tolist())

    def _tell(self, problems: list[Problem], left: int) -> None:
        shown = "; ".join(map(str, problems[:TOLD])) + (f"; and {len(problems) - TOLD} more" if problems[TOLD:] else "")
        if self.settings.on_bad_row == "error":
            raise ValueError(
                f"{len(problems)} rows cannot be read: {shown}. Mend them, or set benchmark.on_bad_row: skip"
            )
        warnings.warn(f"{len(problems)} rows are left out, {left} are read: {shown}", stacklevel=2)

    def digest(self, task: str, split: str) -> str | None:
        """Of what its rows say and of the sizes of its pictures; not of where they lie."""
        table = self.rows(task, split)
        sizes = [[os.path.getsize(path) for path in row] for row in table["images"].to_pylist()]
        texts = {name: table[name].to_pylist() for name in table.column_names if name != "images"}
        return digest([texts, sizes, self.rule(task), rows_code("mcit_core.benchmarks.files")])

    def open(self, row: Mapping[str, Any]) -> Example:
        """Raises ValueError that names a picture that cannot be read."""
        pictures = []
        for path in row["images"]:
            try:
                with Image.open(path) as picture:
                    pictures.append(picture.convert("RGB"))
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                raise ValueError(f"{path} cannot be read as a picture: {error}") from error
        history = tuple((turn["question"], turn["answer"]) for turn in row.get("history") or [])
        return Example(tuple(pictures), row["instruction"], history)

    # --- scores

    def score(self, task: str, prediction: str, answer: str) -> float:
        return self.score_row(task, prediction, answer, "{}")

    def score_row(self, task: str, prediction: str, answer: str, scoring: str) -> float:
        """By the task's rule; see ScoresRows."""
        told = json.loads(scoring)
        return score(self.rule(task), prediction.strip(), _gold(told, answer), row=told)

    def content_score(self, task: str, prediction: str, answer: str, content_kind: str) -> float:
        return self.content_row(task, prediction, answer, "{}")

    def content_row(self, task: str, prediction: str, answer: str, scoring: str) -> float:
        """1.0 where the content is right, whatever the form: by either of the task's rules, or after the normalisation
        of the VQA evaluation, of a letter also where it is the first word of one character."""
        told, scorings = json.loads(scoring), self._scoring(task)
        gold = _gold(told, answer)
        rules = [scorings.strict, scorings.published]
        best = max(score(rule, prediction.strip(), gold, row=told) for rule in rules)
        golds = gold if isinstance(gold, list) else [gold]
        said = normalised(prediction)
        same = any(said == normalised(one) for one in golds)
        letters = [one.removesuffix(".") for one in golds if len(one.removesuffix(".")) == 1]
        lettered = any(score("letter_coin", prediction, one.upper()) for one in letters)
        return max(best, float(same or lettered))


def _gold(told: Mapping[str, Any], answer: str) -> str | list[str]:
    golds: list[str] = told.get("golds", [answer])
    return golds[0] if len(golds) == 1 else golds


def _folder(inside: tuple[Path, ...], names: tuple[str, ...]) -> Path | None:
    """The first of the named folders that is there, in whatever case."""
    for parent in inside:
        there = {path.name.lower(): path for path in sorted(parent.iterdir()) if path.is_dir()}
        for name in names:
            if name.lower() in there:
                return there[name.lower()]
    return None


def _file(folder: Path, names: tuple[str, ...], task: str) -> Path:
    """The first of the named files that is there; of a pattern the only one that fits."""
    for name in names:
        found = sorted(folder.glob(name))
        if len(found) == 1:
            return found[0]
        if found:
            told = ", ".join(path.name for path in found)
            raise ValueError(
                f"task {task}: {folder} has several files like {name} ({told}); say which in a benchmark.yaml"
            )
    raise FileNotFoundError(f"task {task}: {folder} has none of {', '.join(names)}")


def picture_of(image: str, folders: tuple[Path, ...]) -> Path | None:
    """Where a picture is, None where it is in none of the folders."""
    return next((path for folder in folders if (path := folder / image.removeprefix("./")).is_file()), None)


class Coin(FilesBenchmark):
    name, layout, Settings = "coin", COIN, CoinSettings

    def _inside(self) -> tuple[Path, ...]:
        assert isinstance(self.settings, CoinSettings)
        wanted = f"Instructions_{self.settings.instructions}"
        places = (self.root / wanted, self.root / "CoIN" / wanted)
        return tuple(folder for folder in places if folder.is_dir())


class Ucit(FilesBenchmark):
    name, layout = "ucit", UCIT


class MllmDcl(FilesBenchmark):
    name, layout = "mllm_dcl", MLLM_DCL


class MllmAcl(FilesBenchmark):
    name, layout = "mllm_acl", MLLM_ACL
