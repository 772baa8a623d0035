"""Folders that results go to, and files that are there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from mcit_core.yaml_document import SpecError

#: bytes from which on a file's digest is remembered, by path, size and time of change
LARGE = 64 * 2**20


def check_folder(chosen: Path, option: str) -> None:
    """Refuse what cannot become a folder to write to. Raises SpecError, which names `option`."""
    for folder in (chosen, *chosen.parents):
        if folder.exists():
            if not folder.is_dir():
                raise SpecError(f"{option} {chosen}: {folder} is a file; expected a folder")
            if not os.access(folder, os.W_OK):
                raise SpecError(f"{option} {chosen}: {folder} cannot be written to")
            return


def user_cache() -> Path:
    """Where what can be made again is kept between runs; it may not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "mcit"


def file_digest(path: Path) -> str:
    """SHA-256 of a file; that of a large one is remembered."""
    status = path.stat()
    if status.st_size < LARGE:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    cache = user_cache() / "digests.json"
    name = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    known: dict[str, str] = {}
    with suppress(OSError, ValueError):
        known = json.loads(cache.read_text())
    if name in known:
        return known[name]
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    with suppress(OSError):  # where it cannot be remembered it is worked out again
        cache.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{cache}.lock"):
            with suppress(OSError, ValueError):
                known = json.loads(cache.read_text())
            write_atomic(cache, json.dumps({**known, name: found}).encode())
    return found


def write_atomic(path: Path, data: bytes) -> None:
    """Write under a temporary name beside `path`, fsync, rename."""
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        with suppress(OSError):  # a read-only file system refuses that too
            scratch.unlink(missing_ok=True)
    _fsync_folder(path.parent)


def _fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
