"""Between COCO, VOC and YOLO and back: boxes, classes, pictures; what is lost is said, broken files are told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hotcoco
import pytest
from PIL import Image

from detkit.doctor import examine_quickly
from detkit.formats import find_sources, read_source
from tests import coco_files
from tests.conftest import Outcome
from tests.planted_faults import SmallSet

Boxes = dict[str, list[tuple[str, tuple[float, ...]]]]


def boxes(root: Path, crowd: bool = True) -> dict[str, Boxes]:
    """By split and file name: class and box, in order."""
    found: dict[str, Boxes] = {}
    for source in find_sources(root):
        content = read_source(source).content
        names = {row["id"]: row["name"] for row in content["categories"]}
        files = {row["id"]: row["file_name"] for row in content["images"]}
        rows: Boxes = {name: [] for name in files.values()}
        for row in content["annotations"]:
            if crowd or not row["iscrowd"]:
                box = tuple(round(float(value), 3) for value in row["bbox"])
                rows[files[row["image_id"]]].append((names[row["category_id"]], box))
        found[source.name] = rows
    return found


@pytest.fixture(scope="module")
def small(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SmallSet(real_data / "roadsigns", tmp_path_factory.mktemp("convert") / "coco").write()


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo"])
def test_there_and_back_again(kind: str, small: Path, command: Callable[..., Outcome], tmp_path: Path) -> None:
    there, back = tmp_path / kind, tmp_path / "back"
    assert command("convert", small, "--to", kind, "--output", there).status == 0
    assert command("convert", there, "--to", "coco", "--output", back, "--pictures", "link").status == 0
    assert boxes(there) == boxes(back) == boxes(small)
    splits = [read_source(source) for source in find_sources(back)]
    assert [split.source.name for split in splits] == ["train", "val"]
    findings, _ = examine_quickly(splits)
    assert not findings.count("error")
    assert [row["name"] for row in splits[0].content["categories"]] == [
        "trafficlight",
        "stop",
        "speedlimit",
        "crosswalk",
    ]


def test_crowd_attributes_fractions_and_odd_names(command: Callable[..., Outcome], tmp_path: Path) -> None:
    content = coco_files.content()
    content["categories"][0]["name"] = "cat & <dog>"
    content["annotations"][0] |= {"truncated": 1, "pose": "Left", "bbox": [10.25, 20.5, 30.125, 40]}
    content["annotations"][0]["segmentation"] = [[10, 20, 30, 20, 30, 50]]
    del content["annotations"][2]  # it overhangs
    file, images = coco_files.write(tmp_path, content)
    done = command("convert", file, "--images", images, "--to", "voc", "--output", tmp_path / "voc")
    assert "1 polygons or masks" in done.out and "2 areas" in done.out
    (voc,) = [read_source(source).content for source in find_sources(tmp_path / "voc")]
    rows = {tuple(row["bbox"]): row for row in voc["annotations"]}
    assert rows[10.25, 20.5, 30.125, 40]["truncated"] == 1 and rows[10.25, 20.5, 30.125, 40]["pose"] == "Left"
    assert rows[50, 10, 25, 30]["iscrowd"] == 1
    assert [row["name"] for row in voc["categories"]] == ["dog", "cat & <dog>"]
    done = command("convert", file, "--images", images, "--to", "yolo", "--output", tmp_path / "yolo")
    assert "1 crowd regions, left out" in done.out
    assert boxes(tmp_path / "yolo")["train"]["c.png"] == [("dog", (0, 0, 100, 80))]
    labels = sorted(path.relative_to(tmp_path / "yolo/labels") for path in (tmp_path / "yolo/labels").rglob("*.txt"))
    assert [path.name for path in labels] == ["a.txt", "b.txt", "c.txt"]


def test_splits_with_a_year_are_train_and_val_elsewhere(
    real_data: Path, command: Callable[..., Outcome], tmp_path: Path
) -> None:
    for kind in ("voc", "yolo"):
        arguments = (real_data / "coco-mini", "--to", kind, "--output", tmp_path / kind, "--pictures", "link")
        assert command("convert", *arguments).status == 0
        found = boxes(tmp_path / kind)
        assert {name: len(rows) for name, rows in found.items()} == {"train": 57, "val": 66}
    voc, original = boxes(tmp_path / "voc"), boxes(real_data / "coco-mini")
    assert voc == {"train": original["train2017"], "val": original["val2017"]}


def write_voc(root: Path, *corners: tuple[float, ...], text: str = "") -> Path:
    (root / "Annotations").mkdir(parents=True)
    (root / "JPEGImages").mkdir()
    Image.new("RGB", (100, 80)).save(root / "JPEGImages/a.jpg")
    objects = "".join(
        "<object><name>dog</name><bndbox>"
        + "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        + "</bndbox></object>"
        for box in corners
    )
    size = "<size><width>100</width><height>80</height><depth>3</depth></size>"
    whole = f"<annotation><filename>a.jpg</filename>{size}{objects}</annotation>"
    (root / "Annotations/a.xml").write_text(text or whole)
    return root


def test_voc_counts_from_one_as_hotcoco_reads_it(tmp_path: Path) -> None:
    root = write_voc(tmp_path, (1, 1, 100, 80), (10, 20, 30, 40))
    (source,) = find_sources(root)
    ours, theirs = read_source(source).content, hotcoco.COCO.from_voc(str(root)).dataset
    assert [row["bbox"] for row in ours["annotations"]] == [[0, 0, 100, 80], [9, 19, 21, 21]]
    assert [row["bbox"] for row in theirs["annotations"]] == [row["bbox"] for row in ours["annotations"]]
    assert ours["images"] == [{"id": 1, "file_name": "a.jpg", "height": 80, "width": 100}] == theirs["images"]


def test_voc_that_counts_from_zero(tmp_path: Path) -> None:
    (source,) = find_sources(write_voc(tmp_path, (0, 5, 100, 80), (10, 20, 30, 40)))
    assert [row["bbox"] for row in read_source(source).content["annotations"]] == [[0, 5, 100, 75], [10, 20, 20, 20]]


@pytest.mark.parametrize(
    "text",
    [
        "<annotation><broken",
        "<html/>",
        "<?xml version='1.0' encoding='klingon'?><annotation/>",
        '<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>',
    ],
)
def test_broken_xml_is_a_finding(text: str, tmp_path: Path) -> None:
    (source,) = find_sources(write_voc(tmp_path, text=text))
    findings, _ = examine_quickly([read_source(source)])
    assert [place.file.name for place in findings.of("unreadable-annotations")] == ["a.xml"]


def test_a_voc_object_without_numbers_is_a_finding(tmp_path: Path) -> None:
    root = write_voc(tmp_path, ("x", 1, 5, 5), ("nan", 1, 5, 5), (5, 5, 20, 20))  # type: ignore[arg-type]
    findings, (table,) = examine_quickly([read_source(source) for source in find_sources(root)])
    assert len(findings.of("malformed-box")) == len(findings.of("nonfinite-box")) == 1
    assert table.usable.tolist() == [False, False, True]


def test_voc_findings_name_the_xml_file(tmp_path: Path) -> None:
    root = write_voc(tmp_path, (5, 5, 160, 40))
    findings, _ = examine_quickly([read_source(source) for source in find_sources(root)])
    (place,) = findings.of("overhanging-box")
    assert place.file == root / "Annotations/a.xml" and not findings.of("unstated-size")
    assert place.text().startswith("train: a.xml image 1 (a.jpg) annotation 1: bbox")


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>"])
def test_voc_without_a_size_is_a_note_and_takes_the_pictures(size: str, tmp_path: Path) -> None:
    box = "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>20</xmax><ymax>20</ymax></bndbox>"
    root = write_voc(tmp_path, text=f"<annotation>{size}<object><name>dog</name>{box}</object></annotation>")
    splits = [read_source(source) for source in find_sources(root)]
    findings, (table,) = examine_quickly(splits)
    assert findings.of("unstated-size")[0].text() == "train: a.xml image 1 (a.jpg): 100 x 80"
    assert findings.count("error") == 0 and table.usable.tolist() == [True]
    for name, code in (("broken", "unreadable-picture"), ("absent", "missing-picture")):
        (root / f"Annotations/{name}.xml").write_text("<annotation/>")
        (root / "JPEGImages/broken.jpg").write_text("no picture")
        findings, _ = examine_quickly([read_source(source) for source in find_sources(root)])
        assert [place.file.stem for place in findings.of(code)] == [name]
    assert not findings.of("unlisted-picture") and not findings.of("malformed-image")


def write_yolo(root: Path, lines: str, names: Any = "[cat, dog]", train: str = "images/train") -> Path:
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True)
    Image.new("RGB", (200, 100)).save(root / "images/train/a.jpg")
    (root / "labels/train/a.txt").write_text(lines)
    (root / "data.yaml").write_text(f"train: {train}\nval: images/val\nnames: {names}\n")
    return root


@pytest.mark.parametrize("train", ["images/train", "../images/train", "train"])
def test_yolo_boxes_and_polygons(train: str, tmp_path: Path) -> None:
    (source,) = find_sources(write_yolo(tmp_path, "1 0.5 0.5 0.2 0.4\n0 0.1 0.1 0.3 0.1 0.3 0.6\n", train=train))
    content = read_source(source).content
    assert [row["bbox"] for row in content["annotations"]] == [[80, 30, 40, 40], [20, 10, 40, 50]]
    assert [row["category_id"] for row in content["annotations"]] == [2, 1]
    assert content["annotations"][1]["segmentation"] == [[20, 10, 60, 10, 60, 60]]
    assert content["images"] == [{"id": 1, "file_name": "a.jpg", "height": 100, "width": 200}]


def test_broken_yolo_lines_are_findings(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, "0 0.5 0.5\nx 1 1 1 1\n\n7 0.5 0.5 0.1 0.1\n0 nan 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\n")
    (root / "labels/train/b.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    findings, (table,) = examine_quickly([read_source(source) for source in find_sources(root)])
    texts = [place.text() for place in findings.of("unreadable-annotations")]
    assert len(texts) == 3 and "a.txt line 1:" in texts[0] and "a.txt line 2:" in texts[1] and "b.txt" in texts[2]
    (unknown,), (nonfinite,) = findings.of("unknown-category"), findings.of("nonfinite-box")
    assert unknown.text() == "train: a.txt line 4 image 1 (a.jpg) annotation 1: class 7"
    assert (nonfinite.file, nonfinite.line) == (root / "labels/train/a.txt", 5)
    assert table.usable.sum() == 1


def test_yolo_labels_with_a_byte_order_mark(tmp_path: Path) -> None:
    (source,) = find_sources(write_yolo(tmp_path, "\ufeff0 0.5 0.5 0.1 0.1\n"))
    split = read_source(source)
    assert len(split.content["annotations"]) == 1 and not split.faults


@pytest.mark.timeout(20)
@pytest.mark.parametrize("names", ["cat", "[[cat], dog]", "{'0': cat}", "{-1: cat}", "{99999999: cat}", "bomb"])
def test_yolo_names_that_are_none_are_a_finding(names: str, tmp_path: Path) -> None:
    root = write_yolo(tmp_path, "0 0.5 0.5 0.1 0.1\n", names=names)
    if names == "bomb":  # each list holds the one before nine times: 9 ** 9 words in half a kilobyte
        lists = [f"l{k}: &l{k} [{', '.join([f'*l{k - 1}' if k else 'x'] * 9)}]" for k in range(9)]
        (root / "data.yaml").write_text("\n".join([*lists, "train: images/train", "names: *l8"]))
    findings, _ = examine_quickly([read_source(source) for source in find_sources(root)])
    assert findings.of("unreadable-annotations")[0].detail.startswith("expected `names`")


def test_names_too_long_for_a_file_are_findings(tmp_path: Path) -> None:
    name = "a" * 3000
    findings, _ = examine_quickly([read_source(s) for s in find_sources(write_voc(tmp_path, text="<annotation/>"))])
    assert not findings.of("missing-picture")
    (tmp_path / "Annotations/b.xml").write_text(f"<annotation><filename>{name}.jpg</filename></annotation>")
    findings, _ = examine_quickly([read_source(source) for source in find_sources(tmp_path)])
    assert [place.file.name for place in findings.of("missing-picture")] == ["b.xml"]


def test_a_yolo_split_whose_folder_is_missing_is_named(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, "0 0.5 0.5 0.1 0.1\n", train="nowhere")
    with pytest.raises(ValueError, match=r"data\.yaml: train names 'nowhere'"):
        find_sources(root)


def test_broken_yaml_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: [")
    with pytest.raises(ValueError, match=r"data\.yaml is broken YAML"):
        find_sources(tmp_path)


def test_nothing_is_written_over_and_errors_are_refused(
    small: Path, command: Callable[..., Outcome], tmp_path: Path
) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    assert "not overwritten" in command("convert", small, "--to", "voc", "--output", taken).err
    assert not list(taken.iterdir())
    assert command("convert", small, "--to", "csv", "--output", tmp_path / "x").status == 2
    content = coco_files.content()
    content["annotations"][0]["image_id"] = 99
    file, images = coco_files.write(tmp_path, content)
    done = command("convert", file, "--images", images, "--to", "yolo", "--output", tmp_path / "y")
    assert done.status == 2 and "1 unknown-image" in done.err and not (tmp_path / "y").exists()


def test_pictures_whose_names_clash_are_refused(command: Callable[..., Outcome], tmp_path: Path) -> None:
    content = coco_files.content()
    content["images"].append({"id": 40, "file_name": "a.jpg", "height": 80, "width": 100})
    file, images = coco_files.write(tmp_path, content)
    Image.new("RGB", (100, 80)).save(images / "a.jpg")
    done = command("convert", file, "--images", images, "--to", "voc", "--output", tmp_path / "v")
    assert done.status == 2 and "a.png and a.jpg" in done.err and not (tmp_path / "v").exists()


def test_coco_to_coco_keeps_every_key(command: Callable[..., Outcome], tmp_path: Path) -> None:
    content = coco_files.content() | {"licenses": [{"id": 1}]}
    content["annotations"][0]["segmentation"] = [[1, 2, 3, 4, 5, 6]]
    file, images = coco_files.write(tmp_path, content)
    done = command("convert", file, "--images", images, "--to", "coco", "--output", tmp_path / "c")
    assert "nothing lost" in done.out
    assert json.loads((tmp_path / "c/annotations/instances_set.json").read_text()) == content
