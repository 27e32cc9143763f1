"""Score thresholds: the best F1 by hand, in the checkpoint, and used by the demo."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detkit.engine.checkpoint import load_checkpoint, save_checkpoint
from detkit.evaluation.operating_point import OperatingPoint, cuts
from detkit.predict import Detector

Command = Callable[..., Any]


def test_the_best_cut_by_hand() -> None:
    # four objects; right, wrong, right | right at the same score as a wrong one, wrong
    scores = np.array([0.5, 0.9, 0.8, 0.6, 0.5, 0.2])
    correct = np.array([True, True, False, True, False, False])
    found = cuts(scores, correct, 4)
    np.testing.assert_array_equal(found.scores, [0.9, 0.8, 0.6, 0.5, 0.2])
    np.testing.assert_allclose(found.precision, [1, 1 / 2, 2 / 3, 3 / 5, 3 / 6])
    np.testing.assert_allclose(found.recall, [1 / 4, 1 / 4, 2 / 4, 3 / 4, 3 / 4])
    np.testing.assert_allclose(found.F1, [2 / 5, 2 / 6, 4 / 7, 6 / 9, 6 / 10])
    assert found.best() == OperatingPoint(0.35, 6 / 9, 3 / 5, 3 / 4)  # halfway between 0.5 and 0.2


def test_cuts_of_nothing() -> None:
    nothing, none = np.zeros(0), np.zeros(0, bool)
    assert cuts(nothing, none, 3).best() is None
    assert cuts(np.array([0.7]), np.array([False]), 3).best() is None
    assert cuts(np.array([0.7]), np.array([False]), 0).best() is None  # a class without objects
    alone = cuts(np.array([0.7]), np.array([True]), 1).best()
    assert alone is not None and alone.score == 0.7  # nothing lies below


def test_the_demo_takes_the_thresholds_of_the_checkpoint(
    trained: Path, shapes: Path, tmp_path: Path, command: Command
) -> None:
    picture = shapes / "val2017/000001.png"
    refused = command("demo", trained / "last.pth", picture, "--output", tmp_path / "no", "--score", "auto")
    assert refused.status == 2 and "--write-thresholds" in refused.err
    for wrong in ("high", "1.5", "nan"):
        done = command("demo", trained / "last.pth", picture, "--output", tmp_path / "no", "--score", wrong)
        assert done.status == 2 and "--score" in done.err
    state = load_checkpoint(trained / "last.pth")
    assert Detector.load(trained / "last.pth").score_thresholds is None
    thresholds = [0.0, *[1.0] * (len(state["classes"]) - 1)]
    save_checkpoint(tmp_path / "cut.pth", state | {"score_thresholds": thresholds})
    arguments = (picture, "--output", tmp_path / "out", "--score", "auto", "model.score_threshold=0.001")
    assert command("demo", tmp_path / "cut.pth", *arguments).status == 0
    rows = json.loads((tmp_path / "out/predictions.json").read_text())
    assert {row["category_id"] for row in rows} == {state["category_ids"][0]}


@pytest.mark.parametrize("wrong", [[0.5], ["high"] * 6, 0.5, [2.0] * 6])
def test_thresholds_that_are_none(trained: Path, tmp_path: Path, wrong: Any) -> None:
    state = load_checkpoint(trained / "last.pth")
    assert len(state["classes"]) == 6
    with pytest.raises(ValueError, match="score_thresholds"):
        save_checkpoint(tmp_path / "wrong.pth", state | {"score_thresholds": wrong})
