"""Two machines for tests: network namespaces with an address each, joined by a cable (veth)."""

import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Machine:
    """A network namespace, which sees its own loopback and `interface`, and the address that it has there."""

    name: str
    interface: str
    address: str

    def command(self, *arguments: object) -> list[object]:
        """The command, run on this machine."""
        return ["ip", "netns", "exec", self.name, *arguments]

    def cut_off(self) -> None:
        """Pull the cable: nothing arrives any more, and nobody is told."""
        _ip("-n", self.name, "link", "set", self.interface, "down")

    def kill(self) -> None:
        """Pull the plug: every process on this machine ends, without a word."""
        for pid in _ip("netns", "pids", self.name).split():
            os.kill(int(pid), signal.SIGKILL)


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=20).stdout


def _skip_where_impossible() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, for network namespaces")
    if shutil.which("ip") is None:
        pytest.skip("needs `ip` of iproute2, for network namespaces: apt-get install iproute2")


@contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Machines 10.77.0.1 and 10.77.0.2 that see each other and nothing else; skips where they cannot be made."""
    _skip_where_impossible()
    unique = uuid.uuid4().hex[:8]
    machines = tuple(Machine(f"detkit-{unique}-{k}", f"v{unique}{k}", f"10.77.0.{k}") for k in (1, 2))
    try:
        for machine in machines:
            _ip("netns", "add", machine.name)
            _ip("-n", machine.name, "link", "set", "lo", "up")
        first, second = machines
        _ip(
            *("-n", first.name, "link", "add", first.interface, "type", "veth"),
            *("peer", "name", second.interface, "netns", second.name),
        )
        for machine in machines:
            _ip("-n", machine.name, "address", "add", f"{machine.address}/24", "dev", machine.interface)
            _ip("-n", machine.name, "link", "set", machine.interface, "up")
        yield first, second
    except subprocess.CalledProcessError as error:
        pytest.skip(f"needs network namespaces with veth: {' '.join(error.cmd)}: {error.stderr.strip()}")
    finally:
        for machine in machines:
            subprocess.run(["ip", "netns", "delete", machine.name], capture_output=True, timeout=20)
