"""RoIAlign (Mask R-CNN, section 3) over one map or over the levels of a pyramid.

N RoIs, C channels, H x W cells of a map, S x S bins, T contributions a bin, M cells of all maps together.

RoIAlign is linear in the map: a bin is a weighted sum of cells, with the same weights for every channel. On a CPU
the cells of a channels-last map are the rows of an (M, C) matrix, so a bin is one weighted bag of rows; the gradient
is the same sum with the roles of cells and bins exchanged. On other devices torchvision's operator does the work.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import ops


def roi_align(
    features: Tensor,
    rois: Tensor,
    output_size: int,
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """torchvision.ops.roi_align with square output: map (B, C, H, W), RoIs (N, 5) of picture index and box in pixels.

    Returns (N, C, output_size, output_size). `sampling_ratio` <= 0: as many samples a bin as it is cells wide.
    """
    level = torch.zeros(len(rois), dtype=torch.int64, device=rois.device)
    return pool_levels([features], rois, level, [spatial_scale], output_size, sampling_ratio, aligned)


def pool_levels(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Pools each of the RoIs (N, 5) from the map that `levels` (N,) names: (N, C, S, S), channels last.

    Maps are (B, C, H_i, W_i); `scales` are cells a pixel, one a map.
    """
    if features[0].device.type != "cpu":
        return _pool_by_torchvision(features, rois, levels, scales, output_size, sampling_ratio, aligned)
    channels = features[0].shape[1]
    rows = torch.cat([feature.permute(0, 2, 3, 1).reshape(-1, channels) for feature in features])
    with torch.no_grad():
        where = _RoIGeometry(features, rois, levels, scales, output_size, aligned)
        cells, weights, sizes = where.contributions(sampling_ratio)
        cells = _in_32_bits(cells, len(rows))
    bins = _WeightedBags.apply(rows, cells, weights.to(rows.dtype), sizes)
    return bins.view(len(rois), output_size, output_size, channels).permute(0, 3, 1, 2)


def _pool_by_torchvision(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    pooled = features[0].new_zeros(len(rois), features[0].shape[1], output_size, output_size)
    for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        chosen = torch.where(levels == level)[0]
        part = ops.roi_align(feature, rois[chosen].to(feature.dtype), output_size, scale, sampling_ratio, aligned)
        pooled = pooled.index_put((chosen,), part)
    return pooled.contiguous(memory_format=torch.channels_last)


class _RoIGeometry:
    """Where the RoIs lie on their maps, in cells, and which rows of the matrix of all maps belong to each map."""

    def __init__(
        self,
        features: Sequence[Tensor],
        rois: Tensor,
        levels: Tensor,
        scales: Sequence[float],
        output_size: int,
        aligned: bool,
    ) -> None:
        shapes = torch.tensor([feature.shape for feature in features])
        cells = shapes[:, 0] * shapes[:, 2] * shapes[:, 3]
        first_row = (cells.cumsum(0) - cells)[levels]
        self.height, self.width = shapes[levels, 2], shapes[levels, 3]
        self.base = first_row + rois[:, 0].long() * self.height * self.width
        boxes = rois[:, 1:] * rois.new_tensor(scales)[levels, None] - (0.5 if aligned else 0.0)
        self.low, extent = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
        self.bin = (extent if aligned else extent.clamp(min=1.0)) / output_size
        self.bins = output_size

    def contributions(self, sampling_ratio: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (X,) and weights (X,) of all bins, one bin after the other, and how many each bin has: (N * S * S,)."""
        bins, count = self.bins, len(self.base)
        if sampling_ratio > 0:
            everyone = torch.arange(count)
            cells, weights = self._of(everyone, sampling_ratio, sampling_ratio)
            sizes = torch.full((count * bins * bins,), cells.shape[-1])
            return cells.reshape(-1), weights.reshape(-1), sizes
        samples = self.bin.ceil().clamp(min=0).long()  # an empty RoI has no samples, and its bins are 0
        return self._adaptive(samples)

    def _adaptive(self, samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """RoIs with the same number of samples (x, y) are done together, then put back in order."""
        bins, count = self.bins, len(self.base)
        sizes = (4 * samples.prod(dim=1)).repeat_interleave(bins * bins)
        start = sizes.cumsum(0) - sizes
        cells = torch.empty(int(sizes.sum()), dtype=torch.int64)
        weights = torch.empty(len(cells), dtype=self.low.dtype)
        for pair in torch.unique(samples[samples.prod(dim=1) > 0], dim=0):
            chosen = torch.where((samples == pair).all(dim=1))[0]
            part_cells, part_weights = self._of(chosen, int(pair[0]), int(pair[1]))
            place = start.view(count, bins * bins)[chosen].flatten()[:, None] + torch.arange(part_cells.shape[-1])
            cells[place.flatten()], weights[place.flatten()] = part_cells.flatten(), part_weights.flatten()
        return cells, weights, sizes

    def _of(self, chosen: Tensor, samples_x: int, samples_y: int) -> tuple[Tensor, Tensor]:
        """Rows and weights (n, S, S, T) of the chosen RoIs with the given number of samples a bin."""
        low, size = self.low[chosen], self.bin[chosen]
        x, x_weight = _interpolate(low[:, 0], size[:, 0], self.bins, samples_x, self.width[chosen])
        y, y_weight = _interpolate(low[:, 1], size[:, 1], self.bins, samples_y, self.height[chosen])
        rows = self.base[chosen, None, None] + y * self.width[chosen, None, None]
        cells = rows[:, :, None, :, None] + x[:, None, :, None, :]
        weights = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]
        return cells.flatten(-2), weights.flatten(-2)


def _interpolate(low: Tensor, size: Tensor, bins: int, samples: int, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Linear interpolation along one axis, averaged over a bin: cells and weights (n, bins, 2 * samples).

    `low`, `size`: start of the RoI and extent of a bin (n,), in cells; `cells`: how many the map has (n,).
    A sample within a cell outside the map takes the border; one further out counts as zero.
    """
    offset = (torch.arange(bins * samples, dtype=low.dtype) + 0.5) / samples
    position = low[:, None] + size[:, None] * offset
    last = (cells - 1).to(low.dtype)[:, None]
    inside = (position >= -1.0) & (position <= last + 1)
    position = torch.minimum(position.clamp(min=0), last)
    left = position.floor()
    fraction = position - left
    right = torch.minimum(left + 1, last)
    weights = torch.stack((1 - fraction, fraction), dim=-1) * (inside[..., None] / samples)
    index = torch.stack((left, right), dim=-1).long()
    shape = len(low), bins, 2 * samples
    return index.view(shape), weights.view(shape)


class _WeightedBags(torch.autograd.Function):
    """bags[b] = sum of weights[x] * rows[cells[x]] over the x of bag b; differentiable in the rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, cells: Tensor, weights: Tensor, sizes: Tensor) -> Tensor:
        ctx.save_for_backward(cells, weights, sizes)
        ctx.rows = len(rows)
        return _sum_bags(rows.detach(), cells, weights, sizes)  # detached: no notes for a gradient

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        cells, weights, sizes = ctx.saved_tensors
        order = torch.argsort(cells, stable=True)  # of 32 bits and stable: by radix, several times as fast
        bag = torch.arange(len(sizes), dtype=cells.dtype).repeat_interleave(sizes)[order]
        used = torch.bincount(cells, minlength=ctx.rows)
        return _sum_bags(gradient.contiguous(), bag, weights[order], used), None, None, None


def _in_32_bits(cells: Tensor, rows: int) -> Tensor:
    """Half the bytes to read and to sort, where the number of cells and of their places allows it."""
    return cells.int() if max(rows, len(cells)) < 2**31 else cells


def _sum_bags(rows: Tensor, index: Tensor, weights: Tensor, sizes: Tensor) -> Tensor:
    if len(index) == 0:
        return rows.new_zeros(len(sizes), rows.shape[1])
    offsets = (sizes.cumsum(0) - sizes).to(index.dtype)
    return F.embedding_bag(index, rows, offsets, mode="sum", per_sample_weights=weights)
