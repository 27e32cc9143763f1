"""Holding a backbone against the net of another library: random norms, a real picture, activations at places."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detkit.data.pictures import read_picture
from detkit.data.resize import resize_picture


def randomise_norms(model: nn.Module, seed: int = 0) -> None:
    """Statistics and weights as after training, so that a mix-up of any of them shows."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 2.0, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.0, generator=generator)
            nn.init.normal_(module.bias, std=0.1, generator=generator)


def real_batch(real_data: Path, height: int = 224, width: int = 224) -> Tensor:
    """A photograph of coco-mini (1, 3, height, width), normalised, its middle cut out."""
    picture = read_picture(sorted((real_data / "coco-mini" / "val2017").glob("*.jpg"))[0])
    image = resize_picture(picture, max(height, width), 4096).float()
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    image = image[:, top : top + height, left : left + width]
    return ((image - 120) / 58)[None]


def outputs_at(model: nn.Module, names: Sequence[str], *inputs: Any) -> tuple[Any, list[Tensor]]:
    """What model(*inputs) returns, and the outputs of the submodules `names`, as they were when they came out."""
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, args, output: kept.__setitem__(name, output.clone())

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        with torch.no_grad():
            result = model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return result, [kept[name] for name in names]


def assert_same(ours: Tensor, theirs: Tensor, relative: float = 1e-4) -> None:
    """Equal shapes, and no difference above `relative` of the largest value, which is not zero."""
    assert ours.shape == theirs.shape
    largest = float(theirs.abs().max())
    assert largest > 1e-6
    assert float((ours - theirs).abs().max()) <= relative * largest
