"""Anchors: boxes of fixed size and shape around every cell of every level.

L levels, A anchors a cell, H x W cells of a level, R = sum over levels of H * W * A.
Order: level by level, row by row, cell by cell, and within a cell ratio by ratio.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AnchorGenerator(nn.Module):
    """One size a level and several aspect ratios (FPN, section 4.1): area size^2, ratio height / width.

    Cell i is centred where stride * i says, so the anchors of cell (0, 0) are centred on the picture's corner.
    Sizes go by the index of the level, also where strides repeat. The last result is kept: most batches share a size.

    `rounded`: torchvision's anchors, for weights that were trained on them. Corners are rounded to whole pixels, and
    the cells of a level lie pixels // cells apart, which is less than the stride where a level has an odd number of
    cells and the next one half of them, rounded up.
    """

    def __init__(
        self,
        strides: Sequence[int],
        sizes: Sequence[float] | None = None,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        rounded: bool = False,
    ) -> None:
        super().__init__()
        sizes = tuple(32.0 * 2**i for i in range(len(strides))) if sizes is None else tuple(sizes)
        if len(sizes) != len(strides):
            raise ValueError(
                f"expected one anchor size for each of the {len(strides)} levels (strides {tuple(strides)}), "
                f"got {len(sizes)}: {sizes}; set model.rpn.anchor_sizes"
            )
        self.strides, self.sizes = tuple(strides), sizes
        self.per_cell = len(ratios)
        self.rounded = rounded
        for level, size in enumerate(sizes):
            cell = cell_anchors(size, ratios)
            self.register_buffer(f"cell{level}", cell.round() if rounded else cell, persistent=False)
        self._cached: tuple[object, Tensor] | None = None

    def forward(self, shapes: Sequence[tuple[int, int]]) -> Tensor:
        """Anchors (R, 4) of levels with the given numbers of rows and columns, in pixels."""
        cells = [getattr(self, f"cell{level}") for level in range(len(self.strides))]
        key = (tuple(shapes), cells[0].device)
        if self._cached is None or self._cached[0] != key:
            levels = [shift_anchors(*item) for item in zip(cells, shapes, self._steps(shapes), strict=True)]
            self._cached = (key, torch.cat(levels))
        return self._cached[1]

    def _steps(self, shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """How far apart the cells of each level are, down and across, in pixels."""
        if not self.rounded:
            return [(stride, stride) for stride in self.strides]
        height, width = (cells * self.strides[0] for cells in shapes[0])
        return [(height // rows, width // columns) for rows, columns in shapes]


def cell_anchors(size: float, ratios: Sequence[float]) -> Tensor:
    """Anchors (A, 4) centred on the origin: area size^2, height / width as in ratios."""
    ratio = torch.tensor(tuple(ratios), dtype=torch.float32)
    width, height = size / ratio.sqrt(), size * ratio.sqrt()
    return torch.stack((-width, -height, width, height), dim=1) / 2


def shift_anchors(cell: Tensor, shape: tuple[int, int], step: int | tuple[int, int]) -> Tensor:
    """Anchors (H * W * A, 4) of a level with `shape` (H, W) cells that lie `step` (down, across) pixels apart."""
    step = (step, step) if isinstance(step, int) else step
    y = torch.arange(shape[0], device=cell.device, dtype=torch.float32) * step[0]
    x = torch.arange(shape[1], device=cell.device, dtype=torch.float32) * step[1]
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack((grid_x, grid_y, grid_x, grid_y), dim=-1)
    return (shifts[:, :, None] + cell).reshape(-1, 4)
