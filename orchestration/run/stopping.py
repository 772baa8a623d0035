"""Ctrl-C, and what means the same: a scheduler's or a shell's SIGTERM, a terminal that has gone (SIGHUP)."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

#: seconds for Ray to end in good order; a SIGTERM to the whole process group has ended Ray's own processes, and then it
#: never does
PATIENCE = 8.0
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stop:
    """How a sweep is stopped: at once, or where something is running that has to end first, by `end_running`."""

    def __init__(self, rescue: Callable[[], int]) -> None:
        self.rescue = rescue
        self.asked = False
        self.end_running: Callable[[], None] | None = None
        self.over = threading.Event()
        self.rescuing, self._lock = False, threading.Lock()
        self.before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __call__(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if again or self.end_running is None:
            raise KeyboardInterrupt
        print(f"{signal.Signals(number).name}: stopping; finished stages are kept, the report follows", flush=True)
        threading.Thread(target=self._watch, daemon=True, name="stopping").start()
        self.end_running()

    def _watch(self) -> None:
        self.over.wait(PATIENCE)
        with self._lock:
            if self.over.is_set():
                return
            self.rescuing = True
        code = 1
        try:
            code = self.rescue()
        except Exception as error:  # as of a full disk; nothing may keep the process from its end
            print(error, file=sys.stderr)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def take_signals(self) -> None:
        """On the main thread; on another one signals are left as they are. Again after a library has taken them."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # a shell's background job and nohup have some of them ignored, and so they stay
                if signal.getsignal(number) != signal.SIG_IGN:
                    self.before.setdefault(number, signal.getsignal(number))
                    signal.signal(number, self)

    def give_back(self) -> None:
        with self._lock:
            self.over.set()
        if self.rescuing:  # it ends the process; two must not write the same files
            threading.Event().wait()
        for number, handler in self.before.items():
            signal.signal(number, handler)


@contextmanager
def stoppable(rescue: Callable[[], int]) -> Iterator[Stop]:
    """What is run inside ends in good order on the first signal, and by KeyboardInterrupt on the next. Where it hangs,
    `rescue` writes down what there is, on another thread, and the process ends with the exit code that it returns."""
    stop = Stop(rescue)
    stop.take_signals()
    try:
        yield stop
    finally:
        stop.give_back()
