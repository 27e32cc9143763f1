"""How much AP a trained detector loses in bfloat16.

`--checkpoint` names a detector that was trained, whose validation split is scored in both precisions. Without one a
ResNet-18-FPN is trained on Shapes for some minutes first.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from measure import Count, Json, Quick, Row, report
from rich.console import Console

from detkit.cli.errors import run_command
from detkit.cli.evaluate import score_checkpoint
from detkit.cli.train import run_training
from detkit.config import load_config
from detkit.predict import Detector

ALLOWED = 0.3  # points of AP


def main(
    checkpoint: Annotated[Path | None, typer.Option(help="best.pth of a run.")] = None,
    iterations: Count = 400,
    quick: Quick = False,
    json: Json = None,
) -> None:
    """Score a detector twice."""
    with tempfile.TemporaryDirectory() as folder:
        if checkpoint is None:
            checkpoint = train(Path(folder), 3 if quick else iterations, quick)
        points = {name: average_precision(checkpoint, name) for name in ("float32", "bfloat16")}
    lost = points["float32"] - points["bfloat16"]
    row = Row(
        "AP of a trained detector in bfloat16, against float32",
        f"{points['bfloat16']:.2f}",
        f"{points['float32']:.2f}",
        None,
        None,
        None if quick else abs(lost) <= ALLOWED,
        f"{lost:+.2f} points of AP lost, at most {ALLOWED} allowed",
    )
    report([row], json)


def average_precision(checkpoint: Path, precision: str) -> float:
    """AP in points, 0 to 100, on the validation split that the checkpoint's config names."""
    detector = Detector.load(checkpoint, "cpu", precision)
    return 100 * score_checkpoint(detector, "hotcoco", 4).evaluation.metrics["AP"]


def train(folder: Path, iterations: int, quick: bool) -> Path:
    """The best checkpoint of a run on Shapes in `folder`."""
    config = load_config("fpn_resnet18").replace(
        {"train.iterations": iterations, "train.output": str(folder / "run"), "train.eval_every": 1000,
         "train.precision": "float32", "data.limit": 8 if quick else None}
    )  # fmt: skip
    _, run = run_training(config, False, Console(stderr=True))
    return run / "best.pth"


if __name__ == "__main__":
    run_command(main)
