"""Heat maps of what a detector sees in a picture: how strong each pyramid level is, and how sure the RPN.

C channels, A anchors a cell, h x w cells of a level, H x W pixels.
"""

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from detkit.data.resize import resize_picture
from detkit.predict import Detector
from detkit.types import Picture
from detkit.visualize import picture_sheet

WIDTH = 320  # px of a map on the sheet


@torch.no_grad()
def heat_maps(detector: Detector, picture: Picture) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.float32]]]:
    """For each level of the RPN, finest first: stride, strength and objectness, both (H, W) of the resized picture.

    Strength is the length of the feature vector (C,) of a cell, objectness the best of its A anchors, in (0, 1).
    """
    data, model = detector.config.data, detector.model
    image = resize_picture(picture, detector.short_side, data.long_side, data.resize).to(detector.device)
    features = model.features([image])
    size = int(image.shape[1]), int(image.shape[2])
    for stride, feature, (objectness, _) in zip(
        model.rpn.anchors.strides, features, model.rpn.head(features), strict=True
    ):
        strength = feature[0].float().norm(dim=0)
        sure = objectness[0].float().amax(0).sigmoid()
        yield stride, at_pixels(strength.cpu().numpy(), stride, size), at_pixels(sure.cpu().numpy(), stride, size)


def at_pixels(cells: NDArray[np.float32], stride: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """Values of cells (h, w), interpolated at the pixels of a picture of `size` (H, W): cell i is at stride * i."""
    y, x = np.meshgrid(np.arange(size[0], dtype=np.float32), np.arange(size[1], dtype=np.float32), indexing="ij")
    moved = cv2.remap(cells, x / stride, y / stride, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.float32)


def heat_sheet(detector: Detector, picture: Picture) -> Picture:
    """Each level: its strength, from its weakest to its strongest cell, and objectness, up to the best of all."""
    levels = list(heat_maps(detector, picture))
    highest = max(float(sure.max()) for _, _, sure in levels)
    pictures, titles = [], []
    for stride, strength, sure in levels:
        low, high = float(strength.min()), float(strength.max())
        pictures += [_overlay(picture, (strength - low) / max(high - low, 1e-12)), _overlay(picture, sure / highest)]
        titles += [f"stride {stride}: features", f"objectness, at most {sure.max():.3f}"]
    return picture_sheet(pictures, titles, [""] * len(pictures))


def _overlay(picture: Picture, heat: NDArray[np.float32]) -> Picture:
    """The picture in grey under the colours of a map (H, W) in 0..1."""
    size = WIDTH, max(1, round(WIDTH * picture.shape[0] / picture.shape[1]))
    grey = cv2.cvtColor(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    levels = np.clip(cv2.resize(heat, size) * 255, 0, 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    mixed = cv2.addWeighted(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), 0.4, colours, 0.6, 0)
    return np.asarray(mixed, np.uint8)
