"""The command line as a program."""

import subprocess
import sys

import detkit.__main__
from tests.processes import environment

INTERRUPTED = """
import sys
class Loader:
    def find_spec(self, name, path=None, target=None):
        if name == "detkit.cli.main":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Loader())
from detkit.__main__ import main
main()
"""


def test_ctrl_c_before_the_commands_are_loaded_ends_quietly() -> None:
    command = [sys.executable, "-c", INTERRUPTED]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_the_entry_point_loads_nothing_by_itself() -> None:
    code = "import detkit.__main__, sys; assert not {'torch', 'typer'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment())
    assert callable(detkit.__main__.main)
