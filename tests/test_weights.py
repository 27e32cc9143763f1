"""Weights from files: what fits is loaded and reported, what does not fit is refused, and nothing executes."""

import argparse
import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from detkit.build import build_backbone
from detkit.engine.checkpoint import load_checkpoint
from detkit.models.roi_head import BoxHead
from detkit.weights import LoadReport, load_backbone_weights, load_detector_weights, load_weights, read_state


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def test_the_report_names_every_kind() -> None:
    model = network()
    before = model[2].weight.detach().clone()
    state = {"0.weight": torch.full((3, 2), 7.0), "2.weight": torch.zeros(9, 9), "other": torch.zeros(1)}
    report = load_weights(model, state)
    assert report.loaded == ["0.weight"]
    assert report.mismatched == ["2.weight"]
    assert report.unexpected == ["other"]
    # the count of batches is not missed
    assert report.missing == ["0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "2.bias"]
    assert torch.equal(model[0].weight, torch.full((3, 2), 7.0))
    assert torch.equal(model[2].weight, before)
    assert report.rows()[0] == ("loaded", 1, "0.weight")
    assert [row[1] for row in report.rows()] == [1, 6, 1, 1, 0]


def test_less_than_95_percent_is_refused() -> None:
    report = LoadReport(loaded=["w"] * 19, missing=["lost"])
    assert report.require("file") is report
    report.mismatched.append("wrong")
    with pytest.raises(ValueError, match=r"a\.pth: only 19 of 21 tensors fit .* 95% .*wrong, lost"):
        report.require("a.pth")


@pytest.mark.parametrize("key", [None, "ema", "model", "state_dict"])
def test_files_hold_the_state_bare_or_under_a_key(tmp_path: Path, key: str | None) -> None:
    state = network().state_dict()
    torch.save(state if key is None else {key: state, "epoch": 3}, tmp_path / "w.pth")
    read = read_state(tmp_path / "w.pth")
    assert read.keys() == state.keys()
    model = network()
    assert len(load_weights(model, tmp_path / "w.pth").loaded) == len(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_averaged_weights_win(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(1)}, "ema": {"a": torch.ones(1)}}, tmp_path / "w.pth")
    assert read_state(tmp_path / "w.pth")["a"].item() == 1


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(ValueError, match="no weights file"):
            read_state(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused(tmp_path: Path, share: float) -> None:
    torch.save(network().state_dict(), tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"cut\.pth"):
        read_state(tmp_path / "cut.pth")


@pytest.mark.parametrize("content", [b"hello, I am a text\n", b"{}", b"\x00" * 100, b"\x80\x02.", b"PK\x03\x04 broken"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "no.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"no\.pth"):
        read_state(tmp_path / "no.pth")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(1)], torch.zeros(1)])
def test_plain_data_without_weights_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "no.pth")
    with pytest.raises(ValueError, match="expected a state dict"):
        read_state(tmp_path / "no.pth")


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.mkdir, (self.folder,)


@pytest.mark.parametrize("plain", [True, False])
def test_nothing_in_a_file_is_executed(tmp_path: Path, plain: bool) -> None:
    trap, path = Trap(tmp_path / "executed"), tmp_path / "trap.pth"
    path.write_bytes(pickle.dumps(trap)) if plain else torch.save({"model": trap}, path)
    with pytest.raises(ValueError, match=r"trap\.pth: cannot be read as weights: ") as refused:
        read_state(path)
    assert "trust" not in str(refused.value) and "weights_only" not in str(refused.value)
    assert not (tmp_path / "executed").exists()
    # the trap does work where it is let in
    pickle.loads(pickle.dumps(trap))
    assert (tmp_path / "executed").exists()


def test_the_object_that_is_refused_is_named(tmp_path: Path) -> None:
    torch.save({"model": network().state_dict(), "args": argparse.Namespace()}, tmp_path / "w.pth")
    for read in (read_state, load_checkpoint):
        with pytest.raises(ValueError, match=r"w\.pth: .*the object argparse\.Namespace.*`detkit import-weights`"):
            read(tmp_path / "w.pth")


def test_backbones_come_bare_in_a_classifier_or_in_a_detector(tmp_path: Path) -> None:
    classifier = torchvision.models.resnet18(weights=None).state_dict()
    detector = {f"backbone.{name}": value for name, value in classifier.items() if not name.startswith("fc.")}
    detector["roi_head.scores.weight"] = torch.zeros(3)
    for state, unexpected in ((classifier, ["fc.bias", "fc.weight"]), (detector, [])):
        torch.save(state, tmp_path / "w.pth")
        backbone = build_backbone("resnet18")
        report = load_backbone_weights(backbone, "resnet18", read_state(tmp_path / "w.pth"), "w.pth")
        assert report.unexpected == unexpected
        assert not report.missing
        assert torch.equal(backbone.layer4[1].conv2.weight, classifier["layer4.1.conv2.weight"])


def test_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        ValueError, match=r"model\.backbone\.weights=.*w\.pth for resnet34: only \d+ of \d+.*`detkit import-weights`"
    ):
        build_backbone("resnet34", weights=str(tmp_path / "w.pth"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torchvision's downloads, on a machine whose network leads nowhere."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_imagenet_weights_without_network_say_how_to_go_on(cache: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.backbone\.weights=imagenet: cannot get https://.*resnet18.*none"):
        build_backbone("resnet18", weights="imagenet")
    assert not list(cache.iterdir())


def test_imagenet_weights_from_the_cache(cache: Path) -> None:
    state = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(state, cache / "resnet18-f37072fd.pth")
    backbone = build_backbone("resnet18", weights="imagenet")
    assert torch.equal(backbone.conv1.weight, state["conv1.weight"])


def test_a_damaged_or_dangerous_file_in_the_cache(cache: Path, tmp_path: Path) -> None:
    for content in (b"", b"damaged", pickle.dumps(Trap(tmp_path / "executed"))):
        (cache / "resnet18-f37072fd.pth").write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot get .*resnet18-f37072fd"):
            build_backbone("resnet18", weights="imagenet")
    assert not (tmp_path / "executed").exists()


def detector(classes: int, agnostic: bool = False) -> nn.Module:
    """The names of a detector around a small box head."""
    head = BoxHead(2, 1, classes, linears=1, width=3, class_agnostic=agnostic)
    body = nn.Sequential(*[nn.Linear(1, 1) for _ in range(10)])
    return nn.ModuleDict({"backbone": body, "roi_head": nn.ModuleDict({"box_head": head})})


def numbered(classes: int, agnostic: bool = False) -> dict[str, torch.Tensor]:
    """A state in which every row of a tensor holds its own number."""
    state = detector(classes, agnostic).state_dict()
    rows = {name: torch.arange(len(v)).float().view(-1, *[1] * (v.ndim - 1)) for name, v in state.items()}
    return {name: rows[name].expand(v.shape) for name, v in state.items()}


def test_shared_class_names_keep_their_rows() -> None:
    model = detector(4)
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    report = load_detector_weights(model, numbered(3), ["cat", "dog", "cow"], ["cow", "bee", "cat", "ant"])
    head = "roi_head.box_head."
    layers = ("deltas.bias", "deltas.weight", "scores.bias", "scores.weight")
    assert sorted(report.renewed) == [head + name for name in layers]
    for kind in ("weight", "bias"):
        new = model.state_dict()
        scores, deltas = new[f"{head}scores.{kind}"], new[f"{head}deltas.{kind}"]
        first = (scores, deltas) if kind == "bias" else (scores[:, 0], deltas[:, 0])
        # cow was row 2, cat row 0, background row 3; four rows of deltas a class
        assert [first[0][row].item() for row in (0, 2, 4)] == [2, 0, 3]
        assert first[1][0:4].tolist() == [8, 9, 10, 11]
        assert first[1][8:12].tolist() == [0, 1, 2, 3]
        # bee and ant begin anew
        assert torch.equal(scores[[1, 3]], fresh[f"{head}scores.{kind}"][[1, 3]])
        for rows in (slice(4, 8), slice(12, 16)):
            assert torch.equal(deltas[rows], fresh[f"{head}deltas.{kind}"][rows])


def test_the_same_names_load_everything() -> None:
    model, state = detector(3), numbered(3)
    report = load_detector_weights(model, state, ["a", "b", "c"], ["a", "b", "c"])
    assert not report.renewed
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_same_number_of_other_classes_starts_anew() -> None:
    model = detector(2)
    fresh = model.state_dict()["roi_head.box_head.scores.weight"].clone()
    load_detector_weights(model, numbered(2), ["a", "b"], ["c", "d"])
    assert torch.equal(model.state_dict()["roi_head.box_head.scores.weight"][:2], fresh[:2])
    assert (model.state_dict()["roi_head.box_head.scores.weight"][2] == 2).all()


def test_class_agnostic_deltas_are_kept() -> None:
    model = detector(2, agnostic=True)
    load_detector_weights(model, numbered(3, agnostic=True), ["a", "b", "c"], ["x", "y"])
    assert model.state_dict()["roi_head.box_head.deltas.bias"].tolist() == [0, 1, 2, 3]


def test_a_detector_of_another_architecture_is_refused() -> None:
    state = {name: value for name, value in numbered(3).items() if not name.startswith("backbone.1")}
    with pytest.raises(ValueError, match=r"model\.weights: only"):
        load_detector_weights(detector(3), state, ["a", "b", "c"], ["a", "b", "d"])
