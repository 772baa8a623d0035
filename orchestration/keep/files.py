"""Folders, here or behind a URI, and writing so that a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from mcit_core.folders import write_atomic

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


class StorageError(OSError):
    """A place that cannot be written to; the text is the whole message, with path and remedy."""


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


class Folder:
    """A folder by path, by any URI that pyarrow.fs opens, or inside a given file system. Names are relative, with /.

    Local writes are renamed into place and fsynced. Elsewhere a file is written under a temporary name and moved; where
    a move copies, as on object stores, the copy itself appears whole.
    """

    def __init__(self, where: str | Path, filesystem: fs.FileSystem | None = None) -> None:
        text = str(where)
        if filesystem is not None:
            self.fs, root = filesystem, text
        elif "://" in text:
            self.fs, root = fs.FileSystem.from_uri(text)
        else:
            self.fs, root = fs.LocalFileSystem(), os.path.abspath(text)
        self.root = root.rstrip("/") or "/"
        self.local = isinstance(self.fs, fs.LocalFileSystem)

    def path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def read(self, name: str) -> bytes | None:
        """The content of a file, None where there is none."""
        try:
            if self.local:
                return Path(self.path(name)).read_bytes()
            with self.fs.open_input_stream(self.path(name)) as stream:
                data: bytes = stream.read()
                return data
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file or none. Raises StorageError."""
        with writing(self.path(name)):
            path = self.path(name)
            if self.local:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                write_atomic(Path(path), data)
                return
            parent, _, last = path.rpartition("/")
            scratch = f"{parent}/.{last}.{uuid.uuid4().hex[:8]}"
            self.fs.create_dir(parent, recursive=True)
            with self.fs.open_output_stream(scratch) as stream:
                stream.write(data)
            self.fs.move(scratch, path)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file that must not be there yet; False where it is. Exact on this machine's disks; elsewhere two
        that come at the same moment may both get True, the later one's content stands. Raises StorageError."""
        if not self.local:
            if self.read(name) is not None:
                return False
            self.write(name, data)
            return self.read(name) == data
        with writing(self.path(name)):
            path = Path(self.path(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                file = path.open("xb")
            except FileExistsError:
                return False
            try:
                with file:
                    file.write(data)
            except OSError:
                path.unlink(missing_ok=True)
                raise
        return True

    def move(self, source: str, target: str) -> bool:
        """Rename a file; False where it is gone already. Raises StorageError."""
        with writing(self.path(target)):
            try:
                if self.local:
                    Path(self.path(target)).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(self.path(source), self.path(target))
                else:
                    self.fs.create_dir(self.path(target).rpartition("/")[0], recursive=True)
                    self.fs.move(self.path(source), self.path(target))
            except FileNotFoundError:
                return False
        return True

    def delete(self, name: str) -> None:
        """Delete a file, or a folder with all it holds; nothing where it is gone already. Raises StorageError."""
        with writing(self.path(name)):
            path = self.path(name)
            try:
                if self.fs.get_file_info(path).type == fs.FileType.Directory:
                    if self.local:
                        shutil.rmtree(path)
                    else:
                        self.fs.delete_dir(path)
                else:
                    self.fs.delete_file(path)
            except FileNotFoundError:
                pass

    def touch(self, name: str) -> None:
        """Note that a file was used; silently nothing where that cannot be noted."""
        if self.local:
            try:
                os.utime(self.path(name))
            except OSError:
                return

    def exists(self) -> bool:
        return bool(self.fs.get_file_info(self.root).type == fs.FileType.Directory)

    def files(self, below: str = "") -> list[Entry]:
        """All files in the folder `below`, at any depth, by name."""
        found = self.fs.get_file_info(fs.FileSelector(self.path(below), recursive=True, allow_not_found=True))
        cut = len(self.root.rstrip("/")) + 1
        return sorted(
            (
                Entry(info.path[cut:], info.size or 0, (info.mtime_ns or 0) / 1e9)
                for info in found
                if info.type == fs.FileType.File
            ),
            key=lambda entry: entry.name,
        )
