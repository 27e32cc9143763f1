"""Make the README's screens again: `python docs/make_screens.py runs/fpn_r50/best.pth`, a run on Shapes.

A function for each screen; it gets the checkpoint and the folder to write to. It needs a Chromium and
`pip install -e '.[web,browser]'`.
"""

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright
from terminal import terminal_html

from detkit.predict import Detector
from detkit.web.serving import Address, Show, build_server

SCREENS = Path(__file__).parent / "screens"
OFFLINE = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def training(checkpoint: Path, folder: Path) -> None:
    """The terminal in the middle of a short training; the checkpoint is not needed."""
    options = ["data.limit=96", "train.epochs=2", "train.eval_every=1", "train.log_every=6"]
    with tempfile.TemporaryDirectory() as run:
        command = [sys.executable, "-m", "detkit", "train", "fpn_r50", *options, f"train.output={run}/fpn_r50"]
        seen = terminal_html(f"detkit train fpn_r50 {' '.join(options)}", command, r"step 12 AP.*18/24.*epoch 2")
        seen = seen.replace(f"{run}/", "runs/")
    with browser() as chromium:
        tab = chromium.new_page(viewport={"width": 860, "height": 100})
        tab.set_content(seen)
        save(tab.screenshot(full_page=True), folder / "training.png")


def report(checkpoint: Path, folder: Path) -> None:
    """The top of `detkit eval CHECKPOINT --report`."""
    with tempfile.TemporaryDirectory() as written, browser() as chromium:
        file = Path(written) / "report.html"
        subprocess.run([sys.executable, "-m", "detkit", "eval", checkpoint, "--report", file], check=True)
        tab = chromium.new_page(viewport={"width": 1100, "height": 1000})
        tab.goto(file.as_uri())
        save(tab.screenshot(), folder / "report.png")


def page(checkpoint: Path, folder: Path) -> None:
    """`detkit demo CHECKPOINT --web` with an example of the validation split."""
    detector = Detector.load(checkpoint)
    with served(Show(detector, detector.detect, checkpoint.name, 0.5)) as url, browser() as chromium:
        tab = chromium.new_page(viewport={"width": 1280, "height": 900})
        tab.goto(url)
        tab.locator("#examples button.thumbnail-item").nth(5).click()
        tab.wait_for_selector("#found .count", timeout=60_000)
        tab.wait_for_timeout(1000)
        save(tab.screenshot(full_page=True), folder / "page.png")


@contextmanager
def served(show: Show) -> Iterator[str]:
    """The page at a free port of this machine."""
    with tempfile.TemporaryDirectory() as folder, Address("127.0.0.1", 0) as address:
        server = build_server(show, address, Path(folder))
        thread = threading.Thread(target=server.run, args=([address.socket],))
        thread.start()
        while not server.started:
            time.sleep(0.1)
        try:
            yield address.url
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def browser() -> Iterator[Any]:
    """Headless Chromium, that of the system."""
    with sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=shutil.which("chromium"), args=OFFLINE)
        yield chromium
        chromium.close()


def save(picture: bytes, path: Path) -> None:
    """Write a screen with 256 colours: a third of its size."""
    with tempfile.TemporaryDirectory() as folder:
        full = Path(folder, path.name)
        full.write_bytes(picture)
        Image.open(full).convert("RGB").quantize(256).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


MAKERS: tuple[Callable[[Path, Path], None], ...] = (training, report, page)


def main() -> None:
    """Make all screens."""
    if len(sys.argv) < 2:
        sys.exit(f"usage: python docs/make_screens.py CHECKPOINT [{'] ['.join(make.__name__ for make in MAKERS)}]")
    SCREENS.mkdir(exist_ok=True)
    for make in MAKERS:
        if make.__name__ in sys.argv[2:] or len(sys.argv) == 2:
            make(Path(sys.argv[1]), SCREENS)


if __name__ == "__main__":
    main()
