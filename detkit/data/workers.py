"""Worker processes under watch: one that dies or hangs is an error within seconds, and none outlives its epoch."""

import multiprocessing
import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from torch.utils.data import DataLoader


def watched(loader: "DataLoader[Any]", timeout: float) -> Generator[Any, None, None]:
    """What `loader` gives, which has no timeout of its own.

    Raises ChildProcessError when a worker died (torch looks every 5 seconds), and TimeoutError when no batch came for
    `timeout` seconds (0: however long it takes). Both say what to do.
    """
    if loader.num_workers == 0:
        yield from loader
        return
    others = set(multiprocessing.active_children())
    with _child_signal_kept():
        iterator = iter(loader)
    workers = set(multiprocessing.active_children()) - others
    try:
        while (item := _next(iterator, workers, timeout)) is not None:
            yield item
    except GeneratorExit:
        raise  # they are well: they may end by themselves
    except BaseException:
        _kill(workers)
        raise
    finally:
        del iterator  # asks the workers to end, and waits some seconds for each
        _kill(workers)


def _next(iterator: Iterator[Any], workers: set[BaseProcess], timeout: float) -> Any:
    """The next item, None at the end."""
    hung = threading.Event()

    def give_up() -> None:
        hung.set()
        _kill(workers)  # which ends every kind of wait for them

    watchdog = threading.Timer(timeout, give_up)
    watchdog.daemon = True
    if timeout:
        watchdog.start()
    try:
        return next(iterator, None)
    except (RuntimeError, OSError, EOFError) as error:
        if hung.is_set():
            raise TimeoutError(
                f"no batch came from the {len(workers)} loader workers for {timeout:g} seconds: one hangs, or the disk "
                "is that slow; look at the storage, or raise data.worker_timeout (0: wait for ever)"
            ) from error
        dead = _dead(workers, patience=0 if isinstance(error, RuntimeError) else 20)
        if dead is None:
            raise
        raise ChildProcessError(_how_it_died(dead)) from error
    finally:
        watchdog.cancel()


def _dead(workers: set[BaseProcess], patience: float) -> BaseProcess | None:
    """A worker that ended; its connections may break seconds before it is gone, as when the system dumps its core."""
    ended = wait([worker.sentinel for worker in workers], timeout=patience)
    for worker in workers:
        if worker.sentinel in ended:
            worker.join(patience or 1)  # a sentinel is a connection, too: the exit code comes a moment later
    return next((worker for worker in workers if worker.exitcode), None)


def _how_it_died(worker: BaseProcess) -> str:
    code = worker.exitcode or 0
    how = f"ended with status {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
    if code == -signal.SIGKILL:
        advice = "most often the system ran out of memory: lower data.workers, train.batch_size or data.short_side"
    elif code == -signal.SIGBUS:
        advice = "its shared memory is full: make /dev/shm larger (docker run --shm-size=8g), or set data.workers=0"
    else:
        advice = "data.workers=0 shows its error, if it is one of the pictures"
    return f"a loader worker (process {worker.pid}) {how}; {advice}"


def _kill(workers: set[BaseProcess]) -> None:
    """SIGKILL, as one that hangs or is stopped heeds nothing else, and the end of this program would wait for it."""
    for worker in workers:
        if worker.is_alive():
            worker.kill()


@contextmanager
def _child_signal_kept() -> Iterator[None]:
    """Take back the handler that torch installs for dying workers.

    It raises in the middle of whatever runs: of an optimizer step, which leaves half of the weights updated, or of
    writing a checkpoint. Here the wait for the next batch notices.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)
