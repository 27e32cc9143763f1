"""The report: what becomes of objects by hand, and a page of each kind of data set."""

import base64
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detkit.build import build_detector, build_val_loader
from detkit.config import Config
from detkit.data.coco import load_coco
from detkit.engine.checkpoint import load_checkpoint
from detkit.evaluation.columns import read_detections, read_ground_truth
from detkit.evaluation.diagnosis import diagnose
from detkit.predict import Detector
from detkit.report import Inspection, inspect, render
from detkit.report.confusion import CLASSES
from detkit.report.earlier import read_earlier
from detkit.report.galleries import close_up
from detkit.report.objects import trace_objects
from detkit.report.watch import Proposed, best_iou
from tests.coco_files import content, write
from tests.tiny_detector import SMALL, picture, tiny_detector

Command = Callable[..., Any]
HOSTILE = '<script>alert("x")</script> $\\frac{'


class Page(HTMLParser):
    """Tags and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for key, value in attributes if key in ("src", "href")]


def check_page(text: str) -> Page:
    """Nothing is fetched, nothing runs, no picture is empty."""
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags
    for address in page.addresses:
        assert address.startswith(("#", "data:image/jpeg;base64,", "data:image/svg+xml;base64,"))
        assert address.startswith("#") or len(base64.b64decode(address.partition(",")[2])) > 100
    return page


def test_best_iou_with_the_first_proposals() -> None:
    objects = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])
    proposals = torch.tensor([[0.0, 0, 10, 5], [0, 0, 10, 10], [20, 0, 25, 10]])
    expected = [[0.5, 1, 1], [0, 0, 0.5]]
    assert best_iou(proposals, objects, (1, 2, 100)).tolist() == expected
    assert best_iou(torch.zeros(0, 4), objects, (1, 2)).tolist() == [[0, 0], [0, 0]]
    assert best_iou(proposals, torch.zeros(0, 4), (1, 2)).shape == (0, 2)


def test_proposals_come_with_the_same_detections() -> None:
    model, images = tiny_detector().eval(), [picture(64, 64), picture(48, 70, seed=1)]
    alone, (detections, proposals) = model.predict(images), model.predict_with_proposals(images, 60)
    for one, other, few, more in zip(alone, detections, model.propose(images), proposals, strict=True):
        assert torch.equal(one["boxes"], other["boxes"]) and torch.equal(one["scores"], other["scores"])
        assert len(few["boxes"]) == model.rpn.test_counts.post_nms < len(more["boxes"]) <= 60
        assert torch.equal(few["boxes"], more["boxes"][: len(few["boxes"])])


def test_what_became_of_the_objects(tmp_path: Path) -> None:
    index = load_coco(*write(tmp_path, content()))
    places = {index.file_name(i): i for i in range(3)}
    boxes = [index.target(i)["boxes"] for i in range(3)]
    assert {name: len(boxes[i]) for name, i in places.items()} == {"a.png": 2, "b.png": 0, "c.png": 1}
    truth = read_ground_truth(index.as_coco())
    rows = [{"image_id": 10, "category_id": 7, "bbox": [10, 20, 30, 40], "score": 0.9}]  # the first object of a
    diagnosis = diagnose(truth, read_detections(rows, truth, index.image_ids.tolist()))
    proposed = {
        10: Proposed(torch.tensor([[0.0, 0.8, 0.92, 0.8], [0, 0, 0.72, 0.4]]), torch.tensor([1, 0])),
        20: Proposed(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
        30: Proposed(torch.tensor([[0.5, 0.5, 0.57, 0.5]]), torch.tensor([2])),
    }
    objects = trace_objects(index, diagnosis, proposed)
    every = np.ones(3, bool)
    # the second of a is met by none of those that the head sees; c's is, but nothing was made of it
    assert objects.fate_counts(every) == {"found": 1, "low score": 0, "head": 1, "RPN": 1}
    assert objects.fate_counts(objects.levels == 2) == {"found": 0, "low score": 0, "head": 1, "RPN": 0}
    # 0.92, 0.72, 0.57 pass 9, 5 and 2 of the ten IoU thresholds
    assert objects.rpn_recall(every) == pytest.approx([1 / 3, 2 / 3, 1, 16 / 30])
    assert [int(objects.of_size(size).sum()) for size in ("small", "medium", "large")] == [2, 1, 0]
    assert np.isnan(objects.rpn_recall(objects.of_size("large"))).all()


def test_close_ups_stay_in_the_picture() -> None:
    assert close_up(np.array([100, 100, 140, 120], np.float32), (300, 400)) == (40, 30, 200, 190)
    assert close_up(np.array([0, 280, 10, 300], np.float32), (300, 400)) == (0, 204, 96, 300)  # at least 96 px
    assert close_up(np.array([0, 0, 100, 100], np.float32), (50, 400)) == (0, 0, 400, 50)  # a flat picture


def test_the_page_of_a_run(trained: Path, shapes: Path, tmp_path: Path, command: Command) -> None:
    page, numbers = tmp_path / "new/report.html", tmp_path / "numbers.json"
    checkpoint = tmp_path / "copy.pth"
    checkpoint.write_bytes((trained / "last.pth").read_bytes())
    limited = ("data.limit=4", "model.score_threshold=0.001")
    done = command("eval", checkpoint, *limited, "--report", page, "--json", numbers, "--compare", trained)
    assert done.status == 0, done.err
    text = page.read_text()
    check_page(text)
    assert "triangle" in text and "data.limit" in text and f"{trained.name}, step" in text
    values = json.loads(numbers.read_text())
    assert values["objects"]["all"].keys() == {"found", "low score", "head", "RPN"}
    total = sum(score["boxes"] for score in values["classes"].values())
    assert sum(values["objects"]["all"].values()) == total == sum(sum(v.values()) for v in values["levels"]) - 60
    assert load_checkpoint(checkpoint).get("score_thresholds") is None  # nobody asked
    refused = command("eval", checkpoint, *limited, "--report", page)
    assert refused.status == 2 and "not overwritten" in refused.err
    assert page.read_text() == text


def test_thresholds_are_written_when_asked(trained: Path, tmp_path: Path, command: Command) -> None:
    checkpoint = tmp_path / "copy.pth"
    checkpoint.write_bytes((trained / "last.pth").read_bytes())
    before = load_checkpoint(checkpoint)
    done = command("eval", checkpoint, "data.limit=2", "--write-thresholds", "--json", "-")
    assert done.status == 0, done.err
    assert "these thresholds come from the first 2 pictures alone (data.limit=2)" in done.err
    after = load_checkpoint(checkpoint)
    points = json.loads(done.out)["thresholds"]
    expected = [0.5 if points[name] is None else points[name]["score"] for name in before["classes"]]
    assert after["score_thresholds"] == expected
    assert Detector.load(checkpoint).score_thresholds == tuple(expected)
    assert after.keys() - before.keys() == {"score_thresholds"}
    assert all(torch.equal(after["model"][name], value) for name, value in before["model"].items())


def test_earlier_runs(trained: Path, tmp_path: Path, command: Command) -> None:
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    best = max(row["AP"] for row in rows if "AP" in row)
    assert read_earlier(trained).metrics["AP"] == read_earlier(trained / "metrics.jsonl").metrics["AP"] == best
    file = tmp_path / "old.json"
    file.write_text(json.dumps({"metrics": {"AP": 0.5, "AP50": None}, "classes": {"cat": {"AP": 0.25}}}))
    assert read_earlier(file).metrics == {"AP": 0.5} and read_earlier(file).classes == {"cat": 0.25}
    assert read_earlier(file).data is None
    file.write_text(json.dumps({"metrics": {"AP": 0.5}, "data": {"pictures": 9, "boxes": 27}}))
    assert read_earlier(file).data == (9, 27)
    done = command("eval", trained / "last.pth", "data.limit=2", "--report", tmp_path / "other.html", "--compare", file)
    assert done.status == 0 and "old was scored on other data: 9 pictures with 27 boxes" in (
        tmp_path / "other.html"
    ).read_text(encoding="utf-8")
    for name, wrong in {
        "empty": "",
        "list": "[]",
        "others": '{"metrics": {"mAP": 1}}',
        "binary": "\0\ud7ff",
        "deep": "[" * 99_999,
    }.items():
        file = tmp_path / f"{name}.json"
        file.write_text(wrong)
        done = command("eval", trained / "last.pth", "--report", tmp_path / "page.html", "--compare", file)
        assert done.status == 2 and f"{name}.json" in done.err and "detkit eval --json" in done.err
    file.write_text('{"metrics": {"AP": 0.5, "AP50": NaN, "AP75": 1e400, "AR1": ' + "9" * 400 + "}}")
    assert read_earlier(file).metrics == {"AP": 0.5}
    for wrong_name, said in {"-": "only --json prints", trained / "last.pth/x.html": "is a file"}.items():
        done = command("eval", trained / "last.pth", "--report", wrong_name)
        assert done.status == 2 and said in done.err
    for missing in (tmp_path / "none.json", tmp_path):
        with pytest.raises(ValueError, match=re.escape(str(missing))):
            read_earlier(missing)
    assert command("eval", trained / "last.pth", "--compare", trained).status == 2  # for what page?


def inspected(root: Path, value: dict[str, Any], threshold: float = 0.0) -> Inspection:
    """What an untrained detector does on annotations."""
    annotations, images = write(root, value)
    names = [category["name"] for category in value["categories"]]
    changes = {"data.short_side": 80, "data.workers": 0, "model.score_threshold": threshold}
    config = Config().replace(SMALL | changes)
    index = load_coco(annotations, images, classes=names)
    torch.manual_seed(0)
    model = build_detector(config.model, len(names))
    detector = Detector(model.eval(), config, names, index.category_ids, torch.device("cpu"), "float32")
    return inspect(detector, build_val_loader(config.data, index, 80, 2), 2)


def as_one_class(value: dict[str, Any]) -> None:
    value["categories"] = value["categories"][:1]
    value["annotations"] = [row for row in value["annotations"] if row["category_id"] == 7]


def as_many_classes(value: dict[str, Any]) -> None:
    value["categories"] += [{"id": 100 + i, "name": f"class {i}"} for i in range(83)]


def with_odd_names(value: dict[str, Any]) -> None:
    value["categories"][0]["name"] = HOSTILE


def without_objects(value: dict[str, Any]) -> None:
    value["annotations"] = []


@pytest.mark.parametrize("change", [as_one_class, with_odd_names, without_objects])
def test_pages_of_odd_data(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    value = content()
    change(value)
    seen = inspected(tmp_path, value)
    assert len(seen.found.scores)
    check_page(render(HOSTILE, seen))
    json.dumps(seen.as_json(), allow_nan=False)
    assert len(seen.thresholds()) == len(value["categories"])


def test_a_page_without_detections(tmp_path: Path) -> None:
    seen = inspected(tmp_path, content(), threshold=0.999)
    assert not len(seen.found.scores) and not seen.diagnosis.false_positives.any()
    assert "No detection scores model.score_threshold=0.999 or more" in render("none", seen)


def test_of_many_classes_the_matrix_shows_those_mixed_up(tmp_path: Path) -> None:
    value = content()
    as_many_classes(value)
    text = render("many", inspected(tmp_path, value))
    check_page(text)
    matrix = text.partition('<table class="matrix">')[2].partition("</table>")[0]
    assert matrix.count("<tr>") == CLASSES + 2  # background and the head
    assert "73 more are left out" in text and "cat" in matrix and "dog" in matrix
