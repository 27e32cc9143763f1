"""`detkit demo CHECKPOINT --web`: the page, where one drops pictures, in place of files."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from detkit.cli.output import print_choice, say
from detkit.cli.thresholds import chosen_threshold
from detkit.predict import Detector
from detkit.types import Detect

HOST, PORT = "127.0.0.1", 7860
Host = Annotated[str, typer.Option(help="Of the page: 0.0.0.0 lets other machines see it.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 takes a free one.")]


def serve_page(
    checkpoint: Path,
    sources: Sequence[str],
    overrides: Sequence[str],
    score: str,
    look: Callable[[Detector], Detect],
    device: str,
    precision: str,
    host: str,
    port: int,
) -> None:
    """Serve the page of a checkpoint until a signal ends it, exit status 130 after Ctrl-C.

    `score` is where the slider begins, `look` makes of a detector what runs on pictures. Raises ValueError where gradio
    is missing, pictures are named, the score is no number, or the address cannot be had.
    """
    if sources:
        raise ValueError(f"--web: pictures are dropped into the page, but {sources[0]!r} is named on the command line")
    if find_spec("gradio") is None:
        raise ValueError("the page needs gradio, which is not installed: pip install 'detkit[web]'")
    from detkit.web.serving import Address, Show, serve  # gradio takes a second to import

    console = Console()
    with Address(host, port) as address:
        detector = Detector.load(checkpoint, device, precision, overrides)
        threshold = chosen_threshold(score, detector)
        if not isinstance(threshold, float):
            raise ValueError("--web: --score takes a number, where the page's slider begins")
        print_choice(console, detector.model, detector.device, detector.precision, detector.precision_reason)
        show = Show(detector, look(detector), checkpoint.name, threshold)
        serve(show, address, lambda text: say(console, text))
