"""Whether a file's weights were trained under other conventions than the config that loads them would apply.

Such a difference fails silently: the tensors fit, and the net computes something else.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from detkit.backbones import BACKBONES
from detkit.config import ModelConfig
from detkit.norm import norm_eps
from detkit.weights import read_plain

PIXELS = ("pixel_mean", "pixel_std")


def convention_warnings(model: ModelConfig, backbone: nn.Module) -> list[str]:
    """A line for each key in which the file of the backbone's weights, a checkpoint of detkit, differs from the run.

    `backbone`: as built, with the epsilon of its own: where a config leaves a key open, the net's own value counts.
    Keys that the file lacks are not compared.
    """
    source = model.backbone.weights
    if source is None or not Path(source).expanduser().is_file():
        return []
    content = read_plain(source)
    config = content.get("config") if isinstance(content, dict) else None
    stored = config.get("model") if isinstance(config, dict) else None
    if not isinstance(stored, dict):
        return []
    theirs, ours = _effective(stored, backbone), _effective(model.model_dump(mode="json"), backbone)
    return [
        f"{source} was trained with model.{key}={theirs[key]}, here it is {ours[key]}"
        for key in theirs
        if key in ours and theirs[key] != ours[key]
    ]


def _effective(model: Mapping[str, Any], backbone: nn.Module) -> dict[str, object]:
    """What a model section comes to: pixels, epsilon, stride and options, as far as it speaks of them."""
    section = model.get("backbone", {})
    values: dict[str, object] = {key: list(model[key]) for key in PIXELS if key in model}
    own_eps = norm_eps(backbone)
    if "norm_eps" in section and own_eps is not None:
        values["backbone.norm_eps"] = own_eps if section["norm_eps"] is None else section["norm_eps"]
    kind = BACKBONES.get(section.get("name", ""))
    own = {} if kind is None else inspect.signature(kind).parameters
    if "stride_in_1x1" in own and "stride_in_1x1" in section:
        chosen = section["stride_in_1x1"]
        values["backbone.stride_in_1x1"] = own["stride_in_1x1"].default if chosen is None else chosen
    options = section.get("options", {})
    for key, parameter in own.items():
        if key not in ("norm", "frozen_stages", "padding", "stride_in_1x1", "memory_efficient"):
            values[f"backbone.options.{key}"] = options.get(key, parameter.default)
    return values
