"""The page's parts that need no gradio: what is taken, what is chosen, what is written."""

import json
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detkit.predict import Detector
from detkit.types import Detection
from detkit.web.examples import find_examples
from detkit.web.reading import MAX_BYTES, read_upload
from detkit.web.serving import Address
from detkit.web.session import KEPT_VIEWS, Choice, Session
from detkit.web.words import card, refusals, summary
from tests.conftest import Outcome


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG file of that size by its header, with a few bytes of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def encoded(ending: str) -> bytes:
    return cv2.imencode(ending, np.full((6, 8, 3), 200, np.uint8))[1].tobytes()


@pytest.fixture(scope="module")
def detector(trained: Path) -> Detector:
    return Detector.load(trained / "best.pth", overrides=["model.score_threshold=0.01"])


@pytest.fixture
def session(detector: Detector, shapes: Path, tmp_path: Path) -> Session:
    session = Session.open(tmp_path)
    for name in ("000001.png", "000002.png"):
        session.add(detector.detect, (shapes / "val2017" / name).read_bytes(), name)
    return session


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
def test_pictures_are_known_by_their_content(ending: str) -> None:
    assert read_upload(encoded(ending), "notes.txt").shape == (6, 8, 3)


REFUSED = {
    "text": (b"not a picture", "is not a picture"),
    "empty": (b"", "is not a picture"),
    "GIF": (b"GIF89a" + bytes(40), "is not a picture"),
    "50 megapixels and one more line": (png_that_claims(10_000, 5_001), "10000 x 5001 px, 50 megapixels"),
    "bomb": (png_that_claims(60_000, 60_000), "up to 50 are taken"),
    "truncated": (encoded(".png")[:60], "photo.jpg"),
    "too large a file": (encoded(".jpg") + bytes(MAX_BYTES), "up to 32 MiB are taken"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_is_named(kind: str) -> None:
    data, expected = REFUSED[kind]
    with pytest.raises(ValueError, match=r"^(cannot read the picture )?photo\.jpg") as refused:
        read_upload(data, "photo.jpg")
    assert expected in str(refused.value)


def test_a_bomb_is_refused_before_a_pixel_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", decode)
    with pytest.raises(ValueError, match="megapixels"):
        read_upload(png_that_claims(10_000, 10_000), "photo.jpg")


def test_a_choice_is_of_score_and_class() -> None:
    found: Detection = {
        "boxes": torch.arange(16.0).reshape(4, 4),
        "labels": torch.tensor([2, 0, 2, 1]),
        "scores": torch.tensor([0.9, 0.7, 0.5, 0.3]),
    }
    assert Choice(0.5).of(found)["scores"].tolist() == pytest.approx([0.9, 0.7, 0.5])
    assert Choice(0.5, frozenset({2})).of(found)["boxes"].tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert len(Choice(0.0, frozenset({0, 1})).of(found)["boxes"]) == 2


def test_the_page_writes_what_the_demo_writes(
    session: Session, detector: Detector, trained: Path, shapes: Path, tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    """Boxes below a threshold never suppress others, so that leaving them out later is the same."""
    middle = float(session.found[0].detection["scores"][40])
    pictures = [shapes / "val2017" / found.name for found in session.found]
    done = command("demo", trained / "best.pth", *pictures, "--output", tmp_path / "out", "--score", repr(middle))
    assert done.status == 0, done.err
    view = session.show(0, Choice(middle), detector)
    rows = json.loads(view.predictions.read_text())
    assert rows == json.loads((tmp_path / "out/predictions.json").read_text())
    assert 40 < len(rows) < sum(len(found.detection["boxes"]) for found in session.found)
    images = json.loads((tmp_path / "out/images.json").read_text())
    assert [{**image, "file_name": Path(image["file_name"]).name} for image in images] == json.loads(
        view.images.read_text()
    )


def test_a_session_keeps_few_files_and_leaves_none(session: Session, detector: Detector, tmp_path: Path) -> None:
    views = [session.show(1, Choice(0.01 * k), detector) for k in range(KEPT_VIEWS + 2)]
    assert [view.drawn.is_file() for view in views] == [False, False, True, True, True]
    height, width = session.found[1].size
    assert cv2.imread(str(views[-1].drawn)).shape == (height, width, 3)
    session.close()
    assert list(tmp_path.iterdir()) == []


def test_one_bad_picture_leaves_the_others(session: Session, detector: Detector) -> None:
    session.add(detector.detect, b"text", "notes.jpg")
    assert len(session.found) == 2
    assert session.refused == ["notes.jpg is not a picture: JPEG, PNG, WebP, BMP and TIFF are taken"]


def test_names_are_text_and_no_markup_and_no_paths(detector: Detector, shapes: Path, tmp_path: Path) -> None:
    session = Session.open(tmp_path)
    session.add(detector.detect, (shapes / "val2017/000001.png").read_bytes(), "../<img src=x>.png")
    said = summary(session.found[0], Choice(0.01), detector) + refusals(["<b>"])
    assert "<img" not in said and "&lt;img" in said and "<b>&lt;" not in said and "&lt;b&gt;" in said
    view = session.show(0, Choice(0.01), detector)
    assert view.drawn.resolve().is_relative_to(session.folder.resolve())


def test_the_card_has_the_metrics_of_the_checkpoint(detector: Detector) -> None:
    said = card(detector, "best.pth")
    assert f"<b>{detector.evaluation['AP50']:.3f}</b><span>AP50</span>" in said
    assert all(name in said for name in detector.classes)
    assert detector.evaluation["step"] in (4, 6)


def test_examples_come_from_the_validation_split(detector: Detector, shapes: Path) -> None:
    examples = find_examples(detector)
    assert len(examples) == 6
    assert all((shapes / "val2017" / example.name).read_bytes() == example.data for example in examples)


def test_without_the_data_there_are_no_examples(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for root in ("moved", "shapes"):
        assert find_examples(Detector.load(trained / "best.pth", overrides=[f"data.root={root}"])) == []
    assert list(tmp_path.iterdir()) == []  # Shapes are not drawn for it


def test_without_gradio_one_line_says_what_to_install(
    trained: Path, command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)  # as Python marks a module that cannot be imported
    done = command("demo", trained / "best.pth", "--web")
    assert done.status == 2
    assert done.err == "error: the page needs gradio, which is not installed: pip install 'detkit[web]'\n"


def test_a_port_that_is_taken_and_a_host_elsewhere() -> None:
    with Address("127.0.0.1", 0) as first:
        assert first.url == f"http://127.0.0.1:{first.port}/"
        with pytest.raises(ValueError, match=f"port {first.port}.*--port"), Address("127.0.0.1", first.port):
            pass
    with pytest.raises(ValueError, match="--host"), Address("192.0.2.1", 0):  # an address of examples, RFC 5737
        pass
