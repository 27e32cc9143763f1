"""Running a predictor over a data set: from batches to detections in pixels of the original pictures."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from detkit.boxes import clip_and_scale_back
from detkit.evaluation.losses import LossMeans
from detkit.types import Batch, Detection, Meta

Predict = Callable[[list[Tensor]], list[Detection]]
PredictBatch = Callable[[Batch], list[Detection]]


def predictor(model: nn.Module, device: torch.device, precision: str) -> Predict:
    """`model.predict` for pictures that lie on the CPU: copies them to `device`, computes in bfloat16 where asked."""

    def predict(images: list[Tensor]) -> list[Detection]:
        moved = [image.to(device) for image in images]
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            return model.predict(moved)  # type: ignore[operator]

    return predict


def predictor_with_losses(model: nn.Module, device: torch.device, precision: str, means: LossMeans) -> PredictBatch:
    """The detections of `predictor`, for whole batches, whose losses are added to `means`.

    What the losses draw at random depends on the first picture of a batch alone, and leaves no trace in the generators.
    """

    def predict(batch: Batch) -> list[Detection]:
        moved = batch.to(device)
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"),
        ):
            torch.manual_seed(batch.metas[0]["image_id"])
            detections, losses = model.predict_with_losses(moved.images, moved.targets)  # type: ignore[operator]
        means.add(losses, len(batch.images))
        return detections

    return predict


def predict_all(
    predict: Predict, batches: Iterable[Batch], progress: Callable[[int], None] | None = None
) -> tuple[list[Detection], list[Meta]]:
    """Detections of every picture, on the CPU, scaled back to the original picture and clipped to it.

    `predict` (a model, an ONNX session, ...) maps the pictures of a batch, as the loader gives them, to
    detections in their pixels. `progress` is called with the number of pictures of each batch that is done.
    """
    return predict_batches(lambda batch: predict(batch.images), batches, progress)


@torch.no_grad()
def predict_batches(
    predict: PredictBatch, batches: Iterable[Batch], progress: Callable[[int], None] | None = None
) -> tuple[list[Detection], list[Meta]]:
    """As `predict_all`, for what also looks at the targets."""
    detections: list[Detection] = []
    metas: list[Meta] = []
    for batch in batches:
        found = predict(batch)
        for detection, image, meta in zip(found, batch.images, batch.metas, strict=True):
            detections.append(to_original(detection, (image.shape[-2], image.shape[-1]), meta))
        metas.extend(batch.metas)
        if progress is not None:
            progress(len(batch.images))
    return detections, metas


def to_original(detection: Detection, size: tuple[int, int], meta: Meta) -> Detection:
    """A detection found in a picture of `size` (height, width), in pixels of the original; on the CPU.

    Boxes of which nothing is left inside the picture are dropped.
    """
    boxes = detection["boxes"].detach().float().cpu()
    boxes = clip_and_scale_back(boxes, size, (meta["height"], meta["width"]))
    keep = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    labels, scores = detection["labels"].cpu(), detection["scores"].detach().float().cpu()
    return Detection(boxes=boxes[keep], labels=labels[keep], scores=scores[keep])
