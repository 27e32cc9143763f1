"""`detkit import-weights`, the messages for wrong files, and `coco:` detectors from a file in torch's cache."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18

from detkit.build import build_backbone, build_detector
from detkit.cli.import_weights import read_names
from detkit.config import Config
from detkit.engine.checkpoint import load_checkpoint
from detkit.importing import import_weights
from detkit.predict import Detector
from detkit.ready_made import DETECTORS
from detkit.weights import LoadReport
from tests.conftest import Outcome
from tests.foreign_files import small_detector

Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of torchvision with two classes."""
    file = tmp_path_factory.mktemp("theirs") / "model.pth"
    torch.save({"model": small_detector(3).state_dict(), "epoch": 3}, file)
    return file


def test_a_detector_becomes_a_checkpoint(theirs: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "names.txt").write_text("cat\n\ndog\n")
    arguments = (theirs, "--from", "torchvision", "--output", tmp_path / "x.pth", "--classes", tmp_path / "names.txt")
    done = command("import-weights", *arguments, "--bn-eps", "0")
    assert done.status == 0 and "mapped" in done.out and "2 classes: cat, dog" in done.out
    state = load_checkpoint(tmp_path / "x.pth")
    assert state["classes"] == ["cat", "dog"] and state["category_ids"] == [1, 2]
    assert state["config"]["model"]["backbone"]["norm_eps"] == 0
    again = command("import-weights", *arguments)
    assert again.status == 2 and "exists already" in again.err


def test_a_backbone_becomes_weights_for_a_backbone(tmp_path: Path, command: Command) -> None:
    torch.manual_seed(0)
    net = resnet18(weights=None)
    torch.save(net.state_dict(), tmp_path / "r18.pth")
    done = command("import-weights", tmp_path / "r18.pth", "--from", "timm", "--output", tmp_path / "x.pth")
    assert done.status == 0 and "model.backbone.name=resnet18" in done.out and "fc.weight" in done.out
    backbone = build_backbone("resnet18", weights=str(tmp_path / "x.pth"))
    assert torch.equal(backbone.state_dict()["layer4.1.conv2.weight"], net.layer4[1].conv2.weight)
    assert "norm_eps" not in done.out and "pixel_mean" not in done.out
    arguments = (tmp_path / "r18.pth", "--from", "timm", "--output", tmp_path / "y.pth")
    assert "model.backbone.norm_eps=0.01" in command("import-weights", *arguments, "--bn-eps", "0.01").out
    (tmp_path / "names.txt").write_text("cat")
    done = command("import-weights", *arguments[:-1], tmp_path / "z.pth", "--classes", tmp_path / "names.txt")
    assert done.status == 2 and "leave out --classes" in done.err
    done = command("import-weights", *arguments[:-1], tmp_path / "z.pth", "--classes", tmp_path / "none.txt")
    assert done.status == 2 and "--classes: cannot read" in done.err and "Errno" not in done.err


def test_a_backbone_whose_pixels_are_others_says_so(tmp_path: Path, command: Command) -> None:
    state = build_backbone("mobilenet_v1").state_dict()
    torch.save(state, tmp_path / "m.pth")
    done = command("import-weights", tmp_path / "m.pth", "--from", "timm", "--output", tmp_path / "x.pth")
    assert done.status == 0 and "model.pixel_mean=(127.5,127.5,127.5)" in done.out
    reports: list[LoadReport] = []
    forgetful = Config().replace(
        {"model.backbone.name": "mobilenet_v1", "model.backbone.weights": str(tmp_path / "x.pth")}
    )
    build_detector(forgetful.model, 2, on_loaded=reports.append)
    assert [line.split("=")[0].rpartition(".")[2] for line in reports[0].warnings] == ["pixel_mean", "pixel_std"]
    name = next(name for name in state if state[name].is_floating_point())
    torch.save(state | {name: state[name].clone().fill_(float("nan"))}, tmp_path / "nan.pth")
    done = command("import-weights", tmp_path / "nan.pth", "--from", "timm", "--output", tmp_path / "y.pth")
    assert done.status == 2 and f"{name} holds numbers that are NaN" in done.err


def test_the_library_of_a_backbone_is_named(tmp_path: Path) -> None:
    state = resnet18(weights=None).state_dict()
    torch.save({"state_dict": {f"backbone.{name}": value for name, value in state.items()}}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="use --from mmdet"):
        import_weights(tmp_path / "x.pth", "torchvision")
    torch.save({"stem.conv1.weight": torch.ones(1), "res2.0.conv1.weight": torch.ones(1)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="use --from detectron2"):
        import_weights(tmp_path / "x.pth", "timm")


def test_the_wrong_library_is_named(theirs: Path, tmp_path: Path, command: Command) -> None:
    for source in ("detectron2", "mmdet", "timm"):
        done = command("import-weights", theirs, "--from", source, "--output", tmp_path / "x.pth")
        assert done.status == 2 and "use --from torchvision" in done.err
    assert command("import-weights", theirs, "--from", "keras", "--output", tmp_path / "x.pth").status == 2
    assert not (tmp_path / "x.pth").exists()


def test_other_architectures_and_damaged_files_are_refused(theirs: Path, tmp_path: Path) -> None:
    state = torch.load(theirs)["model"]
    lacking = {name: value for name, value in state.items() if "rpn.head.bbox_pred" not in name}
    torch.save(lacking, tmp_path / "lacking.pth")
    with pytest.raises(ValueError, match=r"lacking\.pth: .*rpn\.head\.deltas\.weight"):
        import_weights(tmp_path / "lacking.pth", "torchvision")
    torch.save({"some.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"no tensor fits any backbone of detkit.*some"):
        import_weights(tmp_path / "other.pth", "torchvision")
    (tmp_path / "cut.pth").write_bytes(theirs.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"cut\.pth: "):
        import_weights(tmp_path / "cut.pth", "torchvision")
    with pytest.raises(ValueError, match="expected 2 class names"):
        import_weights(theirs, "torchvision", names=["one"])
    with pytest.raises(ValueError, match="no weights file"):
        import_weights(tmp_path / "none.pth", "torchvision")


def test_class_names_from_files(tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(json.dumps(["a b", "c"]))
    assert read_names(tmp_path / "names.json") == ["a b", "c"]
    (tmp_path / "names.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match="JSON list"):
        read_names(tmp_path / "names.json")


def cached_coco_detector(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in torch's cache, now `folder`, under the name of the published weights."""
    monkeypatch.setenv("TORCH_HOME", str(folder))
    weights, _ = DETECTORS["fasterrcnn_resnet50_fpn"]
    file = folder / "hub/checkpoints" / weights.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save(small_detector(91).state_dict(), file)
    return file


def test_coco_detectors_come_from_the_cache(
    real_data: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = cached_coco_detector(tmp_path, monkeypatch)
    picture = real_data / "coco-mini/val2017/000000005001.jpg"
    arguments = ("coco:fasterrcnn_resnet50_fpn", picture, "data.short_side=160", "--output", tmp_path / "out")
    done = command("demo", *arguments)
    assert done.status == 0, done.err
    assert json.loads((tmp_path / "out/predictions.json").read_text())
    (kept,) = (file.parent / "detkit").iterdir()
    file.unlink()  # the imported one is enough
    detector = Detector.load("coco:fasterrcnn_resnet50_fpn")
    assert detector.config.model.backbone.norm_eps == 0.0 and len(detector.classes) == 90
    before = kept.read_bytes()
    torch.save(small_detector(91).state_dict(), file)
    os.utime(file, (kept.stat().st_mtime + 10,) * 2)
    kept.write_bytes(before[:1000])
    assert len(Detector.load("coco:fasterrcnn_resnet50_fpn").classes) == 90
    assert kept.stat().st_size > 1000


def test_coco_detectors_are_scored_by_name_without_outputs_that_are_no_class(
    real_data: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = cached_coco_detector(tmp_path, monkeypatch)
    state = torch.load(file)
    # sure of a class (person, id 1) and of an output without one (12), each with about half of the softmax
    state["roi_heads.box_predictor.cls_score.weight"].zero_()
    state["roi_heads.box_predictor.cls_score.bias"].zero_()[[1, 12]] = 20.0
    torch.save(state, file)
    arguments = ("coco:fasterrcnn_resnet50_fpn", f"data.root={real_data / 'coco-mini'}", "data.limit=2")
    small = ("data.short_side=96", "model.rpn.post_nms_test=50", "data.workers=0")
    done = command("eval", *arguments, *small, "--json", "-", "--predictions", tmp_path / "rows.json")
    assert done.status == 0, done.err
    assert "person" in (classes := json.loads(done.out)["classes"]) and not any("N/A" in name for name in classes)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert rows and {row["category_id"] for row in rows} == {1}
    (found,) = Detector.load(arguments[0], overrides=small)([real_data / "coco-mini/val2017/000000005001.jpg"])
    assert set(found["labels"].tolist()) == {0}
    picture = real_data / "coco-mini/val2017/000000005001.jpg"
    done = command("demo", arguments[0], picture, *small[:2], "--output", tmp_path / "out", "--score", "0.1")
    assert done.status == 0 and "person" in done.out and "N/A" not in done.out
    assert {row["category_id"] for row in json.loads((tmp_path / "out/predictions.json").read_text())} == {1}
    done = command("eval", arguments[0], *small)
    assert done.status == 2 and "give data.root=" in done.err


def test_coco_detectors_that_cannot_be_had(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    picture = tmp_path / "x.jpg"
    picture.write_bytes(b"")
    unknown = command("demo", "coco:yolo", picture, "--output", tmp_path / "out")
    assert unknown.status == 2 and "coco:fasterrcnn_resnet50_fpn_v2" in unknown.err

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    missing = command("demo", "coco:fasterrcnn_resnet50_fpn_v2", picture, "--output", tmp_path / "out")
    assert missing.status == 2 and "\n" not in missing.err.strip()
    assert "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth" in missing.err and str(tmp_path / "hub") in missing.err
