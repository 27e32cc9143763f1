"""Box deltas (R-CNN, appendix C): a shift of the centre in units of the anchor, and the logarithm of the growth."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Growth beyond this factor comes only from a broken delta; exp() of it would overflow. Detectron's constant.
MAX_LOG_GROWTH = math.log(1000.0 / 16)


class BoxCoder(nn.Module):
    """Encodes boxes relative to anchors or proposals. `decode(encode(boxes, anchors), anchors)` is `boxes`.

    `weights` multiply the four deltas (dx, dy, dw, dh), so that their spread is about one.
    """

    weights: Tensor

    def __init__(self, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> None:
        super().__init__()
        # a buffer, as a copy from the host in each step would make a GPU wait
        self.register_buffer("weights", torch.tensor(tuple(weights)), persistent=False)

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Deltas (N, 4) that turn anchors (N, 4) into boxes (N, 4). All boxes must have positive width and height."""
        centre, size = _centre_size(boxes)
        anchor_centre, anchor_size = _centre_size(anchors)
        deltas = torch.cat(((centre - anchor_centre) / anchor_size, (size / anchor_size).log()), dim=-1)
        return deltas * self.weights

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Boxes (..., 4) that deltas (..., 4) make of anchors (..., 4), computed in float32."""
        deltas = deltas.float() / self.weights
        centre, size = _centre_size(anchors)
        centre = centre + deltas[..., :2] * size
        half = size * deltas[..., 2:].clamp(max=MAX_LOG_GROWTH).exp() / 2
        return torch.cat((centre - half, centre + half), dim=-1)


def _centre_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low
