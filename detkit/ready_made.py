"""Checkpoints by path, and `coco:NAME`: detectors that torchvision trained on COCO, fetched and imported once."""

import os
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torchvision.models import WeightsEnum
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_V2_Weights, FasterRCNN_ResNet50_FPN_Weights

from detkit.engine.checkpoint import load_checkpoint, save_checkpoint
from detkit.importing import LIBRARIES, convert
from detkit.weights import DAMAGED, State, why_unreadable, without_advice

PREFIX = "coco:"
# With the eps of their backbone's batch norm: the first was trained and published with 0.
DETECTORS: dict[str, tuple[WeightsEnum, float]] = {
    "fasterrcnn_resnet50_fpn": (FasterRCNN_ResNet50_FPN_Weights.COCO_V1, 0.0),
    "fasterrcnn_resnet50_fpn_v2": (FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1, 1e-5),
}
# Raised when an import would give another checkpoint than before, so that old ones in the cache are made anew.
VERSION = 2


def open_checkpoint(source: str | Path) -> dict[str, Any]:
    """The checkpoint of a path, or of `coco:NAME`. Raises ValueError as `load_checkpoint` and `coco_detector` do."""
    text = str(source)
    if text.startswith(PREFIX):
        return coco_detector(text.removeprefix(PREFIX))
    return load_checkpoint(Path(text).expanduser())


def coco_detector(name: str) -> dict[str, Any]:
    """The checkpoint of a detector that torchvision trained on COCO, from torch's cache or by download.

    A file that was put into the cache by hand is taken as it is: torch compares its hash when it downloads only. The
    imported checkpoint is kept in the folder `detkit` of that cache. Raises ValueError for an unknown name, and
    where the weights are neither there nor can be had.
    """
    if name not in DETECTORS:
        raise ValueError(
            f"no detector {PREFIX}{name}: the names are {', '.join(PREFIX + known for known in DETECTORS)}"
        )
    weights, eps = DETECTORS[name]
    fetched = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    imported = fetched.parent / "detkit" / f"{fetched.stem}-{VERSION}.pth"
    if imported.is_file() and not (fetched.is_file() and fetched.stat().st_mtime > imported.stat().st_mtime):
        try:
            return load_checkpoint(imported)
        except ValueError:
            pass  # damaged: made anew
    try:
        checkpoint = _import(_fetch(weights, fetched), fetched, eps)
    except ValueError as error:
        raise ValueError(f"{PREFIX}{name}: {error}") from None
    _keep(imported, checkpoint)
    return checkpoint


def _import(state: State, file: Path, eps: float) -> dict[str, Any]:
    try:
        imported = convert(state, LIBRARIES["torchvision"], "torchvision", eps)
        if not imported.is_detector:
            raise ValueError(f"it holds the backbone {imported.backbone} alone")
    except ValueError as error:
        raise ValueError(
            f"{file} is not the detector that torchvision publishes under this name ({error}): remove it, so that it "
            "is fetched again"
        ) from None
    return imported.content


def _fetch(weights: WeightsEnum, file: Path) -> State:
    there = file.is_file()
    try:
        with without_advice():
            return dict(weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True))
    except (pickle.UnpicklingError, *DAMAGED) as error:  # urllib's errors are OSErrors
        reason = why_unreadable(error)
    if there:
        raise ValueError(f"{file} cannot be read ({reason}): remove it, so that it is fetched again")
    raise ValueError(f"cannot get {weights.url} ({reason}): download that file and put it into {file.parent}")


def _keep(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write the imported checkpoint whole or not at all; processes that do so at the same time do not meet."""
    own = path.with_name(f"{path.stem}.{os.getpid()}.pth")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(own, checkpoint)
        own.replace(path)
    except OSError as error:
        warnings.warn(f"the imported detector is not kept, and imported again the next time: {error}", stacklevel=2)
