"""Feature pyramid network (Lin et al., 2017): every level gets the semantics of the coarser ones.

B pictures, C_i channels and H_i x W_i cells of level i, D output channels.
lateral: 1x1 convolution of a level; top-down: the coarser sum brought to this level's cells; output: 3x3 convolution.
"""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from detkit.norm import make_norm


class FPN(nn.Module):
    """Levels of a backbone to levels of `out_channels` each; same duck type: `channels`, `strides`, forward.

    The top-down path brings the coarser level to the exact size of the finer one by nearest neighbour; where strides
    repeat (DetNet) the sizes are equal and it only adds. `extra_level` appends a coarser level for the RPN:
    `pool`, every second cell (FPN, section 4.1), `conv`, a 3x3 convolution of stride 2, or `none`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        out_channels: int = 256,
        norm: str = "none",
        extra_level: Literal["pool", "conv", "none"] = "pool",
    ) -> None:
        super().__init__()
        extra = 0 if extra_level == "none" else 1
        self.channels = (out_channels,) * (len(channels) + extra)
        self.strides = (*strides, *[strides[-1] * 2] * extra)
        self.lateral = nn.ModuleList(_conv(count, out_channels, 1, norm) for count in channels)
        self.output = nn.ModuleList(_conv(out_channels, out_channels, 3, norm) for _ in channels)
        self.extra: nn.Module | None = None
        if extra_level == "pool":
            self.extra = nn.MaxPool2d(1, stride=2)
        elif extra_level == "conv":
            self.extra = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Levels (B, C_i, H_i, W_i) to levels (B, D, H_i, W_i), and the extra one."""
        sums = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        for finer in range(len(sums) - 2, -1, -1):
            sums[finer] = sums[finer] + _fit(sums[finer + 1], sums[finer])
        levels = [output(total) for output, total in zip(self.output, sums, strict=True)]
        if self.extra is not None:
            levels.append(self.extra(levels[-1]))
        return levels


def _fit(coarse: Tensor, fine: Tensor) -> Tensor:
    if coarse.shape[-2:] == fine.shape[-2:]:
        return coarse
    return F.interpolate(coarse, size=fine.shape[-2:], mode="nearest")


def _conv(inputs: int, outputs: int, kernel: int, norm: str) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=norm == "none")
    return nn.Sequential(conv) if norm == "none" else nn.Sequential(conv, make_norm(norm, outputs))
