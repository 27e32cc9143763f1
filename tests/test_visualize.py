"""Boxes on pictures: pixels by hand, pictures without objects, labels at the edges, the contact sheet."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detkit.types import Detection, Target
from detkit.visualize import Picture, class_colour, contact_sheet, draw_detections, text_colour, write_picture

CLASSES = ["cat", "dog"]


def grey(height: int = 200, width: int = 300) -> Picture:
    return np.full((height, width, 3), 128, dtype=np.uint8)


def found(*boxes: list[float], scores: list[float] | None = None, label: int = 0) -> Detection:
    n = len(boxes)
    return Detection(
        boxes=torch.tensor(boxes).reshape(n, 4),
        labels=torch.full((n,), label, dtype=torch.int64),
        scores=torch.tensor([0.9] * n if scores is None else scores),
    )


def target(*boxes: list[float]) -> Target:
    n = len(boxes)
    return Target(boxes=torch.tensor(boxes).reshape(n, 4), labels=torch.zeros(n, dtype=torch.int64))


def changed(before: Picture, after: Picture) -> np.ndarray:
    """Mask (H, W) of the pixels that differ."""
    return np.asarray((before != after).any(axis=2))


def test_box_edges_have_the_colour_of_the_class() -> None:
    picture = grey()
    drawn = draw_detections(picture, found([50, 60, 150, 160], label=1), CLASSES)
    colour = class_colour(1)
    for y, x in ((100, 50), (100, 149), (60, 100), (159, 100)):  # x2 and y2 are exclusive
        assert tuple(drawn[y, x]) == colour
    for y, x in ((100, 49), (100, 150), (160, 100), (110, 100)):
        assert tuple(drawn[y, x]) == (128, 128, 128)
    assert (picture == 128).all()


def test_a_label_lies_above_its_box_and_tells_class_and_score() -> None:
    with_score = changed(grey(), draw_detections(grey(), found([50, 60, 150, 160]), CLASSES))
    without = changed(grey(), draw_detections(grey(), target([50, 60, 150, 160]), CLASSES))
    assert with_score[:60].any() and without[:60].any()
    assert with_score[:60].sum() > without[:60].sum()  # 'cat 0.90' is longer than 'cat'
    assert not with_score[:, :50].any() and not with_score[160:].any()


@pytest.mark.parametrize("box", [[0, 0, 30, 20], [280, 0, 300, 20], [290, 190, 300, 200], [0, 0, 300, 200]])
def test_labels_stay_inside_the_picture(box: list[float]) -> None:
    """At an edge the label keeps the area that it has in the middle."""

    def label_pixels(box: list[float]) -> int:
        drawn = draw_detections(grey(), found(box), CLASSES)
        x1, y1, x2, y2 = (int(value) for value in box)
        edge = np.zeros((200, 300), dtype=bool)
        edge[y1:y2, x1:x2] = True
        edge[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2] = False
        return int((changed(grey(), drawn) & ~edge).sum())

    assert label_pixels(box) > 0.8 * label_pixels([100, 100, 200, 150])


def test_labels_do_not_cover_each_other() -> None:
    """Two equal boxes: twice the area of labels."""
    one = changed(grey(), draw_detections(grey(), target([50, 60, 150, 160]), CLASSES))
    two = changed(grey(), draw_detections(grey(), target([50, 60, 150, 160], [50, 60, 150, 160]), CLASSES))
    assert two[:60].sum() == 2 * one[:60].sum()


def test_nothing_to_draw_gives_an_unchanged_copy() -> None:
    picture = grey()
    for nothing in (found(), target(), found([5, 5, 50, 50], scores=[0.2])):
        drawn = draw_detections(picture, nothing, CLASSES, score_threshold=0.3)
        assert (drawn == picture).all()
        assert drawn is not picture and drawn.flags.writeable


def test_ignore_regions_are_dashed() -> None:
    crowd = Target(**target(), ignore=torch.tensor([[20.0, 20.0, 120.0, 100.0]]))
    line = draw_detections(grey(), crowd, CLASSES)[20, 20:120]
    light, dark = (line > 180).all(axis=1), (line < 60).all(axis=1)
    assert 0.3 < light.mean() < 0.7
    assert (light | dark).all()


@pytest.mark.parametrize(
    "box", [[-40, -40, 20, 20], [290, 190, 400, 400], [10.2, 10.2, 10.4, 10.4], [400, 400, 500, 500]]
)
def test_overhanging_and_tiny_boxes_are_drawn_without_error(box: list[float]) -> None:
    assert changed(grey(), draw_detections(grey(), found(box), CLASSES)).any()


@pytest.mark.parametrize("size", [(8, 8), (96, 128), (1, 500)])
def test_small_pictures_and_long_names(size: tuple[int, int]) -> None:
    drawn = draw_detections(grey(*size), found([0, 0, 8, 8]), ["a very long name of a class " * 3])
    assert drawn.shape == (*size, 3)


def test_names_beyond_ascii_have_their_own_shapes() -> None:
    drawn = [
        draw_detections(grey(), target([50, 60, 150, 160]), [name]) for name in ("знак", "όχημα", "Fußgänger", "????")
    ]
    for i, one in enumerate(drawn):
        for other in drawn[i + 1 :]:
            assert changed(one, other).any()


def test_colours_differ_and_their_text_reads() -> None:
    colours = [class_colour(label) for label in range(80)]
    assert len(set(colours)) == 80
    first = np.asarray(colours[:8], dtype=float)
    distances = np.linalg.norm(first[:, None] - first[None], axis=2) + np.eye(8) * 999
    assert distances.min() > 60
    assert text_colour((255, 255, 0)) == (0, 0, 0)
    assert text_colour((60, 0, 160)) == (255, 255, 255)


def test_contact_sheet_holds_pictures_of_any_size() -> None:
    sizes = [(96, 128), (480, 640), (400, 200), (10, 300)]
    rows = [(grey(*size), target([0, 0, 9, 9]), found([0, 0, 9, 9])) for size in sizes]
    sheet = contact_sheet(rows, CLASSES, names=[f"{'long name ' * 9}{i}.jpg" for i in range(4)])
    assert sheet.dtype == np.uint8 and sheet.ndim == 3
    assert 1200 < sheet.shape[1] < 2200
    one = contact_sheet(rows[:1], CLASSES)
    assert one.shape[1] < sheet.shape[1]
    assert one.shape[0] < 400
    assert contact_sheet([*rows, *rows], CLASSES).shape[0] > 1.8 * sheet.shape[0] - 60


def test_contact_sheet_shows_truth_left_and_predictions_right() -> None:
    sheet = contact_sheet([(grey(), target([20, 20, 90, 90]), found([20, 20, 90, 90], scores=[0.1]))], CLASSES)
    coloured = (sheet == class_colour(0)).all(axis=2)
    half = sheet.shape[1] // 2
    assert coloured[:, :half].any() and not coloured[:, half:].any()
    with pytest.raises(ValueError, match="at least one picture"):
        contact_sheet([], CLASSES)


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_written_pictures_come_back_in_rgb(tmp_path: Path, ending: str) -> None:
    picture = grey()
    picture[:, :150] = (200, 40, 10)
    path = tmp_path / "new folder" / f"bild ä{ending}"
    write_picture(path, picture)
    back = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert back is not None
    assert np.abs(back[..., ::-1].astype(int) - picture)[:, 20:130].max() <= (0 if ending == ".png" else 8)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_pictures_that_cannot_be_written(tmp_path: Path) -> None:
    for name in ("a.xyz", "a"):
        with pytest.raises(ValueError, match=r"use \.jpg or \.png"):
            write_picture(tmp_path / name, grey())
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write the picture"):
        write_picture(tmp_path / "file" / "a.png", grey())


def test_real_pictures_fill_a_sheet(real_data: Path) -> None:
    paths = sorted((real_data / "roadsigns" / "images").glob("*.jpg"))[:8]
    pictures = [np.asarray(cv2.imread(str(path)), dtype=np.uint8)[..., ::-1] for path in paths]
    rows = [(p, target([10, 10, 100, 90]), found([12, 12, 90, 80], [40, 50, 120, 160])) for p in pictures]
    sheet = contact_sheet(rows, CLASSES, names=[path.name for path in paths])
    assert sheet.std() > 20
