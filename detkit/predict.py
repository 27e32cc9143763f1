"""Detector: a checkpoint file alone, to predictions on pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detkit.build import build_detector, choose_device, choose_precision
from detkit.config import Config, config_from_dict, parse_overrides
from detkit.data.pictures import read_picture
from detkit.data.resize import resize_picture
from detkit.engine.checkpoint import best_weights
from detkit.evaluation.run import to_original
from detkit.merging import select
from detkit.models.faster_rcnn import FasterRCNN
from detkit.norm import fold_norm
from detkit.ready_made import open_checkpoint
from detkit.types import Detection, Picture, Proposals


class Detector:
    """A trained detector, ready to look at pictures.

        detector = Detector.load("runs/fpn_r50/best.pth")
        detections = detector(["a.jpg", array_rgb_uint8])

    `classes`: names by label; `category_ids`: those of the data set, None for an output that is no class (COCO's nets
    of 91 outputs have ten), which is never among the detections. `config`: as it was trained.
    `model`: the FasterRCNN, in eval mode, its norm folded. `score_thresholds`: the best one for each label, as
    `detkit eval --write-thresholds` found them, None where nobody asked it. `evaluation`: the step of these weights and
    their metrics on the validation split, where the checkpoint has them. `precision_reason`: why it was chosen.
    """

    def __init__(
        self,
        model: FasterRCNN,
        config: Config,
        classes: Sequence[str],
        category_ids: Sequence[int | None],
        device: torch.device,
        precision: str,
        score_thresholds: Sequence[float] | None = None,
        evaluation: Mapping[str, float] | None = None,
        precision_reason: str = "as asked",
    ) -> None:
        self.model = fold_norm(model).to(device)
        self.config, self.classes, self.category_ids = config, tuple(classes), tuple(category_ids)
        self.device, self.precision, self.precision_reason = device, precision, precision_reason
        self.score_thresholds = None if score_thresholds is None else tuple(score_thresholds)
        self.evaluation = dict(evaluation or {})

    @classmethod
    def load(
        cls, path: str | Path, device: str = "auto", precision: str = "auto", overrides: Sequence[str] = ()
    ) -> "Detector":
        """The detector of a checkpoint file, which needs nothing else. `precision`: auto, float32, bfloat16.

        `path` may also be `coco:NAME`, a detector that torchvision trained on COCO (see ready_made.py). `overrides`
        change keys of its config, such as `model.score_threshold=0.3`. Raises ValueError when the file is no checkpoint
        of detkit, or its weights do not fit its config.
        """
        state = open_checkpoint(path)
        config = config_from_dict(state["config"]).replace(parse_overrides(overrides))
        if config.data.short_side == "auto":
            raise ValueError("data.short_side=auto is for training; give a number of pixels")
        if precision == "float16":
            raise ValueError("--precision: expected auto, float32 or bfloat16, got float16")
        model = trained_detector(path, state, config)
        chosen = choose_device(device)
        known = state["classes"], state["category_ids"]
        kept = state.get("score_thresholds"), state.get("evaluation")
        name, why = choose_precision(precision, chosen)
        return cls(model, config, *known, chosen, name, *kept, why)

    def __call__(self, pictures: Sequence[str | Path | Picture], batch_size: int = 1) -> list[Detection]:
        """Detections of each picture in its own pixels; files are turned as their EXIF data say.

        Arrays are (H, W, 3) RGB uint8. Raises ValueError for a file that is no picture, or another kind of array.
        """
        found: list[Detection] = []
        for first in range(0, len(pictures), batch_size):
            arrays = [_as_array(picture) for picture in pictures[first : first + batch_size]]
            found.extend(self.detect(arrays))
        return found

    def detect(self, pictures: Sequence[Picture], scale: float = 1.0) -> list[Detection]:
        """Detections of each of some RGB arrays, as one batch, in their own pixels.

        `scale` times as large as in training the detector sees them.
        """
        data = self.config.data
        short, long = round(self.short_side * scale), round(data.long_side * scale)
        images = [resize_picture(picture, short, long, data.resize) for picture in pictures]
        found = []
        for detection, image, picture in zip(self.predict(images), images, pictures, strict=True):
            meta: Any = {"height": picture.shape[0], "width": picture.shape[1]}
            found.append(to_original(detection, (image.shape[-2], image.shape[-1]), meta))
        return found

    def predict(self, images: list[Tensor]) -> list[Detection]:
        """Detections for resized pictures (3, h, w) in their pixels, as evaluation asks for."""
        return self.predict_with_proposals(images)[0]

    def predict_with_proposals(
        self, images: list[Tensor], at_least: int = 0
    ) -> tuple[list[Detection], list[Proposals]]:
        """What `predict` returns, and the proposals of the RPN; see `FasterRCNN.predict_with_proposals`."""
        moved = [image.to(self.device) for image in images]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            detections, proposals = self.model.predict_with_proposals(moved, at_least)
        return [self._of_classes(found) for found in detections], proposals

    def _of_classes(self, found: Detection) -> Detection:
        known = torch.tensor([number is not None for number in self.category_ids], device=found["labels"].device)
        return select(found, known[found["labels"]])

    @property
    def short_side(self) -> int:
        """To which the shorter side of a picture is resized, in pixels."""
        assert isinstance(self.config.data.short_side, int)  # `auto` is settled before a checkpoint is written
        return self.config.data.short_side


def trained_detector(path: str | Path, state: dict[str, Any], config: Config) -> FasterRCNN:
    """The model of a config with the weights of the checkpoint `state`, which was read from `path`.

    Raises ValueError when they do not fit.
    """
    model = build_detector(config.model, len(state["classes"]), pretrained=False)
    try:
        model.load_state_dict(best_weights(state))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path}: the weights do not fit the checkpoint's config: {reason}") from None
    return model


def _as_array(picture: str | Path | Picture) -> Picture:
    if isinstance(picture, (str, Path)):
        return read_picture(Path(picture))
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ValueError(f"expected an RGB picture (H, W, 3) of uint8, got {picture.shape} of {picture.dtype}")
    return picture
