"""A picture from pixels to detections: detkit's Detector against torchvision's fasterrcnn_resnet50_fpn.

The other side is float32 always: bfloat16 is what detkit chooses by itself where the processor has it.
"""

from collections.abc import Callable

import torch
from measure import Json, Quick, Row, Runs, Side, alternate, report
from twins import detkit_twin, picture, torchvision_twin

from detkit.cli.errors import run_command
from detkit.predict import Detector
from detkit.types import Detection

GOALS = {"float32": 1.5, "bfloat16": 3.0}


def main(
    height: Side = 800, width: Side = 1088, precision: str = "float32", runs: Runs = 5, quick: Quick = False,
    json: Json = None,
) -> None:  # fmt: skip
    """Time both on one picture and compare what they find."""
    if precision not in GOALS:
        raise ValueError(f"--precision: expected {' or '.join(GOALS)}, got {precision!r}")
    if quick:
        height, width, runs = 96, 128, 1
    ours, theirs = build_sides((height, width), precision, quick)
    expected, found = theirs(), ours()
    seconds = alternate({"ours": ours, "theirs": theirs}, runs, warmup=0)
    missed, pixels = differences(found, expected)
    # bfloat16 has three digits: whether it is good enough is a matter of AP, see bf16_accuracy.py
    agrees = missed == 0 and len(found["boxes"]) == len(expected["boxes"]) if precision == "float32" else None
    row = Row(
        f"inference {height}x{width}, {precision}",
        f"{seconds['ours']:.3f} s",
        f"{seconds['theirs']:.3f} s",
        seconds["theirs"] / seconds["ours"],
        GOALS[precision],
        agrees,
        f"{len(expected['boxes'])} detections, {missed} not found, others at most {pixels:.4f} px apart",
    )
    report([row], json)


def build_sides(
    size: tuple[int, int], precision: str, quick: bool
) -> tuple[Callable[[], Detection], Callable[[], Detection]]:
    """detkit's and torchvision's way from a picture of `size` (height, width) to its detections."""
    model = torchvision_twin(size, quick).eval()
    twin, config, classes = detkit_twin(model)
    detector = Detector(twin, config, classes, range(len(classes)), torch.device("cpu"), precision)
    array = picture(size)
    tensor = torch.from_numpy(array).permute(2, 0, 1).float() / 255

    @torch.inference_mode()
    def run_theirs() -> Detection:
        (found,) = model([tensor])
        return {"boxes": found["boxes"], "labels": found["labels"] - 1, "scores": found["scores"]}

    return lambda: detector([array])[0], run_theirs


def differences(found: Detection, expected: Detection) -> tuple[int, float]:
    """How many expected boxes have none of their label within 0.1 px, and how far the others lie, px."""
    if not len(expected["boxes"]) or not len(found["boxes"]):
        return len(expected["boxes"]), 0.0
    apart = (found["boxes"][:, None] - expected["boxes"]).abs().amax(-1)
    nearest = apart.masked_fill(found["labels"][:, None] != expected["labels"], float("inf")).amin(0)
    near = nearest[nearest <= 0.1]
    return len(nearest) - len(near), float(near.amax()) if len(near) else 0.0


if __name__ == "__main__":
    run_command(main)
