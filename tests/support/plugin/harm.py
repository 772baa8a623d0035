"""Makes one file operation fail below a folder: in tests here, and in the processes of a sweep by MCIT_TEST_HARM."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Harm:
    """The k-th write, fsync, rename or open of something below `root` fails; `crash` ends everything after it too."""

    def __init__(self, root: Path, k: int, code: int, crash: bool = False) -> None:
        self.root, self.left, self.code, self.crash, self.calls = str(root), k, code, crash, 0

    def _meant(self, what: object) -> bool:
        if isinstance(what, int):
            try:
                what = os.readlink(f"/proc/self/fd/{what}")
            except OSError:
                return False
        return str(what).startswith(self.root) and "/.scratch/" not in str(what)

    def __call__(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*args: Any, **kwargs: Any) -> Any:
            if args and self._meant(args[0]):
                self.calls += 1
                if self.calls == self.left or (self.crash and 0 < self.left < self.calls):
                    self.strike(str(args[0]))
            return real(*args, **kwargs)

        return instead

    def strike(self, path: str) -> None:
        raise OSError(self.code, os.strerror(self.code), path)

    def into(self, put: Callable[[Any, str, Any], None]) -> None:
        for name in ("fsync", "replace", "open", "utime"):
            put(os, name, self(getattr(os, name)))
        for name in ("open", "read_bytes", "mkdir", "unlink"):
            put(Path, name, self(getattr(Path, name)))


class OnceInAll(Harm):
    """Strikes in the process that comes first to its k-th operation alone: with an error, or by ending the process."""

    def __init__(self, root: Path, k: int, how: str) -> None:
        super().__init__(root, k, errno.ENOSPC)
        self.mark, self.how = Path(root).parent / "struck", how

    def strike(self, path: str) -> None:
        try:
            os.close(self._real_open(self.mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return
        self.mark.write_text(path)
        if self.how == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        super().strike(path)

    _real_open = staticmethod(os.open)


def from_environment() -> None:
    """MCIT_TEST_HARM=K:HOW:ROOT, HOW being fail or crash."""
    if "MCIT_TEST_HARM" in os.environ:
        k, how, root = os.environ["MCIT_TEST_HARM"].split(":", 2)
        OnceInAll(Path(root), int(k), how).into(setattr)
