"""Who trains which stage: a lease on its key, which its holder gives back, or loses when it dies.

Losing a lease costs time, never correctness: equal keys mean equal bits, whoever writes them.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from filelock import FileLock, Timeout
from pydantic import JsonValue

from orchestration.keep.files import Folder, LocalFolder, Version, writing

#: seconds without a change after which a lease by heartbeat is free; seconds between changes
TTL, BEAT = 30.0, 5.0
#: seconds between looks of who waits
POLL = 0.5
#: seconds after which nobody doubts that a heartbeat has ended
LONG_DEAD = 3600.0
#: what a file system without locks says
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)


class Lease(Protocol):
    """A lease that is held, until the end of its context."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Leases(Protocol):
    def attempt(self, key: str, parent: str | None = None) -> Lease | None:
        """The lease on stage `key`, or None while another holds it: ask again later. Never waits.
        Raises StorageError where leases cannot be written."""

    def held(self) -> list[dict[str, JsonValue]]:
        """What stands in every lease that may be held ({} for an unreadable one); key and parent among it."""


def leases_in(folder: Folder) -> Leases:
    return LockLeases(folder) if isinstance(folder, LocalFolder) else BeatLeases(folder)


def _name(key: str, ending: str) -> str:
    return f"leases/{key}.{ending}"


def _body(content: bytes | None) -> dict[str, JsonValue]:
    try:
        body = json.loads(content or b"")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


class LockLease:
    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path, self._lock = path, lock

    def release(self) -> None:
        try:  # while it is locked; who opened the file before sees that it has no name any more
            self.path.unlink(missing_ok=True)
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.release()
        except OSError:
            return  # the lock goes with the process; the stage is what matters


class LockLeases:
    """On a file system: locks of the operating system, which frees those of a process that dies. Where it has none,
    heartbeats stand in."""

    def __init__(self, folder: LocalFolder) -> None:
        self.folder = folder
        self._beats: BeatLeases | None = None

    def attempt(self, key: str, parent: str | None = None) -> Lease | None:
        if self._beats is not None:
            return self._beats.attempt(key, parent)
        path = Path(self.folder.path(_name(key, "lock")))
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock = self._lock(path)
            except NotImplementedError as error:
                warnings.warn(f"{path}: no locks there ({error}); leases are kept by heartbeat", stacklevel=2)
                self._beats = BeatLeases(self.folder)
                return self._beats.attempt(key, parent)
            if lock is None:
                return None
            try:
                path.write_text(json.dumps({"key": key, "parent": parent, "pid": os.getpid()}))
            except OSError:
                lock.release()
                raise
        return LockLease(path, lock)

    def _lock(self, path: Path) -> FileLock | None:
        """Raises NotImplementedError where the file system has no locks."""
        lock = FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout:
            return None
        except OSError as error:
            if error.errno in NO_LOCKS:
                raise NotImplementedError(error.strerror) from error
            if error.errno == errno.ESTALE:  # another machine has just given it back, and the file with it
                return None
            raise
        return lock

    def held(self) -> list[dict[str, JsonValue]]:
        if self._beats is not None:
            return self._beats.held()
        found = []
        for entry in self.folder.files("leases"):
            if entry.name.endswith(".lock"):
                lock = self._lock(Path(self.folder.path(entry.name)))
                if lock is None:
                    found.append(_body(self.folder.read(entry.name)))
                else:
                    lock.release()  # its holder has died
        return found


class BeatLease:
    """A lease by heartbeat. As a context manager it beats in a thread of its own."""

    def __init__(self, leases: BeatLeases, name: str, body: dict[str, JsonValue]) -> None:
        self._leases, self._name, self._body = leases, name, body
        self._beats = 0
        self._version: Version | None = None
        self._shown = 0.0  # when the others were last shown that the holder is alive
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def _content(self) -> bytes:
        return json.dumps({**self._body, "beats": self._beats}).encode()

    def take(self, instead_of: Version | None) -> bool:
        """Take a lease that is free, or that of a holder that is taken for dead. False where another was quicker."""
        now, folder = self._leases.clock(), self._leases.folder
        if instead_of is None:
            self._version = folder.create(self._name, self._content())
        else:
            self._version = folder.replace(self._name, self._content(), instead_of)
        self._shown = now
        return self._version is not None

    def beat(self) -> bool:
        """Show that the holder is alive. False where another has taken over."""
        if self._version is None:
            return False
        self._beats += 1
        if self.take(self._version):
            return True
        there = self._leases.folder.read_version(self._name)
        if there is None or _body(there[0]).get("token") != self._body["token"]:
            return False
        self._version = there[1]  # the answer to an earlier beat was lost
        return True

    def mine(self) -> bool:
        return _body(self._leases.folder.read(self._name)).get("token") == self._body["token"]

    def release(self) -> None:
        # nobody takes over what was seen to change within TTL
        surely = self._version is not None and self._leases.clock() - self._shown < self._leases.ttl / 2
        if surely or self.mine():
            self._leases.folder.delete(self._name)

    def _run(self) -> None:
        while not self._over.wait(self._leases.beat):
            try:
                if not self.beat():
                    return
            except OSError:
                continue  # a full disk or a lost connection may pass; if it does not, the lease expires

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"lease {self._name}")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self.release()
        except OSError:
            return  # it expires by itself; the stage is what matters


class BeatLeases:
    """Where there are no locks: a file per lease that its holder keeps changing while it works. It is free once it has
    not changed for TTL seconds of the waiting side's monotonic clock; wall clocks are never compared. `clock` is
    monotonic seconds; the simulation gives its own."""

    def __init__(
        self, folder: Folder, ttl: float = TTL, beat: float = BEAT, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder, self.ttl, self.beat, self.clock = folder, ttl, beat, clock
        self._seen: dict[str, tuple[Version, float]] = {}

    def attempt(self, key: str, parent: str | None = None) -> BeatLease | None:
        name = _name(key, "json")
        lease = BeatLease(self, name, {"token": uuid.uuid4().hex, "key": key, "parent": parent, "pid": os.getpid()})
        if not lease.take(None):
            there = self.folder.read_version(name)
            if there is None or not self._unchanged(key, there[1]) or not lease.take(there[1]):
                return None
        self._seen.pop(key, None)
        return lease

    def _unchanged(self, key: str, version: Version) -> bool:
        now = self.clock()
        seen = self._seen.get(key)
        if seen is None or seen[0] != version:
            self._seen[key] = (version, now)
            return False
        return now - seen[1] >= self.ttl

    def held(self) -> list[dict[str, JsonValue]]:
        # the store's clock and ours may differ by minutes
        entries = [entry for entry in self.folder.files("leases") if time.time() - entry.changed < LONG_DEAD]
        names = [entry.name for entry in entries if entry.name.endswith(".json")]
        return [_body(data) for data in map(self.folder.read, names) if data is not None]
