import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from detkit.data.coco import load_coco
from detkit.data.layout import find_layout
from detkit.data.shapes import CLASSES, draw_picture, draw_shapes, ensure_shapes


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "shapes"
    draw_shapes(root, train=60, val=10)
    return root


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_it_is_a_coco_data_set_of_small_pictures(shapes: Path) -> None:
    train, val = find_layout(shapes)
    index = load_coco(train.annotations, train.images)
    assert index.classes == CLASSES and len(index) == 60 and index.dropped == 0 and index.clipped == 0
    assert len(load_coco(val.annotations, val.images, classes=index.classes)) == 10
    sizes = {tuple(sorted(size)) for size in zip(index.heights.tolist(), index.widths.tolist(), strict=True)}
    assert sizes <= {(96, 128), (108, 144), (120, 160), (144, 192)}
    assert (index.heights > index.widths).any() and (index.heights < index.widths).any()


def test_objects_are_of_all_classes_and_sizes_and_some_pictures_have_none(shapes: Path) -> None:
    train, _ = find_layout(shapes)
    index = load_coco(train.annotations, train.images)
    assert set(index.labels.tolist()) == set(range(6))
    sides = (index.boxes[:, 2:] - index.boxes[:, :2]).max(axis=1)
    assert sides.min() < 12 and sides.max() > 90
    counts = np.diff(index.offsets)
    assert 1 <= (counts == 0).sum() <= 12 and counts.max() == 7


def test_a_picture_depends_on_its_seed_alone_and_drawing_reports_progress(shapes: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    draw_shapes(tmp_path / "few", train=3, val=1, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    few, many = digests(tmp_path / "few"), digests(shapes)
    pictures = [name for name in few if name.endswith(".png")]
    assert len(pictures) == 4 and all(few[name] == many[name] for name in pictures)
    draw_shapes(tmp_path / "other", train=3, val=1, seed=1)
    assert all(digests(tmp_path / "other")[name] != few[name] for name in pictures)


def test_boxes_and_areas_are_those_of_what_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    """With flat white objects on black, without shading and noise, the picture itself says where they are."""
    from detkit.data import shapes as module

    monkeypatch.setattr(module, "draw_background", lambda rng, h, w: np.zeros((h, w, 3), np.float32))
    monkeypatch.setattr(module, "draw_fill", lambda rng, c, h, w: np.full((h, w, 3), 255, np.float32))
    monkeypatch.setattr(module, "_draw_sizes", lambda rng, short_side: [float(rng.uniform(8, 90))])
    checked = 0
    for seed in range(40):
        picture, rows = draw_picture(np.random.default_rng(seed))
        light = picture.mean(axis=2)
        if not rows:
            continue
        x, y, w, h = rows[0]["bbox"]
        # Sensor noise stays below 30; an edge pixel may be covered by less than a sixth.
        ys, xs = np.nonzero(light > 45)
        assert abs(xs.min() - x) < 1.5 and abs(xs.max() + 1 - x - w) < 1.5
        assert abs(ys.min() - y) < 1.5 and abs(ys.max() + 1 - y - h) < 1.5
        assert rows[0]["area"] == pytest.approx((light > 127).sum(), rel=0.12, abs=4)
        checked += 1
    assert checked > 30


def test_enough_of_each_object_is_visible(shapes: Path) -> None:
    rows = json.loads((shapes / "annotations/instances_train2017.json").read_text())["annotations"]
    assert all(min(row["bbox"][2:]) >= 3 and row["area"] > 10 for row in rows)
    squares = [row for row in rows if row["category_id"] == 2]
    assert all(row["area"] <= row["bbox"][2] * row["bbox"][3] for row in squares)


def test_two_at_once_draw_one_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detkit.data.shapes.draw_shapes", lambda root, **_: draw_shapes(root, train=4, val=2))
    root = tmp_path / "data" / "shapes"
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(ensure_shapes, [root] * 3)) == [root] * 3
    assert [path.name for path in root.parent.iterdir()] == ["shapes"]  # nothing temporary is left
    before = digests(root)
    assert len(before) == 8 and ensure_shapes(root) == root and digests(root) == before


@pytest.mark.parametrize("missing", ["annotations/instances_val2017.json", "annotations/instances_train2017.json"])
def test_an_incomplete_folder_is_refused_and_left_alone(tmp_path: Path, missing: str) -> None:
    draw_shapes(tmp_path / "shapes", train=1, val=1)
    (tmp_path / "shapes" / missing).unlink()
    before = digests(tmp_path)
    with pytest.raises(ValueError, match=r"no complete Shapes.*instances_"):
        ensure_shapes(tmp_path / "shapes")
    assert digests(tmp_path) == before


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot draw the Shapes data set into"):
        ensure_shapes(tmp_path / "file" / "shapes")


def test_objects_stand_out_from_what_they_cover(shapes: Path) -> None:
    rows = json.loads((shapes / "annotations/instances_train2017.json").read_text())["annotations"]
    lonely = [row for row in rows if sum(other["image_id"] == row["image_id"] for other in rows) == 1]
    assert lonely
    for row in lonely:
        picture = cv2.imread(str(shapes / "train2017" / f"{row['image_id']:06d}.png")).astype(np.float32)
        x, y, w, h = (round(value) for value in row["bbox"])
        inside = np.zeros(picture.shape[:2], bool)
        inside[y : y + h, x : x + w] = True
        background = np.median(picture[~inside], axis=0)
        difference = np.linalg.norm(picture[inside] - background, axis=1)
        assert np.percentile(difference, 75) > 40
