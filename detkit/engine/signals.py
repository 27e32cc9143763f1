"""SIGINT and SIGTERM as a request to stop at the next safe place."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class Stopped(BaseException):
    """Training was stopped by a signal. Not an Exception, so that no `except Exception` swallows it."""

    def __init__(self, signum: int, message: str = "") -> None:
        super().__init__(message or f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def exit_status(self) -> int:
        """What a shell expects: 130 after SIGINT, 143 after SIGTERM."""
        return 128 + self.signum


class StopSignals:
    """Context in which the first SIGINT or SIGTERM is only noted in `received`.

    The second raises `Stopped` wherever the program is, the third kills the process. Outside the main thread,
    where Python allows no handlers, the context does nothing. Old handlers come back at its end, except that
    after a signal dying child processes stay unreported: often the loader's workers got it too, and torch would
    raise an error about them in the middle of a step or of saving.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._count = 0
        self._immediate = False
        self._pid = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Inside, already the first signal raises `Stopped`: for long work that changes no state."""
        if self.received is not None:
            raise Stopped(self.received)
        self._immediate = True
        try:
            yield
        finally:
            self._immediate = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return  # a forked loader worker: its parent decides
        self._count += 1
        self.received = signum
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if self._count >= 3:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(self._pid, signum)
        if self._count == 2 or self._immediate:
            raise Stopped(signum)
        name = signal.Signals(signum).name
        os.write(2, f"{name}: finishing the step and saving; once more stops at once\n".encode())
