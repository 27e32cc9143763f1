"""`detkit plot`: curves of runs and of bare files, and what wrong input gets."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from detkit.curves import Run, draw_curves, read_runs
from tests.conftest import Outcome

Command = Callable[..., Outcome]


def write_run(folder: Path, values: list[float | None]) -> Path:
    folder.mkdir(parents=True)
    rows = [{"step": step, "epoch": 1, "loss": value} for step, value in enumerate(values, start=1)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, {"step": 9, "AP": 0.5}]))
    return folder


def test_curves_leave_out_what_is_not_there() -> None:
    run = Run(
        "a", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}, {"step": 3, "AP": 0.5}, {"step": 4, "loss": 1}]
    )
    assert run.curve("loss") == ([1, 4], [2.0, 1])
    assert run.metrics() == ["loss", "AP"]


def test_runs_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, [1.0]) for name in ("a/run", "b/run", "a/other")]
    assert [run.name for run in read_runs(folders[1:])] == ["run", "other"]
    assert [run.name for run in read_runs(folders)] == ["a/run", "b/run", "a/other"]


def test_the_picture_has_the_colours_of_both_runs(tmp_path: Path) -> None:
    runs = read_runs([write_run(tmp_path / "a", [3.0, None, 1.0]), write_run(tmp_path / "b", [2.0, 2.0, 2.0])])
    assert draw_curves(tmp_path / "both.png", runs) == ["loss", "AP"]
    pixels = cv2.imread(str(tmp_path / "both.png"))[..., ::-1].reshape(-1, 3)
    for colour in ((31, 119, 180), (255, 127, 14)):  # matplotlib's first two
        assert int((pixels == np.array(colour)).all(axis=1).sum()) > 50
    with pytest.raises(ValueError, match="no run has 'AP99'; they have loss, AP"):
        draw_curves(tmp_path / "none.png", runs, ["AP99"])


def test_the_command_on_a_real_run(trained: Path, tmp_path: Path, command: Command) -> None:
    picture = tmp_path / "new" / "curves.png"
    done = command("plot", trained, "--output", picture)
    assert done.status == 0, done.err
    assert "loss_rpn_box" in done.out and "lr" in done.out and "AP50" in done.out
    height, width = cv2.imread(str(picture)).shape[:2]
    assert width > height > 300
    before = picture.read_bytes()
    again = command("plot", trained / "metrics.jsonl", "--output", picture)
    assert again.status == 2 and "not overwritten" in again.err
    assert picture.read_bytes() == before
    chosen = command("plot", trained, "--metric", "AP", "--metric", "val_loss", "--output", tmp_path / "two.png")
    assert chosen.status == 0 and "AP, val_loss of tiny" in chosen.out


def test_wrong_input_gets_one_clear_line(tmp_path: Path, command: Command) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.jsonl").write_text("")
    good = write_run(tmp_path / "good", [1.0])
    cases = {
        ("empty",): "metrics.jsonl",
        ("none",): "none",
        ("good", "empty.jsonl"): "empty.jsonl has no rows",
        ("good", "--metric", "AP51"): "AP51",
        ("good", "--output", "curves.jpg"): ".png",
    }
    for arguments, expected in cases.items():
        places = [tmp_path / name if (tmp_path / name).exists() or name == "none" else name for name in arguments]
        done = command("plot", *places, *(() if "--output" in arguments else ("--output", tmp_path / "out.png")))
        assert done.status == 2, arguments
        assert expected in done.err and done.err.startswith("error:") and "Traceback" not in done.err
    assert good.is_dir() and not (tmp_path / "out.png").exists()
