"""Box arithmetic. Boxes are (x1, y1, x2, y2) in pixels, x2 and y2 exclusive: width is x2 - x1.

N, M boxes; the last dimension is always 4.
"""

import torch
from torch import Tensor


def box_area(boxes: Tensor) -> Tensor:
    """Areas (N,) of boxes (N, 4), in square pixels."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_intersection(a: Tensor, b: Tensor) -> Tensor:
    """Areas shared by each of boxes a (N, 4) with each of boxes b (M, 4): (N, M)."""
    width = torch.minimum(a[:, None, 2], b[None, :, 2]) - torch.maximum(a[:, None, 0], b[None, :, 0])
    height = torch.minimum(a[:, None, 3], b[None, :, 3]) - torch.maximum(a[:, None, 1], b[None, :, 1])
    return width.clamp_(min=0) * height.clamp_(min=0)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of each of a (N, 4) with each of b (M, 4): (N, M) in [0, 1]; 0 for two empty boxes."""
    shared = pairwise_intersection(a, b)
    union = box_area(a)[:, None] + box_area(b)[None, :] - shared
    return torch.where(union > 0, shared / union, torch.zeros_like(shared))


def pairwise_coverage(a: Tensor, b: Tensor) -> Tensor:
    """Share of each box of a (N, 4) that lies in each box of b (M, 4): (N, M), intersection over the area of a."""
    return pairwise_intersection(a, b) / box_area(a).clamp(min=1e-6)[:, None]


def clip_boxes(boxes: Tensor, height: float, width: float) -> Tensor:
    """Boxes (N, 4) cut at the edges of a picture of the given size."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack((x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)), dim=-1)


def scale_boxes(boxes: Tensor, scale_y: float, scale_x: float) -> Tensor:
    """Boxes (N, 4) of a picture that is resized by the two factors."""
    return boxes * boxes.new_tensor((scale_x, scale_y, scale_x, scale_y))


def clip_and_scale_back(boxes: Tensor, size: tuple[int, int], original: tuple[int, int]) -> Tensor:
    """Boxes (N, 4) found in a picture resized to `size`, in pixels of the `original`; both are (height, width)."""
    scaled = scale_boxes(boxes, original[0] / size[0], original[1] / size[1])
    return clip_boxes(scaled, *original)
