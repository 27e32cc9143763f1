"""Large pages: asked for by default, left alone where the user has chosen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from detkit.large_pages import use_large_pages

PROGRAM = """
import torch
from detkit.large_pages import use_large_pages
use_large_pages()
tensor = torch.ones(64, 2**20)
print(sum(int(line.split()[1]) for line in open("/proc/self/smaps") if line.startswith("AnonHugePages")))
"""
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def test_a_choice_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    use_large_pages()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"


@pytest.mark.skipif(
    not SETTING.exists() or "[never]" in SETTING.read_text(), reason="this system has no transparent huge pages"
)
def test_large_tensors_lie_in_large_pages() -> None:
    plain = {key: value for key, value in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"}
    run = subprocess.run([sys.executable, "-c", PROGRAM], env=plain, capture_output=True, text=True, timeout=120)
    assert int(run.stdout) > 200 * 1024, run.stderr  # kB, of 256 MB
