"""Resizing to a short side with a cap on the long side: one function for training, evaluation and prediction.

opencv: uint8, bilinear, sizes rounded half up; the default.
torch: float32, bilinear, sizes rounded down: torchvision's GeneralizedRCNNTransform.
pillow: uint8, bilinear over the whole footprint of a pixel, sizes rounded half up: detectron2's ResizeShortestEdge.
"""

from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

ResizeKind = Literal["opencv", "torch", "pillow"]


def resized_size(height: int, width: int, short_side: int, long_side: int, kind: ResizeKind) -> tuple[int, int]:
    """(height, width) with the short side `short_side`, or less where the long side would exceed `long_side`; px."""
    scale = _scale(height, width, short_side, long_side)
    if kind == "torch":
        new_height, new_width = int(height * scale), int(width * scale)
    else:
        new_height, new_width = int(height * scale + 0.5), int(width * scale + 0.5)
    return min(max(new_height, 1), long_side), min(max(new_width, 1), long_side)


def resize_picture(picture: NDArray[np.uint8], short_side: int, long_side: int, kind: ResizeKind = "opencv") -> Tensor:
    """Picture (H, W, 3) uint8 RGB -> (3, h, w), uint8, or float32 in 0..255 of kind torch."""
    height, width = picture.shape[:2]
    size = resized_size(height, width, short_side, long_side, kind)
    if kind == "torch":
        return _resize_torch(picture, size, _scale(height, width, short_side, long_side))
    if size != (height, width):
        if kind == "opencv":
            picture = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
        else:
            picture = np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BILINEAR))
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))


def median_short_side(heights: ArrayLike, widths: ArrayLike, cap: int = 800) -> int:
    """The median of the pictures' short sides in px, at most `cap`."""
    return min(int(np.median(np.minimum(heights, widths))), cap)


def _scale(height: int, width: int, short_side: int, long_side: int) -> float:
    return min(short_side / min(height, width), long_side / max(height, width))


def _resize_torch(picture: NDArray[np.uint8], size: tuple[int, int], scale: float) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))).to(torch.float32)
    if size == picture.shape[:2]:
        return tensor
    if size == (int(tensor.shape[1] * scale), int(tensor.shape[2] * scale)):
        # Given the scale, torch derives size and step by itself, as in torchvision, to the same bits.
        return interpolate(
            tensor[None], scale_factor=scale, mode="bilinear", align_corners=False, recompute_scale_factor=True
        )[0]
    return interpolate(tensor[None], size=size, mode="bilinear", align_corners=False)[0]
