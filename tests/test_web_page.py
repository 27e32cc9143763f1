"""The page in a real browser and over real HTTP: headless Chromium, the real detector, nothing replaced."""

import contextlib
import http.client
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import pytest

from detkit.predict import Detector, Picture
from detkit.types import Detection
from detkit.web.serving import Address, Show, build_server
from tests.processes import environment, started
from tests.test_web import png_that_claims

pytest.importorskip("gradio", reason="needs gradio: pip install -e '.[web]'")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[browser]'")
CHROMIUM = shutil.which("chromium")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, such as Debian's")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.filterwarnings("ignore::Warning:gradio")]

QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
)
SECONDS = 60_000  # milliseconds that a busy machine may take for a step


class CountingDetector(Detector):
    """The real one, which counts how often its model runs."""

    runs = 0

    def detect(self, pictures: Sequence[Picture], scale: float = 1.0) -> list[Detection]:
        self.runs += 1
        return super().detect(pictures, scale)


@dataclass
class Served:
    url: str
    detector: CountingDetector
    folder: Path
    checkpoint: Path


@pytest.fixture(scope="module")
def served(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder, checkpoint = tmp_path_factory.mktemp("page"), trained / "best.pth"
    detector = CountingDetector.load(checkpoint, overrides=["model.score_threshold=0.01"])
    assert isinstance(detector, CountingDetector)
    with pytest.MonkeyPatch.context() as patch, Address("127.0.0.1", 0) as address:
        patch.setenv("GRADIO_TEMP_DIR", "")  # what the server sets is put back at the end
        server = build_server(Show(detector, detector.detect, checkpoint.name, 0.01), address, folder)
        thread = threading.Thread(target=server.run, args=([address.socket],))
        thread.start()
        while not server.started:
            time.sleep(0.05)
        yield Served(address.url, detector, folder, checkpoint)
        server.should_exit = True
        thread.join(timeout=30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def page(served: Served, browser: Any) -> Iterator[Any]:
    """The page, opened; all that it asks for must come from its own server, and nothing may be blocked."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(SECONDS)
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    page.goto(served.url)
    page.wait_for_selector("#threshold input[type=number]")
    yield page
    page.close()
    assert asked and [url for url in asked if not url.startswith((served.url, "data:", "blob:"))] == []
    assert wrong == []


def counts(page: Any) -> tuple[int, int]:
    """How many boxes the page says are shown, and of how many."""
    words = page.inner_text("#found .count").split()
    return int(words[0]), int(words[2])


def drop(page: Any, where: str, *files: Path) -> None:
    page.set_input_files(f"{where} input[type=file]", [str(file) for file in files])


def move_slider(page: Any, score: float) -> None:
    number = page.locator("#threshold input[type=number]")
    number.fill(str(score))
    number.press("Enter")


def shown_picture(page: Any) -> str:
    return str(page.get_attribute("#drawn img", "src"))


def downloaded(page: Any, button: str) -> Path:
    with page.expect_download() as waiting:
        page.click(button)
    return Path(waiting.value.path())


@in_browser
def test_the_threshold_and_classes_choose_without_running_the_model(served: Served, page: Any, shapes: Path) -> None:
    picture = shapes / "val2017/000001.png"
    drop(page, "#files", picture)
    page.wait_for_selector("#found .count")
    runs, took, first = served.detector.runs, page.inner_text("#found .time"), shown_picture(page)
    shown, all_boxes = counts(page)
    assert shown == all_boxes > 0
    (expected,) = Detector.load(served.checkpoint, overrides=["model.score_threshold=0.01"])([picture])
    score = round(float(expected["scores"].median()), 2)
    above = int((expected["scores"] >= score).sum())
    if above == shown:  # an early detector's scores lie close together
        score = round(score + 0.01, 2)
        above = int((expected["scores"] >= score).sum())

    move_slider(page, score)
    page.wait_for_function("n => document.querySelector('#found .count').innerText.startsWith(n + ' of')", arg=above)
    assert above < shown and shown_picture(page) != first

    for beyond, instead in (("", shown), ("5", 0), ("-3", shown)):  # an empty box is what comes before typing
        page.locator("#threshold input[type=number]").fill(beyond)
        page.locator("#threshold input[type=number]").press("Enter")
        page.wait_for_function(
            "n => document.querySelector('#found .count').innerText.startsWith(n + ' of')", arg=instead
        )

    move_slider(page, 0.01)
    page.wait_for_function("n => document.querySelector('#found .count').innerText.startsWith(n + ' of')", arg=shown)
    label = int(expected["labels"].mode().values)
    page.click("#classes input")
    page.get_by_role("option", name=served.detector.classes[label], exact=True).click()
    of_class = int((expected["labels"] == label).sum())
    page.wait_for_function(
        "name => document.querySelector('#found .count').innerText.endsWith(': ' + name)",
        arg=f"{of_class} {served.detector.classes[label]}",
    )
    assert served.detector.runs == runs
    assert page.inner_text("#found .time") == took

    rows = json.loads(downloaded(page, "#get-predictions").read_text())
    assert len(rows) == of_class
    assert {row["category_id"] for row in rows} == {served.detector.category_ids[label]}
    assert rows[0]["score"] == pytest.approx(float(expected["scores"][expected["labels"] == label][0]), abs=1e-4)
    drawn = cv2.imread(str(downloaded(page, "#get-picture")))
    assert drawn.shape == cv2.imread(str(picture)).shape


@in_browser
def test_several_pictures_and_what_is_not_taken(served: Served, page: Any, shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("not a picture")
    (tmp_path / "bomb.png").write_bytes(png_that_claims(60_000, 60_000))
    good = [shapes / "val2017/000001.png", shapes / "val2017/000002.png"]
    runs = served.detector.runs
    drop(page, "#files", *good, tmp_path / "notes.jpg", tmp_path / "bomb.png")
    page.wait_for_selector("#refused li")
    refused = page.inner_text("#refused")
    assert "notes.jpg is not a picture" in refused and "bomb.png would unpack to more than 179 megapixels" in refused
    assert str(served.folder) not in refused
    assert served.detector.runs == runs + 2

    page.locator("#thumbnails button.thumbnail-item").nth(1).click()
    page.wait_for_function("() => document.querySelector('#found .small').innerText.startsWith('000002.png')")
    images = json.loads(downloaded(page, "#get-images").read_text())
    assert [(image["id"], image["file_name"]) for image in images] == [(1, "000001.png"), (2, "000002.png")]
    assert {row["image_id"] for row in json.loads(downloaded(page, "#get-predictions").read_text())} == {1, 2}
    assert served.detector.runs == runs + 2


@in_browser
def test_a_folder(served: Served, page: Any, shapes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures/below"
    folder.mkdir(parents=True)
    for name in ("000001.png", "000003.png"):
        shutil.copy(shapes / "val2017" / name, folder)
    page.get_by_role("tab", name="Folder").click()
    drop(page, "#folder", tmp_path / "pictures")
    page.wait_for_selector("#found .count")
    assert page.locator("#thumbnails button.thumbnail-item").count() == 2


@in_browser
def test_an_example_of_the_validation_split(served: Served, page: Any) -> None:
    page.locator("#examples button.thumbnail-item").first.click()
    page.wait_for_selector("#found .count")
    assert page.locator("#examples button.thumbnail-item").count() == 6


@in_browser
def test_the_camera(served: Served, page: Any) -> None:
    """Chromium's own fake camera: a real stream of 640 x 480 px."""
    page.get_by_role("tab", name="Camera").click()
    page.locator("#camera button:visible").first.click()
    page.wait_for_function("document.querySelector('#camera video')?.videoWidth > 0")  # before, it captures nothing
    page.get_by_label("capture photo").click()
    page.wait_for_selector("#found .count")
    assert page.inner_text("#found .small").startswith("camera, ")


JSON = {"Content-Type": "application/json"}


def multipart(content: bytes) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an upload, as a browser sends it."""
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    return head + content + b"\r\n--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}


def answer(url: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Status and body of a request; a server that has heard enough may answer before it has all of `data`."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    with contextlib.closing(connection):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            target = url.removeprefix(f"http://{parts.netloc}")
            connection.request("GET" if data is None else "POST", target, data, headers or {})
        response = connection.getresponse()
        return response.status, response.read()


@pytest.mark.parametrize("prefix", ["gradio_api/file=", "file=", "gradio_api/file/", "gradio_api/proxy="])
def test_no_file_of_the_machine_is_served(served: Served, prefix: str) -> None:
    here = Path("setup.cfg").resolve()
    data = served.checkpoint.parent / "config.json"
    escape = f"{served.folder}/../{served.folder.parent.name}/"
    for path in ("/etc/passwd", served.checkpoint, data, here, "setup.cfg", f"{escape}../../../../etc/passwd"):
        status, body = answer(f"{served.url}{prefix}{path}")
        assert status in (400, 403, 404), f"{path}: {status}"
        assert b"root:" not in body and b"[metadata]" not in body and b"backbone" not in body


def test_nothing_is_fetched_from_elsewhere(served: Served) -> None:
    for prefix in ("file=", "file=/", "file/", "proxy="):
        for scheme in ("http", "HTTPS"):
            assert answer(f"{served.url}gradio_api/{prefix}{scheme}://example.com/x.png")[0] == 403
    file = {"path": "https://example.com/x.png", "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [[file], None, 0.5, []], "fn_index": 0, "session_hash": "x"}).encode()
    assert answer(f"{served.url}gradio_api/queue/join", body, JSON)[0] == 403


def test_requests_are_limited_and_of_this_page(served: Served) -> None:
    upload = f"{served.url}gradio_api/upload"
    assert answer(upload, b"x", {"Content-Length": str(10**10)})[0] == 413
    assert answer(upload, b"x", {"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert answer(upload, b"x", {"Sec-Fetch-Site": "same-site"})[0] == 403
    assert answer(upload, b"x", {"Transfer-Encoding": "chunked"})[0] in (400, 411)
    assert answer(served.url, None, {"Host": "attacker.example"})[0] == 400
    assert answer(f"{served.url}gradio_api/queue/join", b"[]", {"Content-Length": str(2 << 20)})[0] == 413
    assert answer(upload, *multipart(bytes(33 * 2**20)))[0] == 413
    assert answer(upload, *multipart(b"small"))[0] == 200


def test_a_file_of_the_machine_is_not_taken_for_an_upload(served: Served, shapes: Path) -> None:
    """gradio by itself copies such a file to where it serves files from."""
    picture = shapes / "val2017/000001.png"
    sent = json.loads(answer(f"{served.url}gradio_api/upload", *multipart(picture.read_bytes()))[1])
    runs = served.detector.runs
    for path, status in ((str(picture), 403), (f"{served.folder}/../x", 403), ("/etc/passwd", 403), (sent[0], 200)):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        body = {"data": [[file], None, 0.5, []], "fn_index": 0, "session_hash": "y"}
        assert answer(f"{served.url}gradio_api/queue/join", json.dumps(body).encode(), JSON)[0] == status
    for direct in ("run/upload", "api/upload", "run/predict"):  # past the queue: not even for what was sent
        for path in (str(picture), "/etc/passwd", sent[0]):
            file = {"path": path, "meta": {"_type": "gradio.FileData"}}
            body = {"data": [[file], None, 0.5, []], "fn_index": 0, "session_hash": "z"}
            assert answer(f"{served.url}gradio_api/{direct}", json.dumps(body).encode(), JSON)[0] >= 400
    _, events = answer(f"{served.url}gradio_api/queue/data?session_hash=y")
    assert b'"success":true' in events
    assert served.detector.runs == runs + 1


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_and_leaves_nothing(trained: Path, tmp_path: Path, signum: int, status: int) -> None:
    command = (sys.executable, "-m", "detkit", "demo", trained / "best.pth", "--web", "--port", "0")
    with started(command, environments=[environment(TMPDIR=tmp_path, PYTHONUNBUFFERED=1)]) as (process,):
        assert process.stdout is not None
        assert "float32" in process.stdout.readline()
        assert "http://127.0.0.1:" in process.stdout.readline()
        assert list(tmp_path.glob("detkit-web-*"))
        process.send_signal(signum)
        assert process.wait(timeout=60) == status
    assert list(tmp_path.glob("detkit-web-*")) == []


def test_the_demo_of_files_never_imports_gradio() -> None:
    code = "import detkit.cli.main, sys; assert not {'gradio', 'uvicorn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environment())
