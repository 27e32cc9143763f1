"""Losses on the validation split: by hand, the same each time, and without a trace in the training's randomness."""

from pathlib import Path

import pytest
import torch

from detkit.engine.checkpoint import load_checkpoint
from detkit.evaluation.losses import LossMeans, joined_means
from detkit.evaluation.run import predict_all, predict_batches, predictor, predictor_with_losses
from detkit.types import Batch, Meta
from tests.conftest import metric_rows
from tests.tiny_detector import picture, target, tiny_detector

PARTS = ("loss_objectness", "loss_rpn_box", "loss_class", "loss_box")


def test_means_are_over_pictures_not_batches() -> None:
    means = LossMeans()
    means.add({"loss_class": torch.tensor(1.0), "loss_box": torch.tensor(0.5)}, pictures=3)
    means.add({"loss_class": torch.tensor(5.0), "loss_box": torch.tensor(0.5)}, pictures=1)
    # (3 * 1 + 1 * 5) / 4
    assert means.metrics() == {"val_loss": 2.5, "val_loss_class": 2.0, "val_loss_box": 0.5}
    assert LossMeans().metrics() == {}
    halves = [({"loss_class": 3.0}, 3), ({}, 0), ({"loss_class": 5.0}, 1)]  # sums of processes, one of them idle
    assert joined_means(halves).metrics() == {"val_loss": 2.0, "val_loss_class": 2.0}


def test_one_pass_gives_what_two_give() -> None:
    model = tiny_detector().eval()
    images = [picture(64, 80), picture(70, 60, seed=1)]
    targets = [target((5, 5, 30, 40), (20, 10, 60, 50)), target()]
    torch.manual_seed(5)
    detections, losses = model.predict_with_losses(images, targets)
    for one, other in zip(detections, model.predict(images), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("boxes", "labels", "scores"))
    torch.manual_seed(5)
    with torch.no_grad():
        forward = model(images, targets)
    assert {name: float(value) for name, value in forward.items()} == pytest.approx(
        {name: float(value) for name, value in losses.items()}, rel=1e-6
    )
    assert not any(value.requires_grad for value in losses.values())


def test_the_same_whatever_was_drawn_before_and_nothing_is_drawn_from_the_training() -> None:
    model = tiny_detector().eval()
    metas: list[Meta] = [{"image_id": i, "file_name": f"{i}.jpg", "height": 64, "width": 80} for i in range(3)]
    images, targets = [picture(64, 80, seed=i) for i in range(3)], [target((5, 5, 30, 40))] * 3
    batches = [Batch(images[:2], targets[:2], metas[:2]), Batch(images[2:], targets[2:], metas[2:])]
    device, found = torch.device("cpu"), []
    for seed, order in ((1, batches), (2, batches[::-1])):
        means = LossMeans()
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        detections, _ = predict_batches(predictor_with_losses(model, device, "float32", means), order)
        assert torch.equal(torch.get_rng_state(), before)
        found.append(means.metrics())
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    assert found[0].keys() == {"val_loss", *(f"val_{part}" for part in PARTS)}
    plain, _ = predict_all(predictor(model, device, "float32"), batches[::-1])
    assert all(torch.equal(a["scores"], b["scores"]) for a, b in zip(plain, detections, strict=True))


def test_rows_of_evaluations_have_them(trained: Path) -> None:
    evaluations = [row for row in metric_rows(trained) if "AP" in row]
    assert len(evaluations) == 2
    for row in evaluations:
        assert row["val_loss"] == pytest.approx(sum(row[f"val_{part}"] for part in PARTS))
        assert row["val_loss"] > 0
    best = load_checkpoint(trained / "best.pth")["evaluation"]
    assert best["val_loss"] in [row["val_loss"] for row in evaluations]
