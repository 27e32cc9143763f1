"""What a terminal shows of a command, as HTML."""

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

from rich.console import Console
from rich.text import Text

COLUMNS = 96
CONTROL = re.compile(r"\x1b\[(\d*)([AK])|\x1b\[\?25[hl]|\r\n|\n|\r")


def terminal_html(title: str, command: Sequence[str], enough: str) -> str:
    """The terminal below the line `title`, once `command` has shown `enough`, a pattern; the command is ended then."""
    seen = _run(command, enough)
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text(f"$ {title}\n", style="bold"))
        console.print(Text.from_ansi("\n".join(_lines(seen))))
    return console.export_html(inline_styles=True)


def _run(command: Sequence[str], enough: str, seconds: float = 900.0) -> str:
    parent, child = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    process = subprocess.Popen(command, env=environment, stdin=child, stdout=child, stderr=child)
    os.close(child)
    seen, end = b"", time.monotonic() + seconds
    with suppress(OSError):  # the command has ended
        while time.monotonic() < end and not re.search(enough, seen.decode(errors="ignore"), re.S):
            if select.select([parent], [], [], 1.0)[0]:
                seen += os.read(parent, 65536)
    process.kill()
    process.wait()
    return seen.decode(errors="ignore")


def _lines(seen: str) -> list[str]:
    """The lines that stand on the screen: bars go up and erase what they draw again."""
    lines, row, at = [""], 0, 0
    for match in CONTROL.finditer(seen):
        lines[row] += seen[at : match.start()]
        at = match.end()
        if match[0].endswith("\n"):
            row += 1
            lines += [""] * (row == len(lines))
        elif match[2] == "A":
            row = max(0, row - int(match[1] or 1))
        elif match[2] == "K":
            lines[row] = ""
    lines[row] += seen[at:]
    return lines[: row + 1]
