"""Who trains which stage: a lease is a file per stage key that its holder keeps changing while it works.

A lease is over when its holder says so, is a dead process of this machine, or has not changed the file for TTL seconds
of the WAITING side's monotonic clock; wall clocks are never compared. Losing a lease costs time, never correctness:
equal keys mean equal bits, whoever writes them.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import TracebackType

from pydantic import JsonValue

from orchestration.keep.files import Folder

#: seconds without a change after which a lease is free; seconds between changes; seconds between looks of who waits
TTL, BEAT, POLL = 30.0, 5.0, 0.5


@cache
def machine() -> str:
    """This boot of this machine (and this container's process numbers); "" where it cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def process_start(pid: int) -> str | None:
    """When a process of this machine started, in clock ticks since boot; None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


class Lease:
    """A lease that is held. As a context manager it beats in a thread of its own and is given back at the end."""

    def __init__(self, folder: Folder, name: str, body: dict[str, JsonValue], beat: float) -> None:
        self._folder, self._name, self._body, self._seconds = folder, name, body, beat
        self._beats = 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def content(self) -> bytes:
        return json.dumps({**self._body, "beats": self._beats}).encode()

    def mine(self) -> bool:
        data = self._folder.read(self._name)
        return data is not None and _body(data).get("token") == self._body["token"]

    def beat(self) -> bool:
        """Show that the holder is alive. False where another has taken over."""
        if not self.mine():
            return False
        self._beats += 1
        self._folder.write(self._name, self.content())
        return True

    def release(self) -> None:
        if self.mine():
            self._folder.delete(self._name)

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            try:
                if not self.beat():
                    return
            except OSError:
                continue  # a full disk or a lost connection may pass; if it does not, the lease expires

    def __enter__(self) -> Lease:
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


class Leases:
    """The leases in `folder`, as seen by one process. `clock` is monotonic seconds; the simulation gives its own."""

    def __init__(
        self,
        folder: Folder,
        ttl: float = TTL,
        beat: float = BEAT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.ttl, self.beat, self.clock = folder, ttl, beat, clock
        self._seen: dict[str, tuple[bytes, float]] = {}

    def attempt(self, key: str, parent: str | None = None) -> Lease | None:
        """The lease on stage `key`, or None while another holds it: ask again later. Never waits.
        Raises StorageError where leases cannot be written."""
        name = f"leases/{key}.json"
        there = self.folder.read(name)
        if there is not None:
            if not (holder_is_dead(there) or self._unchanged(key, there)):
                return None
            if self.folder.read(name) == there:  # or else another was quicker to take it over
                self.folder.delete(name)
        body: dict[str, JsonValue] = {"token": uuid.uuid4().hex, "key": key, "parent": parent, "pid": os.getpid()}
        body |= {"machine": machine(), "started": process_start(os.getpid())}
        lease = Lease(self.folder, name, body, self.beat)
        if not self.folder.create(name, lease.content()):
            return None
        self._seen.pop(key, None)
        return lease

    def _unchanged(self, key: str, content: bytes) -> bool:
        now = self.clock()
        seen = self._seen.get(key)
        if seen is None or seen[0] != content:
            self._seen[key] = (content, now)
            return False
        return now - seen[1] >= self.ttl

    def held(self) -> list[dict[str, JsonValue]]:
        """What stands in every lease whose holder is not known to be dead ({} for an unreadable one)."""
        contents = (self.folder.read(entry.name) for entry in self.folder.files("leases"))
        return [_body(data) for data in contents if data is not None and not holder_is_dead(data)]


def holder_is_dead(content: bytes) -> bool:
    """Whether a lease's holder was a process of this machine that is gone. False where that cannot be told."""
    body = _body(content)
    pid = body.get("pid")
    if not body.get("machine") or body["machine"] != machine() or not isinstance(pid, int):
        return False
    return process_start(pid) != body.get("started")


def _body(content: bytes) -> dict[str, JsonValue]:
    try:
        body = json.loads(content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
