"""What the model sees, as pictures: augmented training pictures with anchors and levels, heat maps of features."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from detkit.boxes import pairwise_iou
from detkit.browsing import View
from detkit.config import Config
from detkit.data.pictures import read_picture
from detkit.heatmaps import at_pixels, heat_maps
from detkit.predict import Detector
from detkit.types import Meta, Target
from tests.conftest import TINY, Outcome

META: Meta = {"image_id": 1, "file_name": "a.jpg", "height": 96, "width": 128}


def target(*boxes: list[float]) -> Target:
    return {"boxes": torch.tensor(boxes).view(-1, 4), "labels": torch.zeros(len(boxes), dtype=torch.int64)}


def test_matched_anchors_are_those_the_rpn_learns_from() -> None:
    view = View(Config(), ("a",), "anchors")
    objects = target([16, 16, 48, 48], [0, 0, 128, 96])
    anchors, owners = view.matched(objects, (96, 128))
    assert [16, 16, 48, 48] in anchors.tolist()  # 32 px at a cell of stride 4: the object itself
    iou = pairwise_iou(anchors, objects["boxes"])
    assert set(owners.tolist()) == {0, 1}
    assert bool((iou[torch.arange(len(anchors)), owners] == iou.amax(1)).all())
    assert len(view.matched(target(), (96, 128))[0]) == 0


def test_levels_have_the_colours_of_their_strides() -> None:
    image = torch.full((3, 96, 128), 200, dtype=torch.uint8)
    objects = target(
        [4, 4, 24, 24], [2, 2, 126, 94]
    )  # 20 px: stride 4; 107 px: stride 4 too, 224 is the canonical size
    same, _ = View(Config(), ("a",), "levels")((image, objects, META), cell=None)
    other_config = Config().replace({"model.roi_head.canonical_size": 40})
    different, _ = View(other_config, ("a",), "levels")((image, objects, META), cell=None)
    assert (same[2, 60] == same[24 - 1, 15]).all()
    assert not (different[2, 60] == different[24 - 1, 15]).all()


@pytest.mark.parametrize("options", [(), ("--anchors",), ("--levels",), ("--val",), ("--epoch", 3)])
def test_browse_writes_a_sheet(
    options: tuple[object, ...], shapes: Path, command: Callable[..., Outcome], tmp_path: Path
) -> None:
    sheet = tmp_path / "sheet.png"
    done = command("browse", *TINY, f"data.root={shapes}", "--output", sheet, "--count", 3, *options)
    assert done.status == 0, done.err
    assert read_picture(sheet).shape[1] > 3 * 300
    again = command("browse", *TINY, f"data.root={shapes}", "--output", sheet)
    assert again.status == 2 and "not overwritten" in again.err


def test_browse_writes_a_folder_in_the_size_that_the_model_sees(
    shapes: Path, command: Callable[..., Outcome], tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    assert command("browse", *TINY, f"data.root={shapes}", "--output", folder, "--count", 2).status == 0
    files = sorted(folder.iterdir())
    assert len(files) == 2 and all(min(read_picture(file).shape[:2]) == 64 for file in files)
    assert command("browse", *TINY, f"data.root={shapes}", "--anchors", "--levels").status == 2


def test_cells_lie_where_strides_say() -> None:
    cells = np.array([[0, 4, 8], [0, 4, 8]], np.float32)
    assert at_pixels(cells, 4, (8, 12))[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8]


def test_features_of_a_checkpoint(trained: Path, shapes: Path, command: Callable[..., Outcome], tmp_path: Path) -> None:
    picture, sheet = next(iter(sorted(shapes.rglob("*.png")))), tmp_path / "features.png"
    assert command("features", trained / "best.pth", picture, "--output", sheet, "--device", "cpu").status == 0
    assert read_picture(sheet).shape[1] > 2 * 400
    assert command("features", trained / "best.pth", picture, "--output", sheet).status == 2
    levels = list(heat_maps(Detector.load(trained / "best.pth", "cpu"), read_picture(picture)))
    assert [stride for stride, _, _ in levels] == [4, 8, 16, 32, 64]
    assert len({(strength.shape, sure.shape) for _, strength, sure in levels}) == 1
    assert all(0 < sure.min() <= sure.max() < 1 and strength.min() >= 0 for _, strength, sure in levels)
