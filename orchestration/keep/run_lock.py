"""One command at a time on a RUN: a lock that its process holds, and that goes with it, however it ends."""

from __future__ import annotations

import json
import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mcit_core.yaml_document import SpecError
from orchestration.keep.files import writing


@contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Holds the lock of the RUN folder, whose own name may change meanwhile. Raises SpecError where another process
    holds it, naming that one, and StorageError where it cannot be written."""
    folder = run.parent / ".locks"
    holder = folder / f"{run.name}.json"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{run.name}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise SpecError(
            f"{run}: another command is at work on it ({_who(holder)}). Wait for its end or stop it, then give this "
            "command again; or give this one a RUN of its own: --set name=..."
        ) from None
    except (NotImplementedError, OSError) as error:  # a file system without locks
        warnings.warn(f"{run}: nothing keeps a second command off it ({error})", stacklevel=3)
    try:
        about = {"host": platform.node(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with writing(holder):
            holder.write_text(json.dumps(about), encoding="utf-8")
        yield
    finally:
        lock.release()


def _who(holder: Path) -> str:
    try:
        about = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {about['pid']} on {about['host']}, since {about['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it does not say which"
