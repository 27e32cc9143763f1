"""Nets without batch norm start with activations that neither vanish nor explode."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from detkit.backbones import BACKBONES
from detkit.backbones.base import Backbone
from tests.reference import real_batch

NETS: dict[str, Callable[..., Backbone]] = {
    **{name: BACKBONES[name] for name in ("alexnet", "vgg16", "squeezenet1_0", "squeezenet1_1")},
    "alexnet with lrn": partial(BACKBONES["alexnet"], lrn=True),
}
if "inception_v1" in BACKBONES:
    NETS["inception_v1 without norm"] = partial(BACKBONES["inception_v1"], norm="none")


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("seed", range(3))
def test_activations_keep_their_size_on_a_real_picture(real_data: Path, name: str, seed: int) -> None:
    torch.manual_seed(seed)
    model = NETS[name]().eval()
    with torch.no_grad():
        levels = model(real_batch(real_data, 128, 128))
    deviations = [round(float(level.std()), 3) for level in levels]
    assert all(0.1 <= deviation <= 10 for deviation in deviations), deviations
