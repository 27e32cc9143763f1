"""Checkpoints of other libraries to detkit's, with the config that gives the same detections."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detkit.backbones import BACKBONES
from detkit.build import build_detector
from detkit.config import Config, ModelConfig, detector_config_name, load_config
from detkit.foreign import detectron2, mmdet, timm, torchvision
from detkit.foreign.classes import classes_and_ids
from detkit.foreign.names import HEAD, Library, background_last, channels_innermost, number_layers, rename, structure
from detkit.foreign.reading import kind_of, read_objects
from detkit.weights import LoadReport, State, load_weights

LIBRARIES = {
    "torchvision": torchvision.LIBRARY,
    "detectron2": detectron2.LIBRARY,
    "mmdet": mmdet.LIBRARY,
    "timm": timm.LIBRARY,
}
# Written out, so that an imported detector stays the same when detkit's defaults move.
COMMON: dict[str, object] = {
    "model.neck.extra_level": "pool",
    "model.rpn.anchor_sizes": (32.0, 64.0, 128.0, 256.0, 512.0),
    "model.rpn.anchor_ratios": (0.5, 1.0, 2.0),
    "model.rpn.pre_nms_test": 1000,
    "model.rpn.post_nms_test": 1000,
    "model.rpn.nms_iou": 0.7,
    "model.roi_head.canonical_size": 224.0,
    "model.roi_head.box_weights": (10.0, 10.0, 5.0, 5.0),
    "model.score_threshold": 0.05,
    "model.nms_iou": 0.5,
    "model.max_detections": 100,
    "model.pixel_mean": (123.675, 116.28, 103.53),
    "model.pixel_std": (58.395, 57.12, 57.375),
    "model.size_multiple": 32,
    "data.root": None,  # a file of weights comes without data
    "data.short_side": 800,
    "data.long_side": 1333,
}


@dataclass
class Imported:
    """`content`: what the output file holds: a checkpoint of a detector, or the weights of the backbone `backbone`.

    `mapped`: names there and here; `unused`: names there; `missing`: names here. `keys`: config keys that a backbone
    needs besides its weights.
    """

    content: dict[str, Any]
    is_detector: bool
    backbone: str
    mapped: dict[str, str]
    unused: list[str]
    missing: list[str]
    keys: dict[str, object] = dataclasses.field(default_factory=dict)


def import_weights(
    path: Path, source: str, bn_eps: float | None = None, names: Sequence[str] | None = None
) -> Imported:
    """Read a checkpoint of the library `source`: a Faster R-CNN with FPN, or a backbone alone.

    `bn_eps`: of the backbone's batch norm, which a state dict does not tell; None: 1e-5 in a detector, what the net's
    paper has in a backbone. `names`: of the classes, without background; a backbone has none. Raises ValueError for an
    unknown source, a file that cannot be read without executing it, one of another architecture, or with numbers that
    are not finite.
    """
    if source not in LIBRARIES:
        raise ValueError(f"--from: expected {', '.join(LIBRARIES)}, got {source!r}")
    state, meta = read_foreign(path)
    library = LIBRARIES[source]
    if source == "mmdet":
        names = names or mmdet.classes_of(meta)
        if mmdet.is_caffe(meta):
            caffe = LIBRARIES["detectron2"]
            library = dataclasses.replace(library, model=caffe.model | library.model, bgr=caffe.bgr)
    try:
        return convert(state, library, source, bn_eps, names)
    except ValueError as error:
        raise ValueError(f"{path}: {error}{_hint(state, source)}") from None


def read_foreign(path: Path) -> tuple[State, object]:
    """The tensors of a file by their foreign names, and its `meta` data, if any. Raises ValueError."""
    content = read_objects(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a state dict (names and tensors), found {kind_of(content)}")
    if content.get("format") == "detkit checkpoint":
        raise ValueError(f"{path}: this is a checkpoint of detkit already")
    inner = next((content[key] for key in ("model", "state_dict") if isinstance(content.get(key), dict)), content)
    state = {key.removeprefix("module."): value for key, value in inner.items() if isinstance(value, Tensor)}
    if not state:
        raise ValueError(f"{path}: expected a state dict (names and tensors), found a dict without any tensor")
    return state, content.get("meta")


def convert(
    state: State, library: Library, source: str, bn_eps: float | None = None, names: Sequence[str] | None = None
) -> Imported:
    """A state dict under a library's names to detkit's, as `import_weights` does. Raises ValueError."""
    mapped, _ = rename(state, library.detector)
    if not any(name.startswith(("rpn.", "roi_head.")) for name in mapped.values()):
        if _hint(state, source):
            raise ValueError(f"no detector and no backbone under {source}'s names")
        if names is not None:
            raise ValueError("it holds a backbone alone, which has no classes: leave out --classes")
        return _convert_backbone(state, library, bn_eps)
    mapped = number_layers(mapped)
    try:
        ours = _in_our_layout({mapped[name]: state[name] for name in mapped}, library)
        shape = structure(ours)
    except KeyError as error:
        raise ValueError(f"no Faster R-CNN with FPN under {source}'s names: it has no {error.args[0]}") from None
    classes, ids = classes_and_ids(len(ours[f"{HEAD}.scores.bias"]) - 1, names)
    backbone = {name.removeprefix("backbone."): ours[name] for name in ours if name.startswith("backbone.")}
    found, _ = _fitting_backbone(backbone)
    config = Config().replace(
        COMMON
        | {f"model.{key}": value for key, value in (library.model | shape).items()}
        | {f"data.{key}": value for key, value in library.data.items()}
        | {
            "name": f"{source}_{found}",
            "model.backbone.name": found,
            "model.backbone.norm": _norm(backbone, source),
            "model.backbone.norm_eps": 1e-5 if bn_eps is None else bn_eps,
        }
    )
    weights = _checked(config, len(classes), ours)
    content = {"model": weights, "config": config.model_dump(mode="json"), "classes": classes, "category_ids": ids}
    used = {theirs: name for theirs, name in mapped.items() if name in weights}
    _check_finite(state, used)
    return Imported(content, True, found, used, [name for name in state if name not in used], [])


def _in_our_layout(state: State, library: Library) -> State:
    """Tensors under detkit's names, with channels, bins and labels in its order."""
    ours = background_last(state) if library.background_first else dict(state)
    if len(ours[f"{HEAD}.deltas.bias"]) == 4 * len(ours[f"{HEAD}.scores.bias"]):
        raise ValueError("it moves boxes for the background too, as version 1 of mmdetection did, which is not read")
    if library.bgr:
        ours["backbone.conv1.weight"] = ours["backbone.conv1.weight"].flip(1).contiguous()
    convs = [ours[name] for name in ours if name.startswith(f"{HEAD}.convs.") and ours[name].ndim == 4]
    channels = len(convs[-1] if convs else ours["neck.output.0.0.weight"])
    first = f"{HEAD}.linears.0.weight"
    ours[first] = channels_innermost(ours[first], channels)
    return ours


def _norm(backbone: Mapping[str, Tensor], source: str) -> str:
    """Trained statistics stay frozen, except where torchvision trained them."""
    if not any(name.endswith("running_mean") for name in backbone):
        return "default"
    counted = any(name.endswith("num_batches_tracked") for name in backbone)
    return "batch" if source == "torchvision" and counted else "frozen"


def _checked(config: Config, num_classes: int, ours: State) -> State:
    """The tensors of the config's detector. Raises ValueError when one is missing or of another shape."""
    with torch.device("meta"):
        own = build_detector(config.model, num_classes, pretrained=False).state_dict()
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked") and name not in ours:
            ours[name] = torch.zeros((), dtype=torch.int64)  # files of frozen norms lack it
        if name not in ours:
            raise ValueError(f"no Faster R-CNN with FPN that detkit can build: it lacks what detkit calls {name}")
        if ours[name].shape != tensor.shape:
            raise ValueError(
                f"another architecture: {name} is {tuple(ours[name].shape)}, expected {tuple(tensor.shape)}"
            )
    return {name: ours[name].float() if ours[name].is_floating_point() else ours[name] for name in own}


def _check_finite(state: State, names: Iterable[str]) -> None:
    """Raises ValueError that names a tensor with NaN or infinite numbers."""
    for name in names:
        if not torch.isfinite(state[name]).all():
            raise ValueError(f"{name} holds numbers that are NaN or infinite: its training failed")


def _convert_backbone(state: State, library: Library, bn_eps: float | None) -> Imported:
    mapped, _ = rename(state, library.backbone)
    ours = {mapped[name]: state[name] for name in mapped}
    found, report = _fitting_backbone(ours)
    if library.bgr:
        ours["conv1.weight"] = ours["conv1.weight"].flip(1).contiguous()
    used = {theirs: name for theirs, name in mapped.items() if name in report.loaded}
    _check_finite(state, used)
    special = _pixels(found) | library.model | ({} if bn_eps is None else {"backbone.norm_eps": bn_eps})
    keys = {f"model.{key}": value for key, value in special.items() if key.startswith(("backbone.", "pixel_"))}
    content = {"state_dict": {name: ours[name] for name in used.values()}, "backbone": found}
    unused = [name for name in state if name not in used]
    keys = {"model.backbone.name": found, **keys}
    content["config"] = {"model": _nested(keys)["model"]}  # a run with other keys is warned
    return Imported(content, False, found, used, unused, report.missing, keys)


def _nested(keys: Mapping[str, object]) -> dict[str, Any]:
    """Dotted keys as sections."""
    sections: dict[str, Any] = {}
    for key, value in keys.items():
        *parents, last = key.split(".")
        section = sections
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = list(value) if isinstance(value, tuple) else value
    return sections


def _pixels(backbone: str) -> dict[str, object]:
    """Mean and deviation of the pixels that published weights of a backbone expect, where they are not the default."""
    model, default = load_config(detector_config_name(backbone)).model, ModelConfig()
    if (model.pixel_mean, model.pixel_std) == (default.pixel_mean, default.pixel_std):
        return {}
    return {"pixel_mean": model.pixel_mean, "pixel_std": model.pixel_std}


def _fitting_backbone(state: State) -> tuple[str, LoadReport]:
    """The backbone whose tensors these are. Raises ValueError when none has at least 95 % of them."""
    reports: dict[str, LoadReport] = {}
    for name in sorted(BACKBONES, key=lambda name: not name.startswith("resnet")):  # most are of this family
        with torch.device("meta"):
            report = reports[name] = load_weights(BACKBONES[name](), state)
        if _is_whole(report):
            break
    best = max(reports, key=lambda name: _fit(reports[name]))
    if not any(report.loaded for report in reports.values()):
        raise ValueError(f"no tensor fits any backbone of detkit; the file has e.g. {', '.join(list(state)[:3])}")
    return best, reports[best].require(f"the nearest backbone is {best}")


def _is_whole(report: LoadReport) -> bool:
    """Whether all of the backbone is there, and no more of its parts: what is left over belongs to a classifier."""
    parts = {name.partition(".")[0] for name in report.loaded}
    left_over = {name.partition(".")[0] for name in report.unexpected}
    return bool(parts) and not (report.missing or report.mismatched or parts & left_over)


def _fit(report: LoadReport) -> int:
    return len(report.loaded) - len(report.missing) - len(report.mismatched) - len(report.unexpected)


def _hint(state: State, source: str) -> str:
    """Which library's names the file has, if another's."""
    for other, library in LIBRARIES.items():
        mapped, unused = rename(state, library.detector)
        if other != source and any(name.startswith("rpn.") for name in mapped.values()) and len(mapped) > len(unused):
            return f"; the names are {other}'s: use --from {other}"
    for other in ("detectron2", "mmdet"):  # those whose names of backbones are their own
        mapped, unused = rename(state, LIBRARIES[other].backbone)
        prefixed = any(name.startswith(("backbone.", "stem.")) for name in state)
        if other != source and prefixed and len(mapped) > len(unused):
            return f"; the names are {other}'s: use --from {other}"
    return ""
