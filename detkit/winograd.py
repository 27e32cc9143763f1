"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3).

A tile d of 6x6 cells gives 4x4 cells of the result (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks,
section 4.1, equation 8): Y = A' [(G g G') * (B' d B)] A, where * multiplies number by number, 36 times instead of 144.
Here each of the three transforms is one product with a Kronecker square, as vec(B' d B) = (B' x B') vec(d), and the
multiplication, summed over channels, is 36 products of matrices: a library's product of matrices does all the work.

The paper interpolates at 0, 1, -1, 2, -2. At 0, 3/4, -3/4, 3/2, -3/2 rounding errors are half as large, 1e-6 of the
result in float32 (tests/test_winograd.py; benchmarks/README.md), and all constants of A and B are exact in binary.

B pictures, C channels in and D out, H x W cells, d dilation (and padding), N tiles. Dilated maps are d x d phases, each
an undilated map of its own. Maps are in channels-last memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Block = tuple[slice, slice]  # pictures and rows of groups of tiles

POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)  # and infinity
SIDE = 4  # cells of the result, a tile
WINDOW = SIDE + 2  # cells that they depend on
BLOCK = 2 * 2**20  # numbers in the transformed tiles of one block: 8 MB in float32 stay in a cache of the third level


def _kronecker_squares() -> tuple[Tensor, Tensor, Tensor]:
    """B' x B' (36, 36), G x G (36, 9) and A' x A' (16, 36), by Cook and Toom's interpolation at the points."""
    powers = np.vander(POINTS, SIDE, increasing=True)
    others = [np.delete(POINTS, place) for place in range(len(POINTS))]
    at_infinity = np.eye(SIDE)[-1:]
    result = np.concatenate((powers, at_infinity))
    scale = [np.prod(point - rest) for point, rest in zip(POINTS, others, strict=True)]
    weights = np.concatenate((powers[:, :3] / np.array(scale)[:, None], at_infinity[:, 1:]))
    rows = [[*np.poly(rest)[::-1], 0.0] for rest in others]
    tile = np.array([*rows, np.poly(POINTS)[::-1]])
    return tuple(torch.from_numpy(np.kron(part, part)) for part in (tile, weights, result.T))  # type: ignore[return-value]


INPUT, WEIGHTS, OUTPUT = _kronecker_squares()


def convolve(maps: Tensor, weight: Tensor, bias: Tensor | None, dilation: int = 1) -> Tensor:
    """F.conv2d of maps (B, C, H, W) and weight (D, C, 3, 3), padded to (B, D, H, W); records no gradient."""
    channels, learned = maps.shape[1], len(weight)
    taps = weight.permute(2, 3, 0, 1).reshape(9, -1)
    filters = (WEIGHTS.to(weight) @ taps).view(WINDOW**2, learned, channels).transpose(1, 2)
    tiling = _Tiling.of(maps, dilation, max(channels, learned))
    result = maps.new_empty(tiling.shape(learned))
    one, two = maps.new_empty((2, tiling.room))
    into, out_of = INPUT.to(maps), OUTPUT.to(maps)
    for block in tiling.blocks():
        tiles = _transform(into, tiling.windows(maps, block), one, two)
        products = torch.bmm(tiles, filters, out=_shaped(one, WINDOW**2, tiles.shape[1], learned))
        values = torch.mm(out_of, products.flatten(1), out=_shaped(two, SIDE**2, products[0].numel()))
        place = tiling.tiles(result[tiling.cells(block)], SIDE)
        torch.add(values.view(place.shape), 0 if bias is None else bias, out=place)
    result = result[:, : maps.shape[2], : maps.shape[3]].permute(0, 3, 1, 2)
    return result.contiguous(memory_format=torch.channels_last)


def weight_gradient(maps: Tensor, gradient: Tensor, dilation: int = 1) -> Tensor:
    """The gradient (D, C, 3, 3) of the weights, from what went in (B, C, H, W) and the gradient of what came out."""
    channels, learned = maps.shape[1], gradient.shape[1]
    tiling = _Tiling.of(maps, dilation, max(channels, learned))
    total = maps.new_zeros((WINDOW**2, learned, channels))
    one, two, three = maps.new_empty((3, tiling.room))
    into, back = INPUT.to(maps), OUTPUT.to(maps).t()
    for block in tiling.blocks():
        tiles = _transform(into, tiling.windows(maps, block), one, two)
        wanted = _transform(back, tiling.tiles(tiling.padded(gradient, block, 0), SIDE), one, three)
        total.baddbmm_(wanted.transpose(1, 2), tiles)
    taps = WEIGHTS.to(maps).t() @ total.view(WINDOW**2, -1)
    return taps.view(3, 3, learned, channels).permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)


def _transform(matrix: Tensor, tiles: Tensor, gathered: Tensor, result: Tensor) -> Tensor:
    """The matrix (36, S * S) times the tiles (S, S, ..., C): (36, N, C). Works in the room of the last two arguments.

    Fresh memory for each block would cost more than the products: the system clears each of its pages.
    """
    channels = tiles.shape[-1]
    rows = _shaped(gathered, *tiles.shape).copy_(tiles).view(matrix.shape[1], -1)
    return torch.mm(matrix, rows, out=_shaped(result, len(matrix), rows.shape[1])).view(len(matrix), -1, channels)


def _shaped(room: Tensor, *shape: int) -> Tensor:
    """The first numbers of `room` in that shape."""
    return room[: prod(shape)].view(shape)


@dataclass(frozen=True)
class _Tiling:
    """Maps as `down` x `across` groups of tiles, in each of which are the tiles of all phases."""

    batch: int
    height: int
    width: int
    dilation: int
    channels: int  # at most, going in or out

    @classmethod
    def of(cls, maps: Tensor, dilation: int, channels: int) -> "_Tiling":
        batch, _, height, width = maps.shape
        return cls(batch, height, width, dilation, channels)

    @property
    def side(self) -> int:
        """Cells of the result, a group."""
        return SIDE * self.dilation

    @property
    def down(self) -> int:
        return -(-self.height // self.side)

    @property
    def across(self) -> int:
        return -(-self.width // self.side)

    def shape(self, channels: int) -> tuple[int, int, int, int]:
        """That of a result of whole groups."""
        return self.batch, self.down * self.side, self.across * self.side, channels

    @property
    def row(self) -> int:
        """Numbers in a row of transformed groups."""
        return WINDOW**2 * self.across * self.dilation**2 * self.channels

    @property
    def room(self) -> int:
        """Numbers in the transformed tiles of the largest block."""
        return min(max(BLOCK, self.row), self.batch * self.down * self.row)

    def blocks(self) -> Iterator[Block]:
        """What is worked on at once."""
        rows = self.room // self.row
        pictures = max(1, rows // self.down)
        for picture in range(0, self.batch, pictures):
            for row in range(0, self.down, rows):
                yield slice(picture, min(picture + pictures, self.batch)), slice(row, min(row + rows, self.down))

    def cells(self, block: Block) -> tuple[slice, slice]:
        """Pictures and rows of cells of a block."""
        pictures, rows = block
        return pictures, slice(rows.start * self.side, rows.stop * self.side)

    def windows(self, maps: Tensor, block: Block) -> Tensor:
        """The block's windows of maps (B, C, H, W), which overlap: (6, 6, b, d, d, rows, across, C)."""
        return self.tiles(self.padded(maps, block, self.dilation), WINDOW)

    def padded(self, maps: Tensor, block: Block, border: int) -> Tensor:
        """The block's cells of maps (B, C, H, W) and a border around them, zeros where maps end: (b, h, w, C)."""
        pictures, rows = self.cells(block)
        top, bottom = rows.start - border, rows.stop + border
        inside = slice(max(top, 0), min(bottom, self.height))
        right = border + self.across * self.side - self.width
        margins = (0, 0, border, right, inside.start - top, bottom - inside.stop)
        return F.pad(maps.permute(0, 2, 3, 1)[pictures, inside], margins)

    def tiles(self, cells: Tensor, size: int) -> Tensor:
        """A view of the tiles of a block's cells (b, h, w, C): (size, size, b, d, d, rows, across, C)."""
        d, rows = self.dilation, cells.shape[1] // self.side
        picture, row, column, channel = cells.stride()
        return cells.as_strided(
            (size, size, len(cells), d, d, rows, self.across, cells.shape[-1]),
            (d * row, d * column, picture, row, column, self.side * row, self.side * column, channel),
        )
