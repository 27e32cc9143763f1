"""What a terminal shows of a run."""

import io

import pytest
from rich.console import Console

from detkit.engine.log import ProgressReport

ROW = {"step": 3, "epoch": 1, "lr": 0.01, "loss_objectness": 0.2293, "loss_class": 0.7528, "loss": 1.352}


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_bar_stays_whole_whatever_the_width(columns: int) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=columns)
    with ProgressReport(24, console=console) as progress:
        progress.advance(3)
        progress.row(ROW)
        progress.say("a line of its own")
    shown = screen.getvalue()
    assert "3/24" in shown
    assert "0.7528" in shown
    assert "…" not in shown
    assert "a line of its own" in shown


def test_without_a_terminal_there_are_lines() -> None:
    screen = io.StringIO()
    with ProgressReport(24, console=Console(file=screen, width=80)) as progress:
        progress.advance(3)
        progress.row(ROW)
    line = screen.getvalue()
    assert line.startswith("step 3/24 epoch 1 lr 0.01 loss_objectness 0.2293 loss_class 0.7528 loss 1.352 ETA 0:")
    assert line.count("\n") == 1
