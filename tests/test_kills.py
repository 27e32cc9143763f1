"""Runs that SIGKILL ends at random moments, again and again, finish with the bits of one that was left alone."""

import random
from pathlib import Path

import pytest

from benchmarks.soak import survive, tiny_job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def rng() -> random.Random:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # pytest shows it when the test fails
    return random.Random(seed)


def test_eight_kills_of_a_run_that_saves_after_each_step(tmp_path: Path, rng: random.Random) -> None:
    assert survive(tiny_job, tmp_path, kills=8, longest=1.0, rng=rng).kills == 8
