"""Weights from files: reading them without executing anything, and fitting them to a module."""

import pickle
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Tensor]

# A file that fits fewer of the tensors than this is another architecture's.
NEEDED_SHARE = 0.95
# What the readers of zip and pickle raise when the bytes are not what they expect.
DAMAGED = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError)
SAME_NET = "give the weights of the same architecture"
CLASS_LAYERS = ("roi_head.box_head.scores.", "roi_head.box_head.deltas.")


@dataclass
class LoadReport:
    """Names of tensors: loaded, missing in the file, unexpected by the module, of another shape, started anew.

    `warnings`: what the file says of how its weights are to be used, where the run does otherwise.
    """

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def require(self, source: str, share: float = NEEDED_SHARE, advice: str = SAME_NET) -> "LoadReport":
        """Raises ValueError, with `advice` at its end, unless at least `share` of the module's tensors were loaded."""
        wanted = len(self.loaded) + len(self.missing) + len(self.mismatched)
        if len(self.loaded) < share * wanted:
            lacking = [*self.mismatched, *self.missing][:3]
            raise ValueError(
                f"{source}: only {len(self.loaded)} of {wanted} tensors fit this architecture, "
                f"at least {share:.0%} must (e.g. {', '.join(lacking)}); {advice}"
            )
        return self

    def rows(self) -> list[tuple[str, int, str]]:
        """(kind, number, first names) of each kind, for a table."""
        kinds = ("loaded", "missing", "unexpected", "mismatched", "renewed")
        return [(kind, len(names := getattr(self, kind)), ", ".join(names[:3])) for kind in kinds]


def read_state(path: str | Path) -> State:
    """The state dict in a file of torch.save: bare, or under `ema`, `model` or `state_dict`; nothing is executed.

    Raises ValueError when there is no such file, or it holds no weights, or objects other than plain data.
    """
    content = read_plain(path)
    for key in ("ema", "model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    state = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not state:
        raise ValueError(
            f"{path}: expected a state dict (names and tensors), found {type(content).__name__} without any"
        )
    return state


def read_plain(path: str | Path) -> Any:
    """What a file of torch.save holds, tensors and plain data; nothing is executed.

    Raises ValueError when there is no such file, it is damaged, or it holds objects other than plain data.
    """
    path = whole_file(path)
    try:
        return load_plain(path)
    except (pickle.UnpicklingError, *DAMAGED) as error:
        raise ValueError(f"{path}: cannot be read as weights: {why_unreadable(error)}") from None


def load_plain(path: Path, device: str | torch.device = "cpu") -> Any:
    """torch.load of tensors and plain data alone; raises what torch does, without its advice to execute the rest."""
    with without_advice():
        return torch.load(path, map_location=device, weights_only=True)


@contextmanager
def without_advice() -> Iterator[None]:
    """torch asks to report an issue about pickles of other protocols, which are none of its files."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol")
        yield


def whole_file(path: str | Path) -> Path:
    """The path of a file with something in it. Raises ValueError when there is none, or it is empty."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"no weights file {path}: give the path of a .pth or .pkl file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    return path


def why_unreadable(error: Exception) -> str:
    """Why torch did not read a file, in our words: its own advise to let the file execute what it likes."""
    if named := re.search(r"GLOBAL (\S+)", str(error)):
        return (
            f"it holds the object {named[1]}, and nothing but tensors and plain data is read; give a file of a state "
            "dict, or turn another library's checkpoint into one with `detkit import-weights`"
        )
    if isinstance(error, OSError) or "hash" in str(error):
        return first_line(error)
    return "truncated, damaged, or no file of torch.save"


def load_weights(module: nn.Module, source: str | Path | Mapping[str, Tensor]) -> LoadReport:
    """Copy the tensors that fit by name and shape into the module; the report says what became of the others."""
    state = read_state(source) if isinstance(source, (str, Path)) else dict(source)
    own = module.state_dict()
    report = LoadReport(unexpected=sorted(name for name in state.keys() - own.keys() if not _is_count(name)))
    for name, tensor in own.items():
        if name not in state:
            if not _is_count(name):
                report.missing.append(name)
        elif state[name].shape != tensor.shape:
            report.mismatched.append(name)
        else:
            tensor.copy_(state[name])
            report.loaded.append(name)
    return report


def _is_count(name: str) -> bool:
    """A count of batches, which batch norm has and a frozen norm has not: nothing is lost without it."""
    return name.endswith("num_batches_tracked")


def load_backbone_weights(backbone: nn.Module, name: str, state: State, source: str) -> LoadReport:
    """Fit a state dict to the backbone `name`; `source` says in messages where it came from.

    It may hold the backbone, a classifier around it, or a detector, whose tensors then start with `backbone.`.
    Raises ValueError when less than 95 % of the backbone's tensors fit, or when so much of the file is left over in
    the backbone's own layers that it must be a larger net: ResNet-101 has all the names of ResNet-50.
    """
    inner = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    where = f"model.backbone.weights={source} for {name}"
    advice = f"{SAME_NET}, or turn a file with another library's names into one with `detkit import-weights`"
    report = load_weights(backbone, inner or state).require(where, advice=advice)
    layers = {layer for layer, _ in backbone.named_children()}
    left = [key for key in report.unexpected if key.partition(".")[0] in layers]
    if len(report.loaded) < NEEDED_SHARE * (len(report.loaded) + len(left)):
        raise ValueError(
            f"{where}: {len(left)} tensors of the file are left over inside the backbone's layers (e.g. "
            f"{', '.join(left[:3])}): these are the weights of a larger net; give those of the same architecture"
        )
    return report


def load_detector_weights(
    model: nn.Module, stored: Mapping[str, Tensor], old: Sequence[str], new: Sequence[str]
) -> LoadReport:
    """Start a detector of the classes `new` from the state dict of a detector of the classes `old`.

    Where the names differ, the layers of classes are initialised anew, but shared names keep their rows.
    Raises ValueError when less than 95 % of the other tensors fit.
    """
    state = dict(stored)
    own = model.state_dict()
    renewed: list[str] = []
    if list(old) != list(new):
        for name in [name for name in state if name.startswith(CLASS_LAYERS) and name in own]:
            scores = ".scores." in name
            if not scores and len(state[name]) == len(own[name]) == 4 and max(len(old), len(new)) > 1:
                continue  # class-agnostic deltas
            state[name] = _keep_shared_rows(own[name], state[name], old, new, 1 if scores else 4)
            renewed.append(name)
    report = load_weights(model, state)
    report.renewed = renewed
    return report.require("model.weights")


def _keep_shared_rows(fresh: Tensor, stored: Tensor, old: Sequence[str], new: Sequence[str], per_class: int) -> Tensor:
    """Rows of the classes in both, from the stored tensor; the rest fresh. Scores have a last row for background."""
    background = 1 if per_class == 1 else 0
    fits = len(fresh) == per_class * len(new) + background and len(stored) == per_class * len(old) + background
    if not fits or fresh.shape[1:] != stored.shape[1:]:
        return fresh
    merged = fresh.clone()
    for label, name in enumerate(new):
        if name in old:
            before = list(old).index(name)
            merged[label * per_class : (label + 1) * per_class] = stored[before * per_class : (before + 1) * per_class]
    if background:
        merged[-1] = stored[-1]
    return merged


def first_line(error: Exception) -> str:
    """The first line of an error's message, at most 200 characters."""
    return str(error).strip().split("\n")[0][:200]
