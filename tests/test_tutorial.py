"""The tutorial: each of its commands as it stands, in order, in an empty folder."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def commands() -> list[str]:
    text = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    return [line for block in re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_newcomer_gets_from_nothing_to_a_report(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in commands():
        ended = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    for file in ("browse.png", "doctor.html", "curves.png", "report.html"):
        assert (tmp_path / file).stat().st_size > 5000, file
    assert "AP50" in json.loads((tmp_path / "first.json").read_text())["metrics"]
    assert len(list((tmp_path / "found").glob("*.png"))) == 100  # the validation split of Shapes


def test_every_kind_of_command_is_in_the_tutorial() -> None:
    assert {command.split()[1] for command in commands()} >= {"browse", "doctor", "train", "plot", "eval", "demo"}
