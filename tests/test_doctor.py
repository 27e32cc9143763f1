"""The doctor on real pictures with planted faults, on clean ones, and its repairs."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hotcoco
import pytest
import torch

from detkit.boxes import pairwise_iou
from detkit.config import Config, load_config
from detkit.data.coco import load_coco
from detkit.doctor import Findings, examine, examine_quickly
from detkit.doctor.anchors import best_overlaps, suggested_sizes
from detkit.doctor.codes import CODES
from detkit.doctor.fix import repair
from detkit.doctor.page import render
from detkit.doctor.pictures import near_pairs
from detkit.doctor.table import Table
from detkit.formats import Split, find_sources, read_source
from detkit.models.anchors import AnchorGenerator
from tests import coco_files
from tests.conftest import Outcome
from tests.planted_faults import PLANTED, SmallSet, plant_all

NOT_PLANTED = {
    "unreadable-annotations",
    "empty-split",
    "missing-split",
    "xyxy-boxes",
    "fractional-boxes",
    "unstated-size",
}
ALWAYS = {"anchor-fit", "fpn-levels"}


def read(root: Path) -> list[Split]:
    return [read_source(source, whole=True) for source in find_sources(root)]


def codes(findings: Findings, grade: str = "") -> set[str]:
    return {finding.code.name for finding in findings.all() if finding.code.grade == grade or not grade}


@pytest.fixture(scope="module")
def planted(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Any]]]:
    root = tmp_path_factory.mktemp("doctor") / "planted"
    return root, plant_all(real_data / "roadsigns", root)


@pytest.fixture(scope="module")
def examined(planted: tuple[Path, Any]) -> tuple[Findings, list[Table]]:
    return examine(read(planted[0]), load_config("fpn_r50"))


@pytest.mark.parametrize("fault", PLANTED, ids=[fault.code for fault in PLANTED])
def test_a_planted_fault_is_found_with_its_grade(
    fault: Any, planted: tuple[Path, dict[str, list[Any]]], examined: tuple[Findings, list[Table]]
) -> None:
    places = examined[0].of(fault.code)
    assert CODES[fault.code].grade == fault.grade
    for mark in planted[1][fault.code]:
        if isinstance(mark, int):
            assert any(mark in (place.image_id, place.annotation_id) for place in places), mark
        else:
            assert any(mark in place.text() for place in places), mark


def test_every_code_is_planted() -> None:
    assert {fault.code for fault in PLANTED} | NOT_PLANTED | ALWAYS == set(CODES)


def test_the_clean_set_has_no_errors(real_data: Path, tmp_path: Path) -> None:
    small = SmallSet(real_data / "roadsigns", tmp_path / "small")
    findings, _ = examine(read(small.write()), load_config("fpn_r50"))
    assert not codes(findings, "error")
    few = {
        "rare-category",
        "category-only-in-train",
        "category-only-outside-train",
        "class-imbalance",
        "unused-category",
    }
    assert codes(findings) <= ALWAYS | few | {"leaked-near-duplicate"}  # road24 and road46 look alike


def test_the_documentation_lists_every_code_as_it_is() -> None:
    documented = (Path(__file__).parents[1] / "docs/doctor.md").read_text(encoding="utf-8")
    rows = [f"| `{c.name}` | {c.grade} | {c.meaning} | {c.advice} |" for c in CODES.values()]
    assert [line for line in documented.splitlines() if line.startswith("| `")] == rows


@pytest.mark.parametrize("name", ["roadsigns", "bccd", "coco-mini"])
def test_the_quick_form_finds_no_errors_in_real_sets(real_data: Path, name: str) -> None:
    findings, tables = examine_quickly(read(real_data / name))
    assert not codes(findings, "error")
    if name == "coco-mini":
        assert len(findings.of("crowd-regions")) == 14  # 6 and 8, SOURCES.md
        assert sum(len(table.names) for table in tables) == 57 + 66


def test_a_repaired_copy_has_no_errors_and_the_input_is_untouched(
    planted: tuple[Path, Any], examined: tuple[Findings, list[Table]], tmp_path: Path
) -> None:
    findings, (train, _) = examined
    before = json.dumps(train.split.content)
    content, changes = repair(train, findings)
    assert json.dumps(train.split.content) == before
    assert "3 images left out (unreadable-picture)" in changes
    copy = tmp_path / "instances_train.json"
    copy.write_text(json.dumps(content))
    again, _ = examine([read_source(source) for source in find_sources(copy, planted[0] / "images")])
    assert not codes(again, "error")
    assert not again.of("duplicate-box") and not again.of("overhanging-box") and not again.of("wrong-area")
    assert len(load_coco(copy, planted[0] / "images")) == len(content["images"])  # training takes it


def coco_set(root: Path, change: Callable[[dict[str, Any]], None]) -> list[Split]:
    content = coco_files.content()
    change(content)
    file, images = coco_files.write(root, content)
    return [read_source(source) for source in find_sources(file, images)]


@pytest.mark.parametrize("code", ["xyxy-boxes", "fractional-boxes"])
def test_boxes_in_another_format_are_one_error_and_repaired(code: str, tmp_path: Path) -> None:
    wanted = {1: [10, 20, 30, 40], 2: [40, 30, 60, 50], 4: [50, 10, 25, 30]}

    def other_format(content: dict[str, Any]) -> None:
        content["annotations"] = [row for row in content["annotations"] if row["id"] in wanted]
        for row in content["annotations"]:
            x, y, w, h = wanted[row["id"]]
            fractions = [x / 100, y / 80, w / 100, h / 80]
            row["bbox"] = [x, y, x + w, y + h] if code == "xyxy-boxes" else fractions

    findings, (table,) = examine_quickly(coco_set(tmp_path, other_format))
    assert codes(findings, "error") == {code}
    content, _ = repair(table, findings)
    for row in content["annotations"]:
        assert row["bbox"] == pytest.approx(wanted[row["id"]])


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"images": []}', '{"images": 1, "annotations": [], "categories": []}']
)
def test_a_broken_file_is_a_finding(text: str, tmp_path: Path) -> None:
    file, images = coco_files.write(tmp_path, text)
    findings, _ = examine([read_source(source) for source in find_sources(file, images)], Config())
    assert {"unreadable-annotations", "empty-split"} == codes(findings, "error")


@pytest.mark.parametrize(
    "junk",
    [None, 3, "x", [], {}, {"id": None}, {"id": 2**70}, {"id": True, "bbox": "x"}, {"id": []}, {"name": "\ud800"}],
)
def test_rows_of_any_kind_are_findings(junk: Any, tmp_path: Path) -> None:
    def add(content: dict[str, Any]) -> None:
        for rows in content.values():
            rows.append(junk)

    findings, (table,) = examine(coco_set(tmp_path, add), Config())
    assert codes(findings, "error") == {"malformed-image", "malformed-annotation", "malformed-category"}
    content, _ = repair(table, findings)
    assert len(content["annotations"]) == len(content["images"]) + 1 == 4


@pytest.mark.filterwarnings("error")
def test_numbers_at_the_end_of_their_range_are_findings_and_drawn(tmp_path: Path) -> None:
    def enlarge(content: dict[str, Any]) -> None:
        content["annotations"][0]["bbox"] = [1e308, 1e308, 1e308, 1e308]

    findings, tables = examine(coco_set(tmp_path, enlarge), Config())
    assert "outside-box" in codes(findings, "error")
    assert "outside-box" in render("huge", findings.all(), tables)
    assert len(repair(tables[0], findings)[0]["annotations"]) == 3


def test_rows_with_values_of_any_kind_are_repaired(tmp_path: Path) -> None:
    def spoil(content: dict[str, Any]) -> None:
        first, content["images"][0]["width"] = content["annotations"][0], 50  # the file has 100
        content["images"][0]["height"] = 40
        odd = (
            {"image_id": [], "category_id": {}},
            {"area": "x", "bbox": [-9, 1, 30, 30]},
            {"image_id": 30, "area": None},
        )
        masks = {"image_id": 30, "segmentation": {"counts": "x"}}, {"image_id": 30, "segmentation": [["a"], 3]}
        content["annotations"] += [first | {"id": 50 + k} | change for k, change in enumerate([*odd, *masks])]

    findings, (table,) = examine(coco_set(tmp_path, spoil), Config())
    assert codes(findings, "error") == {"unknown-image", "unknown-category", "size-mismatch"}
    content, _ = repair(table, findings)
    rows = {row["id"]: row for row in content["annotations"]}
    assert 50 not in rows and rows[51]["bbox"] == [0, 1, 21, 30] and rows[51]["area"] == 630
    assert rows[52]["bbox"] == [20, 40, 60, 80]


def test_it_reports_what_hotcocos_healthcheck_reports(planted: tuple[Path, Any], tmp_path: Path) -> None:
    ours = {
        "duplicate_image_id": ("duplicate-image-id",),
        "duplicate_ann_id": ("duplicate-annotation-id",),
        "orphan_image_id": ("unknown-image",),
        "orphan_category_id": ("unknown-category",),
        "degenerate_bbox": ("empty-box",),
        "bbox_out_of_bounds": ("overhanging-box", "outside-box", "maybe-xyxy"),
        "near_duplicate": ("duplicate-box",),
        "zero_instance_category": ("unused-category",),
    }
    content = coco_files.content()
    content["images"].append(content["images"][0] | {"file_name": "d.png"})
    first = content["annotations"][0]
    changes = [{}, {"image_id": 9}, {"category_id": 9}, {"bbox": [1, 1, 0, 5]}, {"bbox": [90, 70, 50, 9]}]
    content["annotations"] += [first | {"id": 10 + k} | change for k, change in enumerate(changes)]
    content["annotations"].append(first | {"bbox": [0, 0, 9, 9]})
    content["categories"].append({"id": 11, "name": "bird"})
    file, images = coco_files.write(tmp_path, content)
    report = hotcoco.COCO(str(file)).healthcheck()
    findings, _ = examine_quickly([read_source(source) for source in find_sources(file, images)])
    reported = {entry["code"] for entry in report["errors"] + report["warnings"]} - {"low_instance_category"}
    assert reported == set(ours)
    for code in reported:
        assert codes(findings) & set(ours[code]), code


def test_best_overlaps_are_those_of_all_anchors() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(50, 2, generator=generator) * 90
    boxes = torch.cat((corners, corners + 2 + torch.rand(50, 2, generator=generator) * 60), dim=1)
    strides, sizes, ratios = (4, 8, 16), (8.0, 24.0, 64.0), (0.5, 1.0, 2.0)
    shapes = torch.tensor([[100.0, 120.0]]).expand(50, 2)
    every = AnchorGenerator(strides, sizes, ratios)([(math.ceil(100 / s), math.ceil(120 / s)) for s in strides])
    expected = pairwise_iou(boxes, every).amax(1)
    torch.testing.assert_close(best_overlaps(boxes, shapes, strides, sizes, ratios), expected)


def test_suggested_sizes_are_those_of_the_boxes() -> None:
    sides = torch.tensor([10.0, 10, 40, 40, 160, 160])
    boxes = torch.stack((sides * 0, sides * 0, sides, sides), dim=1)
    assert suggested_sizes(boxes, 3) == (10, 40, 160)
    assert suggested_sizes(boxes[:2], 3) == (10, 20, 40)


def test_near_pairs_differ_in_few_bits() -> None:
    import numpy as np

    looks = np.array([0b0, 0b111, 0b1111, 0b11111111, 0], np.uint64)
    assert set(near_pairs(looks, 3)) == {(0, 1), (0, 4), (1, 2), (1, 4)}


def test_the_page_escapes_what_comes_from_the_data(tmp_path: Path) -> None:
    def attack(content: dict[str, Any]) -> None:
        content["categories"].append({"id": 11, "name": "<script>alert(1)</script>"})
        content["images"].append({"id": 5, "file_name": "<img src=x>.png", "height": 5, "width": 5})

    findings, tables = examine(coco_set(tmp_path, attack))
    page = render("<b>", findings.all(), tables)
    assert "<script" not in page and "<img src=x" not in page and "<b>" not in page.replace("<b>What to do:</b>", "")
    assert "&lt;script&gt;" in page and "&lt;img src=x&gt;" in page


def test_the_command(planted: tuple[Path, Any], command: Callable[..., Outcome], tmp_path: Path) -> None:
    root, report, page, copy = planted[0], tmp_path / "all.json", tmp_path / "page.html", tmp_path / "fixed.json"
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    done = command("doctor", root, "--json", report, "--html", page, "--fix", copy)
    assert done.status == 1
    assert "unreadable-picture" in done.out and "boxes clipped to their picture" in done.out
    found = {entry["code"]: entry for entry in json.loads(report.read_text())["findings"]}
    assert found["unreadable-picture"]["count"] == len(found["unreadable-picture"]["places"]) == 3
    assert page.read_text().count("data:image/jpeg;base64,") > 10 and "http:" not in page.read_text()
    assert {path.name for path in tmp_path.glob("*.json")} == {"all.json", "fixed_train.json", "fixed_val.json"}
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    inside = command("doctor", root, "--fix", root / "fixed.json")
    assert inside.status == 2 and "own folder" in inside.err and not list(root.glob("fixed*"))
    again = command("doctor", root, "--html", page)
    assert again.status == 2 and "not overwritten" in again.err


def test_wrong_use_is_status_2(command: Callable[..., Outcome], tmp_path: Path) -> None:
    for arguments, said in (
        ([tmp_path / "nothing"], "expected a folder or a COCO JSON file"),
        ([tmp_path], "no data set found"),
        ([tmp_path, "--config", "fpn_r05"], "fpn_r50"),
        ([tmp_path, "--images", tmp_path / "x"], "--images: there is no folder"),
        ([tmp_path, "--images", tmp_path, "--images", tmp_path], "one for each of 1 DATA, got 2"),
        ([tmp_path, "data.limit=3"], "the doctor looks at all of DATA"),
        (["model.rpn.pre_nms=1"], "model.rpn"),
        (["data.short_side=100"], "DATA is missing"),
    ):
        done = command("doctor", *arguments)
        assert done.status == 2 and said in done.err.replace("\n", " ")


def test_training_runs_the_quick_form_first(command: Callable[..., Outcome], real_data: Path, tmp_path: Path) -> None:
    small = SmallSet(real_data / "roadsigns", tmp_path / "small")
    small.annotate(small.take(), [-20, 5, 60, 30])
    small.annotate(small.take(), [5, float("nan"), 60, 30])
    done = command("train", "fpn_r50", f"data.root={small.write()}", f"train.output={tmp_path / 'run'}")
    assert done.status == 2 and "is not finite" in done.err
    line = next(line for line in done.out.splitlines() if line.startswith("doctor: "))
    assert "1 error (nonfinite-box 1)" in line and "overhanging-box 1" in line and "`detkit doctor " in line
