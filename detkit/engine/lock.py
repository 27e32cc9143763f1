"""One run at a time in a run folder: two would write over each other's checkpoints and rows."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

LOCK = ".lock"


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Context in which no other process trains in `folder`; what one that was killed left half written is removed.

    The system takes the lock back from a process that ends in any way, and forked loader workers do not share it.
    Raises ValueError when another process has it, and OSError when the folder cannot be written.
    """
    with _opened(folder) as file:
        if not _locked(file):
            raise ValueError(
                f"another process is training in {folder}: wait for its end or stop it, or set another train.output"
            )
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        yield


def _opened(folder: Path) -> TextIO:
    try:
        return open(folder / LOCK, "a")
    except OSError as error:
        message = f"cannot write the run folder ({error.strerror}); set train.output"
        raise OSError(error.errno, message, str(folder)) from None


def _locked(file: TextIO) -> bool:
    """Whether the file is ours now, as far as its file system can tell."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True
