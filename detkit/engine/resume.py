"""Going on with a run: what its folder holds, and whether it is the same run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detkit.engine.checkpoint import config_differences, newest_checkpoint
from detkit.engine.run import DESCRIPTION, LAUNCH, METRICS

# What a run leaves in its folder before its first checkpoint.
EARLY_FILES = (METRICS, LAUNCH, *DESCRIPTION, "tensorboard")


def resumed_state(
    output: Path, config: dict[str, Any], fingerprint: str, harmless: Sequence[str], processes: int = 1
) -> dict[str, Any] | None:
    """The last checkpoint of the run folder `output`; None when it has none yet, or the run is still to start.

    `config` is plain data; keys that start with one of `harmless` may differ. `fingerprint` is that of the data set,
    `processes` the number that trains, which cuts the batches.
    Raises ValueError for a folder with other things in it, and for a checkpoint of other settings or data.
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
    if changed:
        raise ValueError(
            f"{path} belongs to a run with other settings: {'; '.join(changed)}. "
            "Give the same ones, or start a new run without --resume"
        )
    return state


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
    return name in EARLY_FILES or (name.startswith(".") and name.endswith(".tmp"))
