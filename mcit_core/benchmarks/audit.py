"""What is wrong with a benchmark's files: what `python -m mcit_core.benchmarks.check` looks for."""

from __future__ import annotations

import hashlib
import io
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from mcit_core.benchmarks.answers import LETTER_ASKED, OPTION, guess, never_right, said_outright
from mcit_core.benchmarks.files import FilesBenchmark, TaskFiles, picture_of, place_of
from mcit_core.benchmarks.json_rows import BadRow, Row, name_of, read_objects, rows_of
from mcit_core.benchmarks.layouts import SIZES
from mcit_core.benchmarks.shapes import shape

#: examples of a finding that are kept
SHOWN = 20
#: rows from which on a guess is judged, and how far above the commonest answer it is no chance any more
JUDGED, ABOVE = 20, 0.2
#: below this share of the published rows a file is a part that somebody took
PART = 0.9
#: how far the share of a shape of answers may be apart in training and test
APART = 0.2


@dataclass
class Finding:
    """`defect`: something is wrong; else it is a note. `count`: of rows, pictures or files; `where`: the first ones."""

    kind: str
    defect: bool
    task: str
    split: str
    text: str
    count: int = 0
    where: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Entry:
    """What is kept of a row: hashes of its question and its answers."""

    number: int
    question: bytes
    answers: bytes
    pictures: tuple[Path, ...]
    whole: bool  # no picture is missing: it can be compared with others


@dataclass
class File:
    """What is kept of a file."""

    path: Path
    entries: list[Entry] = field(default_factory=list)
    shapes: Counter[str] = field(default_factory=Counter)

    def place(self, entry: Entry) -> str:
        return f"{self.path}, {place_of(self.path, entry.number)}"


@dataclass(frozen=True)
class Report:
    findings: list[Finding]
    rows: dict[str, dict[str, int]]  # task -> file's split -> rows
    shapes: dict[str, dict[str, dict[str, float]]]
    pictures: int
    seconds: float  # that reading the pictures took
    bytes: int

    @property
    def defects(self) -> list[Finding]:
        return [found for found in self.findings if found.defect]


def _hash(*parts: str) -> bytes:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=12).digest()


class Audit:
    """One pass over a benchmark's files, then one over its pictures."""

    def __init__(self, benchmark: FilesBenchmark) -> None:
        self.benchmark = benchmark
        self._findings: dict[tuple[str, str, str], Finding] = {}

    def _found(
        self, kind: str, files: TaskFiles, split: str, text: str, where: str, *, defect: bool = True, count: int = 1
    ) -> None:
        finding = self._findings.setdefault((kind, files.name, split), Finding(kind, defect, files.name, split, text))
        finding.count += count
        if len(finding.where) < SHOWN:
            finding.where.append(where)

    def run(self) -> Report:
        tasks = {files: self._task(files) for files in self.benchmark.files.values()}
        owners: dict[Path, tuple[TaskFiles, str]] = {}
        for files, read in tasks.items():
            for split, file in read.items():
                for entry in file.entries:
                    owners.update({path: (files, split) for path in entry.pictures if path not in owners})
        began = time.perf_counter()
        contents, size = self._pictures(owners)
        seconds = time.perf_counter() - began
        for files, read in tasks.items():
            for split, file in read.items():
                self._rows(files, split, file, contents)
            self._overlap(files, read, contents)
            self._shapes(files, read)
            self._sizes(files, read)
        self._replay([*tasks])
        return Report(
            [*self._findings.values()],
            {files.name: {split: len(file.entries) for split, file in read.items()} for files, read in tasks.items()},
            {
                files.name: {split: _shares(file.shapes) for split, file in read.items()}
                for files, read in tasks.items()
            },
            len(owners),
            seconds,
            size + sum(file.path.stat().st_size for read in tasks.values() for file in read.values()),
        )

    # --- the files

    def _task(self, files: TaskFiles) -> dict[str, File]:
        paths = {"train": files.train, "test": files.test}
        if files.validation is not None:
            paths["validation"] = files.validation
        return {split: self._file(files, split, path) for split, path in paths.items()}

    def _file(self, files: TaskFiles, split: str, path: Path) -> File:
        file, guesses = File(path), list[tuple[str, str]]()
        ids: set[str] = set()
        for number, found in read_objects(path):
            where = f"{path}, {place_of(path, number)}"
            try:
                rows = rows_of(found, number)
            except BadRow as error:
                self._found("broken_row", files, split, "rows that cannot be read", f"{where}: {error}")
                continue
            assert isinstance(found, dict)
            name = name_of(found, number)
            if name in ids:
                text = "ids that stand for several rows"
                self._found("duplicate_id", files, split, text, f"{where}: {name}")
            ids.add(name)
            if len(name) > 1 and name.startswith("0") and name.isdigit():
                text = "ids with leading zeros: read as numbers they fit no answer file"
                self._found("leading_zeros", files, split, text, f"{where}: {name}", defect=False)
            for row in rows:
                self._row(files, split, file, number, row, where)
                told = guess(row.instruction)
                if told is not None:
                    guesses.append((told, row.golds[0][:1]))
        self._judge(files, split, path, guesses)
        return file

    def _row(self, files: TaskFiles, split: str, file: File, number: int, row: Row, where: str) -> None:
        folders = files.folders(split == "test")
        pictures: list[Path] = []
        for image in row.images:
            path = picture_of(image, folders)
            if path is None:
                self._found("missing_picture", files, split, "pictures that are not there", f"{where}: {image}")
            else:
                pictures.append(path)
        said = [text for turn in row.history for text in turn]
        whole = len(pictures) == len(row.images)
        file.entries.append(Entry(number, _hash(*said, row.instruction), _hash(*row.golds), tuple(pictures), whole))
        file.shapes[shape(row.golds[0])] += 1
        if split == "test":
            rule = self.benchmark.rule(files.name)
            whys = [never_right(gold, row.instruction, rule) for gold in row.golds]
            if all(whys):
                text = f"golds that no answer of the form asked for fits by the rule {rule}"
                self._found("gold_never_right", files, split, text, f"{where}: {whys[0]}")
        if LETTER_ASKED.search(row.instruction) and len(OPTION.findall(row.instruction)) < 2:
            text = "a letter is asked for where the options have none"
            self._found("options_unlettered", files, split, text, where, defect=False)
        if said_outright(row.instruction, row.golds[0]):
            self._found("answer_in_prompt", files, split, "prompts that say the answer", where)

    def _judge(self, files: TaskFiles, split: str, path: Path, guesses: list[tuple[str, str]]) -> None:
        """Whether the words of the prompts alone choose the option."""
        if len(guesses) < JUDGED:
            return
        right = sum(told == gold for told, gold in guesses) / len(guesses)
        commonest = Counter(gold for _, gold in guesses).most_common(1)[0][1] / len(guesses)
        if right >= commonest + ABOVE:
            text = (
                "prompts that give the answer away: the option that shares most words with what stands behind "
                f"'Rationale:' is the gold in {100 * right:.1f} % of {len(guesses)} rows, the commonest letter in "
                f"{100 * commonest:.1f} %"
            )
            self._found("prompt_gives_away", files, split, text, str(path), count=len(guesses))

    # --- the pictures

    def _pictures(self, owners: dict[Path, tuple[TaskFiles, str]]) -> tuple[dict[Path, bytes], int]:
        """What tells the content of each picture, and the bytes of all; each one that cannot be read is a finding."""
        contents, size = {}, 0
        with ThreadPoolExecutor() as pool:
            for path, (content, taken, error) in zip(owners, pool.map(_looked_at, owners), strict=True):
                contents[path], size = content, size + taken
                if error is not None:
                    files, split = owners[path]
                    text = "pictures that cannot be read"
                    self._found("unreadable_picture", files, split, text, f"{path}: {error}")
        return contents, size

    # --- rows against rows

    def _rows(self, files: TaskFiles, split: str, file: File, contents: dict[Path, bytes]) -> None:
        seen: set[tuple[bytes, ...]] = set()
        for entry in file.entries:
            if not entry.whole:
                continue
            key = (entry.question, entry.answers, *(contents[path] for path in entry.pictures))
            if key in seen:
                text = "rows that stand twice: question, picture and answer"
                self._found("duplicate_row", files, split, text, file.place(entry))
            seen.add(key)

    def _overlap(self, files: TaskFiles, read: dict[str, File], contents: dict[Path, bytes]) -> None:
        def key(entry: Entry) -> tuple[bytes, ...]:
            return entry.question, *(contents[path] for path in entry.pictures)

        train = read["train"]
        where = {key(entry): entry for entry in train.entries if entry.whole}
        questions = {entry.question for entry in train.entries}
        pictures = {contents[path] for entry in train.entries for path in entry.pictures}
        for split in ("test", "validation"):
            file = read.get(split)
            for entry in [] if file is None else file.entries:
                assert file is not None
                if not entry.whole:
                    continue
                if key(entry) in where:
                    text = "rows whose question and picture stand in the training file"
                    place = (
                        f"{file.place(entry)} = {place_of(train.path, where[key(entry)].number)} of {train.path.name}"
                    )
                    self._found("in_training", files, split, text, place)
                    continue
                if entry.question in questions:
                    text = "rows whose question stands in the training file too, with another picture"
                    self._found("shared_question", files, split, text, file.place(entry), defect=False)
                if any(contents[path] in pictures for path in entry.pictures):
                    text = "rows whose picture stands in the training file too, with another question"
                    self._found("shared_picture", files, split, text, file.place(entry), defect=False)

    def _shapes(self, files: TaskFiles, read: dict[str, File]) -> None:
        one, other = (_shares(read[split].shapes) for split in ("train", "test"))
        for kind in sorted({*one, *other}):
            apart = one.get(kind, 0.0) - other.get(kind, 0.0)
            if one and other and abs(apart) > APART:
                text = (
                    f"answers of the shape {kind}: {100 * one.get(kind, 0):.0f} % in training, "
                    f"{100 * other.get(kind, 0):.0f} % in the test"
                )
                self._found(f"shape_{kind}", files, "test", text, str(read["test"].path), defect=False)

    def _sizes(self, files: TaskFiles, read: dict[str, File]) -> None:
        for split, file in read.items():
            published = SIZES.get(self.benchmark.name, {}).get(files.name, {}).get(split)
            rows = len({entry.number for entry in file.entries})
            if published is None or rows == published:
                continue
            text = f"{rows:,} rows, where {published:,} are published"
            part = rows < PART * published
            self._found("rows_published", files, split, text, str(file.path), defect=not part)

    def _replay(self, tasks: Iterable[TaskFiles]) -> None:
        for path in sorted(self.benchmark.root.rglob("*replay*.json")):
            if path.stat().st_size < 16 and not [*read_objects(path)]:
                near = next((files for files in tasks if files.train.parent in path.parents), None)
                text = "a replay file without rows, as the first task's is"
                finding = Finding("empty_replay", False, near.name if near else "", "train", text, 1, [str(path)])
                self._findings["empty_replay", str(path), ""] = finding


def _shares(shapes: Counter[str]) -> dict[str, float]:
    return {kind: count / shapes.total() for kind, count in shapes.most_common()}


def _looked_at(path: Path) -> tuple[bytes, int, str | None]:
    """Hash of a picture file's bytes, how many there are, and why it cannot be read, if so."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return b"", 0, str(error.strerror)
    content = hashlib.blake2b(data, digest_size=12).digest()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a very large picture, which is read none the less
            with Image.open(io.BytesIO(data)) as picture:
                picture.load()
    except Exception as error:  # whatever a decoder raises
        return content, len(data), " ".join(str(error).split())[:120] or type(error).__name__
    return content, len(data), None
