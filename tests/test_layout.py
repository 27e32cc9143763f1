"""Data sets are found by looking; explicit paths win; what is missing or ambiguous is said."""

from pathlib import Path

import pytest

from detkit.data.layout import Split, find_layout


def make(root: Path, *names: str) -> Path:
    """Empty files, and folders for names that end in a slash."""
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root


LAYOUTS = {
    "coco": (
        ["annotations/instances_train2017.json", "annotations/instances_val2017.json", "train2017/", "val2017/"],
        ["annotations/instances_train2017.json", "train2017", "annotations/instances_val2017.json", "val2017"],
    ),
    "coco 2014, distractors": (
        [
            *("annotations/instances_train2014.json", "annotations/instances_val2014.json", "train2014/", "val2014/"),
            *("annotations/captions_train2014.json", "annotations/person_keypoints_val2014.json"),
        ],
        ["annotations/instances_train2014.json", "train2014", "annotations/instances_val2014.json", "val2014"],
    ),
    "coco with suffix": (
        [
            *("annotations/instances_train2017_small.json", "annotations/instances_val2017_small.json"),
            *("train2017/", "val2017/"),
        ],
        [
            "annotations/instances_train2017_small.json",
            "train2017",
            "annotations/instances_val2017_small.json",
            "val2017",
        ],
    ),
    "flat": (
        [*(f"annotations/instances_{split}.json" for split in ("train", "val", "test")), "images/"],
        ["annotations/instances_train.json", "images", "annotations/instances_val.json", "images"],
    ),
    "roboflow": (
        [f"{split}/_annotations.coco.json" for split in ("train", "valid", "test")],
        ["train/_annotations.coco.json", "train", "valid/_annotations.coco.json", "valid"],
    ),
    "roboflow, val": (
        ["train/_annotations.coco.json", "val/_annotations.coco.json"],
        ["train/_annotations.coco.json", "train", "val/_annotations.coco.json", "val"],
    ),
    "roboflow, only test": (
        ["train/_annotations.coco.json", "test/_annotations.coco.json"],
        ["train/_annotations.coco.json", "train", "test/_annotations.coco.json", "test"],
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_known_layout_is_found(tmp_path: Path, layout: str) -> None:
    names, expected = LAYOUTS[layout]
    make(tmp_path, *names)
    paths = [tmp_path / name for name in expected]
    assert find_layout(tmp_path) == (Split(paths[0], paths[1]), Split(paths[2], paths[3]))


def test_explicit_paths_win_and_may_be_absolute(tmp_path: Path) -> None:
    root = make(tmp_path / "set", *LAYOUTS["flat"][0], "mine/a.json")
    other = make(tmp_path / "other", "b.json", "pictures/")
    train, val = find_layout(root, train_annotations="mine/a.json", val_annotations=str(other / "b.json"))
    assert train == Split(root / "mine/a.json", root / "images")
    assert val == Split(other / "b.json", root / "images")
    _, val = find_layout(root, val_images=str(other / "pictures"))
    assert val == Split(root / "annotations/instances_val.json", other / "pictures")


def test_four_explicit_paths_need_no_root(tmp_path: Path) -> None:
    make(tmp_path, "a.json", "p/")
    paths = [str(tmp_path / "a.json"), str(tmp_path / "p")] * 2
    train, val = find_layout(tmp_path / "nowhere", *paths)
    assert train == val == Split(tmp_path / "a.json", tmp_path / "p")


KEYS = ("data.train_annotations", "data.train_images", "data.val_annotations", "data.val_images")


def refusal(root: Path, **paths: str) -> str:
    with pytest.raises(ValueError) as caught:
        find_layout(root, **paths)
    return str(caught.value)


def test_nothing_found_says_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    message = refusal(make(tmp_path, "labels.csv", "photos/"))
    for part in (
        str(tmp_path),
        "instances_{train,val}2017.json",
        "_annotations.coco.json",
        "labels.csv, photos/",
        *KEYS,
    ):
        assert part in message


def test_several_candidates_are_all_named(tmp_path: Path) -> None:
    names = ("annotations/instances_train2014.json", "annotations/instances_train2017.json", "train2017/")
    message = refusal(make(tmp_path, *names))
    assert all(part in message for part in (*names[:2], *KEYS))


def test_valid_and_val_are_ambiguous(tmp_path: Path) -> None:
    names = [f"{split}/_annotations.coco.json" for split in ("train", "valid", "val")]
    message = refusal(make(tmp_path, *names))
    assert names[1] in message and names[2] in message


def test_missing_parts_are_named(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere")
    root = make(tmp_path / "set", "annotations/instances_train2017.json")
    assert str(root / "train2017") in refusal(root)
    assert "data.train_annotations" in refusal(root, train_annotations="no.json")
    assert "data.train_images" in refusal(root, train_images="no")
    roboflow = make(tmp_path / "roboflow", "train/_annotations.coco.json")
    assert "no valid/" in refusal(roboflow)
