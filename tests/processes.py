"""Starting several real processes for tests, as torchrun does, and never waiting for them without end."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
Process = subprocess.Popen[str]


def environment(**more: object) -> dict[str, str]:
    """This process's, with one thread, the checkout to import from, and connections over loopback."""
    fixed = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **fixed, **{name: str(value) for name, value in more.items()}}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def started(*commands: Sequence[object], environments: Sequence[dict[str, str]]) -> Iterator[list[Process]]:
    """Processes, each in a group of its own; those that still run at the end are killed."""
    processes = [
        subprocess.Popen(
            [str(part) for part in command],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for command, variables in zip(commands, environments, strict=True)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            killed(process)


def killed(process: Process) -> tuple[str, str]:
    """Output and errors of a process that is killed now, with all that it started, unless it has ended."""
    for pid in [process.pid, *descendants(process.pid)]:  # torchrun's have groups of their own
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return process.communicate(timeout=30)


def descendants(pid: int) -> list[int]:
    """The processes that a process started and that still run, and those that they did."""
    listed = subprocess.run(["ps", "-o", "pid=,stat=", "--ppid", str(pid)], capture_output=True, text=True, timeout=20)
    running = [line.split() for line in listed.stdout.splitlines()]
    children = [int(child) for child, state in running if not state.startswith("Z")]
    return children + [below for child in children for below in descendants(child)]


@contextmanager
def ranks(*arguments: object, size: int = 2, **more: object) -> Iterator[list[Process]]:
    """`python ARGUMENTS` as `size` processes that find each other by the variables that torchrun sets."""
    port = free_port()
    names = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **more}
    variables = [environment(RANK=rank, LOCAL_RANK=rank, **names) for rank in range(size)]
    with started(*([[sys.executable, *arguments]] * size), environments=variables) as processes:
        yield processes


def finished(processes: Sequence[Process], timeout: float) -> list[tuple[int, str, str]]:
    """Exit status, output and errors of each; fails the test when one is not done after `timeout` seconds."""
    ends = []
    for process in processes:
        output, errors = process.communicate(timeout=timeout)
        ends.append((process.returncode, output, errors))
    return ends
