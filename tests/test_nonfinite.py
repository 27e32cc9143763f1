"""A loss that is not finite: written down, and skipped as often as asked, to the same bits through a resume."""

import json
import math
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detkit.engine.checkpoint import load_checkpoint
from detkit.engine.signals import Stopped
from detkit.types import Batch
from tests.tiny_run import TinyLoader, assert_same_run, build_trainer, rows

BAD = ((0, 3), (1, 0))  # (epoch, batch): in steps 2 and 4


class Poisoned(TinyLoader):
    """Some batches show a picture with a NaN, which reaches the loss and batch norm's running mean.

    `stop_at` (epoch, batch): a signal comes while that one is fetched.
    """

    def __init__(self, stop_at: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.stop_at = stop_at

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        for number, batch in enumerate(super().epoch(epoch, start), start=start):
            if (epoch, number) == self.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            if (epoch, number) in BAD:
                images = [image.float() for image in batch.images]
                images[1][0, 2, 2] = math.nan
                yield replace(batch, images=images)
            else:
                yield batch


def test_the_step_is_written_down(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"step 2: .*nonfinite_0000002\.json") as stopped:
        build_trainer(tmp_path, Poisoned()).run()
    assert "train.skip_nonfinite=1" in str(stopped.value)
    report = json.loads((tmp_path / "nonfinite_0000002.json").read_text())
    assert (report["step"], report["grad_norm"]) == (2, "nan")
    assert report["lr"]["rest, no decay"] == pytest.approx(0.05 * (0.001 + 1) / 2)  # in the middle of the warm-up
    good, bad = report["batches"]
    assert math.isfinite(good["losses"]["loss_mean"]) and bad["losses"]["loss_mean"] == "nan"
    names = [picture["file_name"] for picture in good["pictures"] + bad["pictures"]]
    assert names == ["20.jpg", "21.jpg", "30.jpg", "31.jpg"]
    picture = bad["pictures"][1]
    assert (picture["image_id"], picture["width"], picture["height"], picture["boxes"]) == (31, 6, 6, [])


def test_so_many_steps_are_skipped_as_asked(tmp_path: Path) -> None:
    result = build_trainer(tmp_path, Poisoned(), skip_nonfinite=2, log_every=1).run()
    assert result.step == 9
    counts = [row["skipped_steps"] for row in rows(tmp_path) if "lr" in row]
    assert counts == [0, 1, 1, 2, 2, 2, 2, 2, 2]
    skipped = next(row for row in rows(tmp_path) if row["step"] == 2)
    assert "loss" not in skipped and "lr" in skipped
    state = load_checkpoint(tmp_path / "last.pth")
    assert all(value.isfinite().all() for part in ("model", "ema") for value in state[part].values())
    assert state["training"]["skipped_steps"] == 2
    assert {path.name for path in tmp_path.glob("nonfinite*")} == {f"nonfinite_000000{step}.json" for step in (2, 4)}


def test_a_skipped_step_touches_nothing(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, Poisoned(), skip_nonfinite=1, steps=2)
    seen = []
    trainer.model.register_forward_pre_hook(
        lambda module, inputs: seen.append({name: value.clone() for name, value in module.state_dict().items()})
    )
    trainer.run()  # the forward passes see the weights before steps 1, 1, 2, 2; the poison is in the last
    after = trainer.model.state_dict()
    assert all(torch.equal(after[name], seen[2][name]) for name in after)
    assert not torch.equal(seen[1]["head.weight"], seen[2]["head.weight"])
    assert trainer.ema is not None and int(trainer.ema.n_averaged) == 1


def test_one_more_than_asked_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"step 4: .*1 such steps were skipped before"):
        build_trainer(tmp_path, Poisoned(), skip_nonfinite=1).run()
    build_trainer(tmp_path, Poisoned(), skip_nonfinite=2).run()  # resumes
    build_trainer(tmp_path / "whole", Poisoned(), skip_nonfinite=2).run()
    assert_same_run(tmp_path, tmp_path / "whole")


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_skipping_is_exact_through_a_resume(precision: str, tmp_path: Path) -> None:
    build_trainer(tmp_path / "whole", Poisoned(), skip_nonfinite=2, precision=precision).run()
    for number, place in enumerate([(0, 2), (0, 4), (1, 0), (1, 2), (2, 4)]):
        folder = tmp_path / str(number)
        with pytest.raises(Stopped):
            build_trainer(folder, Poisoned(place), skip_nonfinite=2, precision=precision).run()
        build_trainer(folder, Poisoned(), skip_nonfinite=2, precision=precision).run()
        assert_same_run(folder, tmp_path / "whole")
