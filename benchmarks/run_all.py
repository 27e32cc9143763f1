"""All rows in one sitting: runs each benchmark in a process of its own and prints the table in Markdown.

The rows of bfloat16 are run once only: where the processor has no such instructions they take long.
"""

import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import HEADERS, Output, Quick, Row, machine

from detkit.cli.errors import run_command
from detkit.files import write_atomically

COMMANDS = (
    "inference.py --runs 5",
    "inference.py --precision bfloat16 --runs 1",
    "bf16_accuracy.py",
    "training_step.py --runs 5",
    "training_step.py --precision bfloat16 --runs 1",
    "training_step.py --height 800 --width 1088 --batch 2 --peak --runs 1",
    "convolution.py",
    "roi_pooling.py --runs 9",
    "memory.py",
    "evaluation.py --runs 1",
    "coco_index.py --runs 3",
    "input_pipeline.py",
)


def main(
    quick: Quick = False,
    output: Output = None,
) -> None:
    """Run everything; a benchmark that fails is named in the table and makes the exit status 1."""
    rows: list[Row] = []
    failed: list[str] = []
    for command in COMMANDS:
        started = time.perf_counter()
        print(f"{command} ...", end=" ", flush=True, file=sys.stderr)
        found = run(command, quick)
        print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
        rows += found
        failed += [] if found and all(row.agrees is not False for row in found) else [command]
    text = markdown(rows) + "".join(f"\nFailed: `{command}`\n" for command in failed)
    print(text)
    if output is not None:
        write_atomically(output, text)
    raise SystemExit(1 if failed else 0)


def run(command: str, quick: bool) -> list[Row]:
    """The rows that a benchmark writes; none when it fails."""
    script, *options = command.split()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "rows.json"
        words = [sys.executable, str(Path(__file__).parent / script), *options, "--json", str(target)]
        subprocess.run(words + (["--quick"] if quick else []), stdout=subprocess.DEVNULL, check=False)
        return [Row(**row) for row in json.loads(target.read_text())] if target.exists() else []


def markdown(rows: list[Row]) -> str:
    """The table, under a line that says when and on what."""
    lines = [" | ".join(HEADERS), " | ".join("---" for _ in HEADERS), *(" | ".join(row.cells()) for row in rows)]
    table = "\n".join(f"| {line} |" for line in lines)
    return f"{datetime.date.today():%B %d, %Y}; {machine()}\n\n{table}\n"


if __name__ == "__main__":
    run_command(main)
