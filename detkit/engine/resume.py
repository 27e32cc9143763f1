"""Going on with a run: what its folder holds, and whether it is the same run."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from detkit.engine.checkpoint import config_differences, newest_checkpoint
from detkit.engine.lock import LOCK
from detkit.engine.loggers import FILES as LOGGERS
from detkit.engine.run import DESCRIPTION, LAUNCH, METRICS

# What a run leaves in its folder before its first checkpoint, beside temporary files and reports of losses.
EARLY_FILES = (METRICS, LAUNCH, LOCK, *DESCRIPTION, *LOGGERS)


@dataclass(frozen=True)
class Resumed:
    """The last checkpoint of a run, and in what the run that goes on differs from it: nothing, unless asked for."""

    state: dict[str, Any]
    differences: list[str]


def resumed_state(
    output: Path,
    config: dict[str, Any],
    fingerprint: str,
    harmless: Sequence[str],
    processes: int = 1,
    anyway: bool = False,
) -> Resumed | None:
    """The last checkpoint of the run folder `output`; None when it has none yet, or the run is still to start.

    `config` is plain data; keys that start with one of `harmless` may differ. `fingerprint` is that of the data set,
    `processes` the number that trains, which cuts the batches.
    Raises ValueError for a folder with other things in it, and for a checkpoint of other settings or data, unless
    `anyway`.
    """
    found = newest_checkpoint(output) if output.is_dir() else None
    if found is None:
        _refuse_foreign(output)
        return None
    path, state = found
    changed = [line for line in config_differences(state["config"], config) if not line.startswith(tuple(harmless))]
    if state.get("data") != fingerprint:
        changed.append("the annotations of the data set")
    if state.get("processes", 1) != processes:
        changed.append(f"the number of processes: {state.get('processes', 1)} -> {processes}")
    if changed and not anyway:
        raise ValueError(
            f"{path} belongs to a run with other settings: {'; '.join(changed)}. "
            "Give the same ones, go on with these by --resume-anyway, or start a new run without --resume"
        )
    return Resumed(state, changed)


def take_over(optimizer: Optimizer, scheduler: LRScheduler, saved: dict[str, Any], step: int) -> None:
    """Bring a fresh optimizer and schedule to `step` of a run that had other settings.

    The optimizer takes over the moments of `saved`, the state dict of the other one, where that is of the same kind and
    has the same parameters in the same groups; learning rates and the like stay its own.
    """
    fresh = optimizer.state_dict()
    if [_shape(group) for group in fresh["param_groups"]] == [_shape(group) for group in saved["param_groups"]]:
        optimizer.load_state_dict({"state": saved["state"], "param_groups": fresh["param_groups"]})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        for _ in range(step):
            scheduler.step()


def _shape(group: dict[str, Any]) -> tuple[object, ...]:
    return group.get("name"), group["params"], group.keys() & {"nesterov", "betas", "alpha"}  # SGD, AdamW, RMSProp


def _refuse_foreign(output: Path) -> None:
    """Make the folder; ValueError when that fails or when it holds what is no run's."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        foreign = sorted(path.name for path in output.iterdir() if not _early(path.name))
    except OSError as error:
        raise ValueError(f"cannot write the run folder {output} ({error.strerror}); set train.output") from None
    if foreign:
        raise ValueError(f"{output} has no checkpoint to resume, but {foreign[0]}: give the folder of a run")


def _early(name: str) -> bool:
    """Whether a run leaves such a file before its first checkpoint, or in the middle of writing it when killed."""
    if name.startswith("nonfinite_") and name.endswith(".json"):
        return True
    return name in EARLY_FILES or (name.startswith(".") and name.endswith(".tmp"))
