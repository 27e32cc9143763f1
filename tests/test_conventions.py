"""What a checkpoint says of its weights is held against the run that starts from them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.build import build_backbone, build_detector
from detkit.config import Config
from detkit.weights import LoadReport
from tests.tiny_detector import SMALL


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, []),
        ({"backbone.norm_eps": 1e-5}, []),  # the net's own, said aloud
        ({"backbone.norm_eps": 1e-3}, ["norm_eps=0.001, here it is 1e-05"]),
        ({"backbone.stride_in_1x1": False}, []),
        ({"pixel_std": (1.0, 1.0, 1.0)}, ["pixel_std=[1.0, 1.0, 1.0]"]),
        ({"backbone.stride_in_1x1": True, "pixel_mean": (0.0, 0.0, 0.0)}, ["pixel_mean=", "stride_in_1x1=True"]),
    ],
)
def test_other_conventions_are_named(changes: dict[str, Any], named: list[str], tmp_path: Path) -> None:
    config = Config().replace(SMALL | {"model.backbone.name": "resnet50"})
    theirs = config.replace({f"model.{key}": value for key, value in changes.items()}).model_dump(mode="json")
    state = {f"backbone.{name}": value for name, value in build_backbone("resnet50").state_dict().items()}
    torch.save({"model": state, "config": theirs}, tmp_path / "x.pth")
    reports: list[LoadReport] = []
    with torch.device("meta"):
        build_detector(
            config.replace({"model.backbone.weights": str(tmp_path / "x.pth")}).model, 2, on_loaded=reports.append
        )
    assert len(reports[0].warnings) == len(named)
    for line, part in zip(reports[0].warnings, named, strict=True):
        assert part in line and "x.pth was trained with model." in line
