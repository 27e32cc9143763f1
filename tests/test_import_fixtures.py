"""What detectron2 and mmdetection detected themselves, and what their imported weights detect here."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detkit.engine.checkpoint import save_checkpoint
from detkit.importing import import_weights
from detkit.predict import Detector
from tests.foreign_files import differences, fixture_weights


@pytest.fixture(scope="module")
def parity() -> Path:
    """The folder of fixtures, beside the real data."""
    data = os.environ.get("DETKIT_DATA")
    folder = Path(data or "").parent / "parity"
    if not data or not folder.is_dir():
        pytest.skip("needs the fixtures: DETKIT_DATA names a folder beside which `parity` lies")
    return folder


def as_tensors(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in state.items()}


def detector_of(file: Path, source: str) -> Detector:
    result = import_weights(file, source)
    assert len(result.mapped) == 295 and not result.unused and not result.missing
    save_checkpoint(file.with_name("ours.pth"), result.content)
    return Detector.load(file.with_name("ours.pth"), precision="float32")


def missed(detector: Detector, fixture: dict[str, Any], pictures: Path) -> list[int]:
    """For each picture how many detections are not found again; the others agree in label, box and score."""
    counts = []
    for name, expected in fixture["detections"].items():
        (found,) = detector([pictures / name])
        assert len(found["boxes"]) >= len(expected["boxes"]) == 100
        assert len(found["boxes"]) == 100 or detector.config.model.max_detections > 100
        boxes, scores = torch.tensor(expected["boxes"]), torch.tensor(expected["scores"])
        count, pixels, score = differences(found, boxes, torch.tensor(expected["labels"]), scores)
        print(f"{name}: {count} of 100 not among {len(found['boxes'])}; others within {pixels:.5f} px and {score:.2e}")
        assert pixels <= 0.1 and score <= 3e-4
        counts.append(count)
    return counts


@pytest.mark.slow
def test_detectron2_finds_the_same(parity: Path, real_data: Path, tmp_path: Path) -> None:
    fixture, state = fixture_weights(parity, "detectron2")
    torch.save({"model": as_tensors(state), "iteration": 89999}, tmp_path / "model.pth")
    detector = detector_of(tmp_path / "model.pth", "detectron2")
    assert missed(detector, fixture, real_data / "coco-mini/val2017") == [0, 0, 0]


# Every box, before NMS: 1,200 anchors a level, as up to 137 share the score at which the best 1,000 end.
EVERYTHING = (
    *("model.rpn.pre_nms_test=1200", "model.rpn.post_nms_test=10000", "model.rpn.nms_iou=1.0"),
    *("model.nms_iou=1.0", "model.max_detections=1000000"),
)


@pytest.mark.slow
def test_mmdetection_finds_the_same(parity: Path, real_data: Path, tmp_path: Path) -> None:
    fixture, state = fixture_weights(parity, "mmdet")
    torch.save({"meta": {"epoch": 12, "time": "now"}, "state_dict": as_tensors(state)}, tmp_path / "model.pth")
    detector = detector_of(tmp_path / "model.pth", "mmdet")
    pictures = real_data / "coco-mini/val2017"
    candidates = Detector.load(tmp_path / "ours.pth", precision="float32", overrides=EVERYTHING)
    assert missed(candidates, fixture, pictures) == [0, 0, 0]
    # Under these weights sigmoid leaves few scores: in the second picture 18 for the best 1,000 anchors of the finest
    # level. Which of equals NMS keeps is left to a sort that is not stable, and rounding moves anchors between equals.
    # The limits are what differs when equals are put in random order; the same net in another memory layout differs
    # from itself in up to 5.
    counts = missed(detector, fixture, pictures)
    assert all(count <= limit for count, limit in zip(counts, (5, 9, 4), strict=True)), counts


def test_a_pickle_of_arrays_gives_the_same_weights(parity: Path, tmp_path: Path) -> None:
    _, state = fixture_weights(parity, "detectron2")
    torch.save({"model": as_tensors(state)}, tmp_path / "model.pth")
    with open(tmp_path / "model.pkl", "wb") as file:
        pickle.dump({"model": state, "__author__": "Detectron2 Model Zoo", "matching_heuristics": True}, file)
    one = import_weights(tmp_path / "model.pth", "detectron2").content
    two = import_weights(tmp_path / "model.pkl", "detectron2").content
    assert one["config"] == two["config"] and one["config"]["model"]["backbone"]["stride_in_1x1"]
    assert all(torch.equal(one["model"][name], value) for name, value in two["model"].items())
    assert len(one["classes"]) == 80 and one["category_ids"][-1] == 90
    # blue, green, red there; red, green, blue here
    stem = state["backbone.bottom_up.stem.conv1.weight"]
    assert np.array_equal(one["model"]["backbone.conv1.weight"].numpy(), stem[:, ::-1])


def test_mmdetections_meta_names_the_classes_and_the_style(parity: Path, tmp_path: Path) -> None:
    _, state = fixture_weights(parity, "mmdet")
    names = [f"thing {number}" for number in range(80)]
    meta = {"dataset_meta": {"classes": tuple(names)}, "cfg": "backbone=dict(type='ResNet', style='caffe')"}
    torch.save({"meta": meta, "state_dict": as_tensors(state)}, tmp_path / "caffe.pth")
    content = import_weights(tmp_path / "caffe.pth", "mmdet").content
    assert content["classes"] == names
    assert content["config"]["model"]["backbone"]["stride_in_1x1"]
    assert content["config"]["model"]["rpn"]["sigmoid"] == "first"
    stem = state["backbone.conv1.weight"]
    assert np.array_equal(content["model"]["backbone.conv1.weight"].numpy(), stem[:, ::-1])
