"""Two machines for tests: network namespaces with an address each, joined by a cable (veth)."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import pytest

SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])  # where only root's leads
CABLE = "eth0"  # what both machines call their end


@dataclass(frozen=True)
class Machine:
    """A network namespace: the process `pid` keeps it, and it sees its own loopback and `address` alone."""

    pid: int
    address: str

    def command(self, *arguments: object) -> list[object]:
        """The command, run on this machine."""
        return [_program("nsenter"), f"--net=/proc/{self.pid}/ns/net", *arguments]

    def ip(self, *arguments: object) -> None:
        """Run `ip` on this machine."""
        command = [str(part) for part in self.command(_program("ip"), *arguments)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)

    def cut_off(self) -> None:
        """Pull the cable: nothing arrives any more, and nobody is told."""
        self.ip("link", "set", CABLE, "down")

    def connect(self) -> None:
        """Put the cable back."""
        self.ip("link", "set", CABLE, "up")


Pair = tuple[Machine, Machine]


@contextmanager
def two_machines() -> Iterator[Pair]:
    """Machines 10.77.0.1 and 10.77.0.2 that see each other and nothing else; skips where they cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if missing := [name for name in ("ip", "nsenter", "unshare") if not shutil.which(name, path=SEARCH_PATH)]:
        pytest.skip(f"network namespaces need {', '.join(missing)}: apt-get install iproute2 util-linux")
    with ExitStack() as stack:
        try:
            first, second = (stack.enter_context(_machine(f"10.77.0.{number}")) for number in (1, 2))
            first.ip("link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", second.pid)
            for machine in (first, second):
                machine.ip("address", "add", f"{machine.address}/24", "dev", CABLE)
                machine.ip("link", "set", CABLE, "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces with veth here: {' '.join(error.cmd)}: {error.stderr}")
        yield first, second


@contextmanager
def _machine(address: str) -> Iterator[Machine]:
    """A namespace that has no name and goes with its last process, even where this one is killed."""
    command, pipe = [_program("unshare"), "--net", "cat"], subprocess.PIPE
    with subprocess.Popen(command, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe) as keeper:
        assert keeper.stdin is not None and keeper.stdout is not None and keeper.stderr is not None
        with suppress(BrokenPipeError):
            keeper.stdin.write(b"here\n")
        if keeper.stdout.readline() != b"here\n":
            raise subprocess.CalledProcessError(1, command, stderr=keeper.stderr.read().decode())
        machine = Machine(keeper.pid, address)
        machine.ip("link", "set", "lo", "up")
        yield machine


def _program(name: str) -> str:
    return shutil.which(name, path=SEARCH_PATH) or name
