"""Splits of one data set in files of their own: named by them, compared, repaired, converted."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from detkit.formats import find_splits
from tests.conftest import Outcome
from tests.planted_faults import SmallSet


def test_splits_in_files_of_their_own_are_compared(
    real_data: Path, command: Callable[..., Outcome], tmp_path: Path
) -> None:
    small = SmallSet(real_data / "roadsigns", tmp_path / "small")
    small.val["images"].append(small.train["images"][0] | {"id": 99_999})
    train, val = (tmp_path / f"mine_{name}.json" for name in ("train", "val"))
    train.write_text(json.dumps(small.train))
    val.write_text(json.dumps(small.val))
    fixed, images = tmp_path / "fixed.json", ("--images", small.images)
    done = command("doctor", val, train, *images, "--json", tmp_path / "all.json", "--fix", fixed)
    assert done.status == 1
    leaks = next(
        f for f in json.loads((tmp_path / "all.json").read_text())["findings"] if f["code"] == "leaked-picture"
    )
    assert [(place["split"], place["file"]) for place in leaks["places"]] == [("train", str(train))]
    same = command("doctor", train, val, *images, "--json", tmp_path / "x.json", "--html", tmp_path / "x.json")
    assert same.status == 2 and "different files" in same.err and not (tmp_path / "x.json").exists()
    again = command("doctor", tmp_path / "fixed_train.json", tmp_path / "fixed_val.json", *images, *images)
    assert again.status == 0 and "leaked-picture" not in again.out and "missing-split" not in again.out
    done = command("convert", train, val, *images, "--to", "yolo", "--output", tmp_path / "yolo", "--pictures", "link")
    assert done.status == 2 and "leaked-picture" in done.err
    copies = (tmp_path / "fixed_train.json", tmp_path / "fixed_val.json")
    done = command("convert", *copies, *images, "--to", "yolo", "--output", tmp_path / "yolo", "--pictures", "link")
    assert done.status == 0 and {path.name for path in (tmp_path / "yolo/images").iterdir()} == {"train", "val"}


def test_the_first_of_files_whose_names_say_nothing_is_for_training(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.json").write_text("{}")
    splits = find_splits([tmp_path / "b.json", tmp_path / "a.json"], [tmp_path, tmp_path])
    assert [(split.name, split.annotations.name) for split in splits] == [("train", "b.json"), ("a", "a.json")]
    with pytest.raises(ValueError, match="both of the split a"):
        find_splits([tmp_path / "a.json"] * 3, [tmp_path] * 3)
