"""Where the time of a detector goes, part by part, held against what the machine's matrix product allows.

Parts are timed by hooks around the modules; what lies between them (top-k, decoding, NMS, losses) is what is left.
Multiply-adds are those of convolutions and matrix products by their definition: a part that gets by with fewer
(`winograd.py`) may do better than the peak.
"""

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detkit.convolution import plain_convolutions
from detkit.data.pictures import read_picture
from detkit.data.resize import ResizeKind, resize_picture, resized_size
from detkit.engine.schedule import build_optimizer
from detkit.engine.step import Precision, Stepper
from detkit.evaluation.run import predictor
from detkit.models.faster_rcnn import FasterRCNN
from detkit.norm import fold_norm
from detkit.types import Batch, Meta, Target

STORED_SIDE = 480  # short side in px of the file that is loaded, as COCO's are
STORED_LONG_SIDE = 4000
LAST_PARTS = ("decoding, NMS", "sampling, losses", "backward, update")  # begun before the parts within them
OBJECTS = 8  # boxes a picture in training

Clock = Callable[[], float]


@dataclass(frozen=True)
class Part:
    """Median seconds of a part in a run, and its multiply-adds."""

    name: str
    seconds: float
    multiply_adds: int


@dataclass(frozen=True)
class Profile:
    """`parts` add up to `seconds`, a run of `batch` pictures of `size` (height, width). `peak`: GFLOP/s."""

    parts: tuple[Part, ...]
    seconds: float
    multiply_adds: int
    peak: float
    size: tuple[int, int]
    batch: int
    train: bool
    device: str
    precision: str
    threads: int
    runs: int


def profile_detector(
    model: FasterRCNN,
    size: tuple[int, int],
    *,
    train: bool = False,
    batch: int = 1,
    runs: int = 5,
    device: torch.device | None = None,
    precision: Precision = "float32",
    resize: ResizeKind = "opencv",
    progress: Callable[[], None] = lambda: None,
) -> Profile:
    """Profile prediction from a picture file on, or a training step, on drawn pictures of `size` (height, width).

    `progress` is called after each of the runs + 2.
    """
    device = device or torch.device("cpu")
    model = model.to(device) if train else fold_norm(model).to(device)
    if train:
        run = _training(model, size, batch, device, precision)
    else:
        run = _prediction(model, size, batch, precision, resize)
    clock = _clock(device)
    timed = []
    for _ in range(runs + 1):
        timed.append(run(clock))
        progress()
    with flop_counter(model) as counter:
        flops = run(counter.get_total_flops)
    progress()
    names = sorted(flops, key=lambda name: LAST_PARTS.index(name) if name in LAST_PARTS else -1)
    seconds = {name: statistics.median(spent[name] for spent in timed[1:]) for name in names}
    parts = tuple(Part(name, seconds[name], int(flops[name]) // 2) for name in names)
    dtype = torch.float32 if precision == "float32" else getattr(torch, precision)
    return Profile(
        parts, sum(seconds.values()), sum(part.multiply_adds for part in parts), matrix_peak(device, dtype), size,
        batch, train, str(device), precision, torch.get_num_threads(), runs,
    )  # fmt: skip


@contextmanager
def flop_counter(model: nn.Module) -> Iterator[FlopCounterMode]:
    """torch's counter of the operations that convolutions and products take by definition, also those with groups."""
    mapping = {torch.ops.aten.convolution_backward: _backward_flops}
    with plain_convolutions(model), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        yield counter


def _backward_flops(
    gradient: Sequence[int], maps: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Sequence[Any], **__: Any
) -> int:
    """Each gradient of a convolution takes as many as itself; torch forgets the groups of the weights' gradient."""
    count = prod(gradient) * prod(weight[1:])
    return 2 * count * sum(shape is not None for shape in out_shape[:2])


def matrix_peak(
    device: torch.device, dtype: torch.dtype, side: int = 2048, runs: int = 5, longest: float = 1.0
) -> float:
    """GFLOP/s of the fastest of some products of square matrices: what the machine gives at most.

    Matrices of `side`, or smaller ones where a product would take over `longest` seconds, as in an emulated type.
    """
    size = min(side, 256)
    while size < side and 8 * min(_product_seconds(device, dtype, size, 1)) < longest:
        size = min(2 * size, side)
    return 2 * size**3 / min(_product_seconds(device, dtype, size, runs)) / 1e9


def _product_seconds(device: torch.device, dtype: torch.dtype, side: int, runs: int) -> list[float]:
    """Of each of some products, after one that is not counted."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    clock, seconds = _clock(device), []
    for _ in range(runs + 1):
        started = clock()
        a @ b
        seconds.append(clock() - started)
    return seconds[1:]


def _clock(device: torch.device) -> Clock:
    """Seconds, read when the device has done what it was given."""
    if device.type != "cuda":
        return time.perf_counter

    def synchronised() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronised


class Meter:
    """What a clock (of seconds, or of operations) advances within named parts; parts within parts count once."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.spent: dict[str, float] = defaultdict(float)
        self._open: list[list[Any]] = []  # name, begin, what parts within took

    @contextmanager
    def part(self, name: str) -> Any:
        """Count what runs within, less what parts within it count."""
        self._begin(name)
        yield
        self._end()

    @contextmanager
    def modules(self, named: Mapping[str, nn.Module]) -> Any:
        """Count the forward passes of some modules."""
        with ExitStack() as stack:
            for name, module in named.items():
                hooks = (
                    module.register_forward_pre_hook(lambda *_, name=name: self._begin(name)),
                    module.register_forward_hook(lambda *_: self._end()),
                )
                for hook in hooks:
                    stack.callback(hook.remove)
            yield

    def _begin(self, name: str) -> None:
        self.spent[name] += 0.0  # the order in which parts begin
        self._open.append([name, self.clock(), 0.0])

    def _end(self) -> None:
        name, began, within = self._open.pop()
        passed = self.clock() - began
        self.spent[name] += passed - within
        if self._open:
            self._open[-1][2] += passed


def _parts(model: FasterRCNN) -> dict[str, nn.Module]:
    return {
        "backbone": model.backbone,
        "neck": model.neck,
        "RPN: proposals": model.rpn,
        "RPN: convolutions": model.rpn.head,
        "RoI pooling": model.roi_head.pooler,
        "box head": model.roi_head.box_head,
    }


def _prediction(
    model: FasterRCNN, size: tuple[int, int], batch: int, precision: Precision, resize: ResizeKind
) -> Callable[[Clock], dict[str, float]]:
    """From files to detections; what is left is NMS over classes and the decoding before it."""
    model.eval()
    predict = predictor(model, model.pixel_mean.device, precision)
    stored = _drawn(*stored_size(size, resize))

    def run(clock: Clock) -> dict[str, float]:
        meter = Meter(clock)
        with tempfile.TemporaryDirectory() as folder, meter.modules(_parts(model)):
            file = Path(folder) / "picture.jpg"
            cv2.imwrite(str(file), stored)
            with meter.part("load"):
                pictures = [read_picture(file) for _ in range(batch)]
            with meter.part("resize"):
                images = [resize_picture(picture, min(size), max(size), resize) for picture in pictures]
            with meter.part("decoding, NMS"):
                predict(images)
        return meter.spent

    return run


def stored_size(size: tuple[int, int], kind: ResizeKind) -> tuple[int, int]:
    """Of a picture (height, width) that resizing makes one of `size`; `size` itself where there is no fitting one."""
    scale = STORED_SIDE / min(size)
    stored = round(size[0] * scale), round(size[1] * scale)
    fits = max(stored) <= STORED_LONG_SIDE and resized_size(*stored, min(size), max(size), kind) == size
    return stored if fits else size


def _training(
    model: FasterRCNN, size: tuple[int, int], batch: int, device: torch.device, precision: Precision
) -> Callable[[Clock], dict[str, float]]:
    """A step with SGD; what is left of the forward pass are the losses of the RoI head and the sampling."""
    optimizer = build_optimizer(model, "sgd", 1e-6, 1e-4)
    stepper = Stepper(model.train(), optimizer, device, precision)
    pictures = _batch(batch, size, model.roi_head.box_head.num_classes)

    def run(clock: Clock) -> dict[str, float]:
        meter = Meter(clock)
        with meter.modules({"sampling, losses": model, **_parts(model)}), meter.part("backward, update"):
            stepper.step([pictures], 1)
        return meter.spent

    return run


def _batch(count: int, size: tuple[int, int], classes: int) -> Batch:
    rng = np.random.default_rng(0)
    images: list[Tensor] = []
    targets: list[Target] = []
    for _ in range(count):
        images.append(torch.from_numpy(np.ascontiguousarray(_drawn(*size).transpose(2, 0, 1))))
        corner, extent = rng.random((OBJECTS, 2)) * 0.6, 0.1 + rng.random((OBJECTS, 2)) * 0.3
        boxes = np.concatenate((corner, corner + extent), axis=1) * (size[1], size[0], size[1], size[0])
        labels = torch.from_numpy(rng.integers(0, classes, OBJECTS))
        targets.append({"boxes": torch.from_numpy(boxes.astype(np.float32)), "labels": labels})
    metas: list[Meta] = [{"image_id": i, "file_name": "", "height": size[0], "width": size[1]} for i in range(count)]
    return Batch(images, targets, metas)


def _drawn(height: int, width: int) -> Any:
    """Soft blobs of colour (H, W, 3) uint8."""
    blobs = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    return cv2.resize(blobs, (width, height), interpolation=cv2.INTER_CUBIC)
