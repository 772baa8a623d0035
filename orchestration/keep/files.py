"""Folders, here or behind a URI, and writing so that a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mcit_core.folders import write_atomic

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


class StorageError(OSError):
    """A place that cannot be written to; the text is the whole message, with path and remedy."""


class UnreachableError(StorageError):
    """A place that does not answer at the moment, which is no fault of what is kept there."""


def without_userinfo(uri: str) -> str:
    """A URI as it may be shown: user name and password are left out."""
    return re.sub(r"(?<=://)[^/]*@", "***@", uri)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Raises StorageError, with path and remedy, for an OSError of what is done inside."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        why = error.strerror or error
        if error.errno in FULL:
            text = (
                f"{path}: no space left ({why}). Free some, for example with `python -m orchestration.store gc "
                "--max-size 5GB`, or choose another --storage; then give the same command again, it goes on from "
                "the finished stages"
            )
        elif error.errno in CLOSED:
            text = f"{path}: cannot be written to ({why}). Give this user write access, or choose another --storage"
        else:
            text = f"{path}: cannot be written ({why}). Check the disk or the connection"
        raise StorageError(text) from error


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files of one folder that belong together: all of them are on the disk before the first takes its place.
    Raises StorageError, and all are then as they were unless the renaming itself failed."""
    scratches = {path: path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}") for path in contents}
    try:
        for path, data in contents.items():
            with writing(path):
                write_atomic(scratches[path], data)
        for path, scratch in scratches.items():
            with writing(path):
                os.replace(scratch, path)
    finally:
        for scratch in scratches.values():
            with suppress(OSError):
                scratch.unlink(missing_ok=True)


@dataclass(frozen=True)
class Entry:
    """A file in a Folder: its name relative to the folder, bytes, and seconds since the epoch of its last change."""

    name: str
    size: int
    changed: float


#: what a file was when it was read or written; two parts, of which object stores use one or the other
Version = tuple[str, str]


class Folder(Protocol):
    """A folder of this machine's file system or of an object store. Names are relative, with /.

    `replace` needs a file's version, and fails where another has written since. All raise StorageError where the place
    cannot be used.
    """

    root: str

    @property
    def exact(self) -> bool:
        """Whether of two `create`s or `replace`s at the same moment one alone succeeds."""

    def path(self, name: str) -> str:
        """Where a file is, for people."""

    def read(self, name: str) -> bytes | None:
        """The content of a file, None where there is none."""

    def read_version(self, name: str) -> tuple[bytes, Version] | None: ...

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file or none."""

    def create(self, name: str, data: bytes) -> Version | None:
        """Write a file that must not be there yet; its version, or None where it is there."""

    def replace(self, name: str, data: bytes, version: Version) -> Version | None:
        """Write a file that must be of this version; its new one, or None where it is of another."""

    def move(self, source: str, target: str) -> bool:
        """Rename a file; False where it is gone already."""

    def delete(self, name: str) -> None:
        """Delete a file, or a folder with all it holds; nothing where it is gone already."""

    def touch(self, name: str) -> None:
        """Note that a file was used; silently nothing where that cannot be noted."""

    def exists(self) -> bool: ...

    def files(self, below: str = "") -> list[Entry]:
        """All files in the folder `below`, at any depth, by name."""


def _digest(data: bytes) -> Version:
    return hashlib.sha256(data).hexdigest(), ""


class LocalFolder:
    """A folder of this machine's file system. Files are renamed into place and fsynced."""

    exact = False  # a `replace` looks, then writes

    def __init__(self, where: str | Path) -> None:
        self.root = os.path.abspath(where)

    def path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def read(self, name: str) -> bytes | None:
        try:
            return Path(self.path(name)).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_version(self, name: str) -> tuple[bytes, Version] | None:
        data = self.read(name)
        return None if data is None else (data, _digest(data))

    def write(self, name: str, data: bytes) -> None:
        with writing(self.path(name)):
            path = Path(self.path(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data)

    def create(self, name: str, data: bytes) -> Version | None:
        with writing(self.path(name)):
            path = Path(self.path(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                file = path.open("xb")
            except FileExistsError:
                return None
            try:
                with file:
                    file.write(data)
            except OSError:
                path.unlink(missing_ok=True)
                raise
        return _digest(data)

    def replace(self, name: str, data: bytes, version: Version) -> Version | None:
        """Exact but for writers that come between its reading and its writing."""
        found = self.read_version(name)
        if found is None or found[1] != version:
            return None
        self.write(name, data)
        return _digest(data)

    def move(self, source: str, target: str) -> bool:
        with writing(self.path(target)):
            try:
                Path(self.path(target)).parent.mkdir(parents=True, exist_ok=True)
                os.replace(self.path(source), self.path(target))
            except FileNotFoundError:
                return False
        return True

    def delete(self, name: str) -> None:
        with writing(self.path(name)):
            path = Path(self.path(name))
            try:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            except FileNotFoundError:
                pass

    def touch(self, name: str) -> None:
        with suppress(OSError):
            os.utime(self.path(name))

    def exists(self) -> bool:
        return Path(self.root).is_dir()

    def files(self, below: str = "") -> list[Entry]:
        found: list[Entry] = []
        for folder, _, names in os.walk(self.path(below)):
            for name in names:
                path = os.path.join(folder, name)
                with suppress(FileNotFoundError):  # gone meanwhile
                    about = os.stat(path)
                    found.append(Entry(os.path.relpath(path, self.root), about.st_size, about.st_mtime))
        return sorted(found, key=lambda entry: entry.name)
