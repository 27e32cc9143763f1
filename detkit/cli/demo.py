"""`detkit demo CHECKPOINT PICTURE|VIDEO|FOLDER|GLOB ... --output out/`: draw what a detector finds."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from detkit.cli.closer import Overlap, Slice, Tta, closer
from detkit.cli.demo_files import find_files, is_video, target_files
from detkit.cli.demo_findings import Findings
from detkit.cli.errors import Debug, run_command, split_overrides
from detkit.cli.output import print_choice
from detkit.cli.thresholds import chosen_threshold
from detkit.cli.web import HOST, PORT, Host, Port, serve_page
from detkit.engine.signals import StopSignals
from detkit.predict import Detector
from detkit.types import Detect
from detkit.validation import show_progress
from detkit.video import count_frames

Pictures = Annotated[
    list[str] | None,
    typer.Argument(
        help="Pictures, videos, folders, patterns such as 'a/*.jpg'; and section.key=value overrides.",
        show_default=False,
    ),
]
Score = Annotated[str, typer.Option(help="Draw and write detections from this score on; auto: each class's own.")]


def demo(
    checkpoint: Annotated[Path, typer.Argument(help="best.pth or last.pth of a run, or coco:NAME.")],
    pictures: Pictures = None,
    output: Annotated[Path, typer.Option(help="Folder for what is drawn, and the detections.")] = Path("out"),
    score: Score = "0.5",
    tile: Slice = None,
    overlap: Overlap = None,
    tta: Tta = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16.")] = "auto",
    web: Annotated[bool, typer.Option("--web", help="Serve a page to drop pictures into instead.")] = False,
    host: Host = HOST,
    port: Port = PORT,
    debug: Debug = False,
) -> None:
    """Detect on pictures and videos: draws boxes; writes predictions.json (COCO's result format) and images.json.

    A video becomes NAME.webm, without its sound, and NAME.webm.json with the detections of each frame.
    """
    sources, overrides = split_overrides(pictures or [])

    def look(detector: Detector) -> Detect:
        return closer(detector, tile, overlap, tta) or detector.detect

    if web:
        serve_page(checkpoint, sources, overrides, score, look, device, precision, host, port)
        return
    files = find_files(sources, output)
    targets = target_files(files, output)
    detector = Detector.load(checkpoint, device, precision, overrides)
    threshold = chosen_threshold(score, detector)
    console = Console()
    print_choice(console, detector.model, detector.device, detector.precision, detector.precision_reason)
    output.mkdir(parents=True, exist_ok=True)
    findings = Findings(look(detector), detector.classes, detector.category_ids, threshold)
    with StopSignals() as signals, signals.immediate():
        _look_at(files, targets, findings)
        findings.write(output)
    findings.print(console, output)
    findings.check(len(files))


def _look_at(files: Sequence[Path], targets: Sequence[Path], findings: Findings) -> None:
    """Detect on each file, under a bar over pictures and frames."""
    lengths = [count_frames(file) if is_video(file) else 1 for file in files]
    ends = accumulate(lengths)
    with show_progress("detecting") as progress:
        task = progress.add_task("", total=sum(lengths))
        for number, (file, target, end) in enumerate(zip(files, targets, ends, strict=True), start=1):
            if is_video(file):
                findings.look_at_video(file, target, lambda: progress.advance(task))
            else:
                findings.look_at_picture(number, file, target)
            progress.update(task, completed=end)  # what a video states is not always what it has


def main() -> None:
    """Entry point of tools/demo.py."""
    run_command(demo)
