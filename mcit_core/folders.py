"""Folders that results go to, and files that are there whole or not at all."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from mcit_core.yaml_document import SpecError


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
