"""Checkpoints: one file that carries weights, config, classes and training state, and is never half-written.

Keys: format, version, model (state dict), config (plain dict), classes (names), category_ids (None: an output that is
no class); optional: ema (state dict with the model's names), training (what resuming needs), evaluation (metrics of
these weights), score_thresholds (from which score on to keep detections, by label).
"""

import pickle
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from detkit.files import write_atomically
from detkit.weights import load_plain, why_unreadable

FORMAT = "detkit checkpoint"
VERSION = 1
LAST, PREVIOUS, BEST, DAMAGED = "last.pth", "last.prev.pth", "best.pth", "last.damaged.pth"
_REQUIRED: dict[str, type] = {"model": dict, "config": dict, "classes": list, "category_ids": list}


class _NotingFile:
    """A file that remembers the system's error, which torch.save replaces by one about its own offsets."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def save_checkpoint(path: Path, state: dict[str, Any], previous: Path | None = None) -> None:
    """Write `state` (see the keys above; format and version are added) whole or not at all.

    `previous` is the name under which the file that was at `path` is kept. Raises OSError that says what to
    do when it cannot be written (disk full, not allowed); what was at `path` is then untouched.
    """
    _check_keys(path, {"format": FORMAT, "version": VERSION, **state})
    failed: list[OSError] = []

    def write(file: BinaryIO) -> None:
        noting = _NotingFile(file)
        try:
            torch.save({**state, "format": FORMAT, "version": VERSION}, noting)  # type: ignore[arg-type]
        finally:
            if noting.error is not None:
                failed.append(noting.error)

    try:
        write_atomically(path, write, previous)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else failed[0] if failed else None
        if cause is None:
            raise
        kept = "the checkpoint before it is intact" if path.exists() else "no checkpoint was there before"
        raise OSError(
            cause.errno,
            f"cannot write the checkpoint ({cause.strerror}); {kept}: free space or choose another folder",
            str(path),
        ) from error


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint without executing anything from it; every byte is checked against its checksum.

    Raises ValueError, naming the file and what to do, when there is none, when it is damaged or truncated,
    when it holds code, is of another format or lacks keys.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: a folder, not a checkpoint; a run's are best.pth and last.pth in its folder")
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint file; give the path of a .pth file that detkit has written")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path}: not a detkit checkpoint, or cut off; use best.pth or last.pth of a run")
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{path}: damaged (the checksum of {damaged} is wrong); use another checkpoint")
        state: dict[str, Any] = load_plain(path, device)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: no checkpoint that detkit has written: {why_unreadable(error)}") from error
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, NotImplementedError) as error:
        raise ValueError(
            f"{path}: cannot be read as a checkpoint ({why_unreadable(error)}); use another one"
        ) from error
    _check_keys(path, state)
    return state


def _check_keys(path: Path, state: Any) -> None:
    """Structure of a checkpoint; ValueError names the file and what is wrong."""
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(
            f"{path}: not a detkit checkpoint (its format is not '{FORMAT}'); for a detector of another library "
            "use `detkit import-weights`, for the weights of a backbone set model.backbone.weights"
        )
    if not isinstance(state.get("version"), int) or state["version"] > VERSION:
        raise ValueError(
            f"{path}: checkpoint version {state.get('version')}, but this detkit reads up to {VERSION}; upgrade detkit"
        )
    wrong = [f"`{key}` ({kind.__name__})" for key, kind in _REQUIRED.items() if not isinstance(state.get(key), kind)]
    if wrong:
        raise ValueError(f"{path}: a detkit checkpoint needs {', '.join(wrong)}; use one that detkit has written")
    if len(state["classes"]) != len(state["category_ids"]):
        raise ValueError(f"{path}: {len(state['classes'])} class names but {len(state['category_ids'])} category ids")
    if not _is_numbers(state.get("evaluation") or {}):
        raise ValueError(f"{path}: evaluation must be numbers by name")
    thresholds = state.get("score_thresholds")
    if thresholds is not None and not _is_scores(thresholds, len(state["classes"])):
        raise ValueError(f"{path}: score_thresholds must be a list of {len(state['classes'])} numbers from 0 to 1")


def _is_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, int | float) for v in value.values())


def _is_scores(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(isinstance(v, float) and 0 <= v <= 1 for v in value)


def best_weights(state: dict[str, Any]) -> dict[str, Any]:
    """The weights to predict with: the moving average where the run kept one."""
    weights: dict[str, Any] = state.get("ema") or state["model"]
    return weights


def newest_checkpoint(run: Path, device: str | torch.device = "cpu") -> tuple[Path, dict[str, Any]] | None:
    """The last good checkpoint of a run folder, None when it has none yet.

    A damaged last.pth is passed over with a warning for the one before, and renamed, so that it never takes
    that one's place. Raises ValueError when all are damaged.
    """
    problems = []
    for path in (run / LAST, run / PREVIOUS):
        if not path.exists():
            continue
        try:
            state = load_checkpoint(path, device)
        except ValueError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            (run / LAST).replace(run / DAMAGED)
            warnings.warn(f"{problem}; moved to {DAMAGED}; continuing from {path}", stacklevel=2)
        return path, state
    if problems:
        raise ValueError(f"no checkpoint of {run} is readable: {'; '.join(problems)}; start a new run")
    return None


def config_differences(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Dotted keys whose values differ between two configs as plain data, with both values."""
    return list(_differences(saved, now, ""))


def _differences(saved: dict[str, Any], now: dict[str, Any], prefix: str) -> Iterator[str]:
    for key in sorted({*saved, *now}, key=str):
        old, new = saved.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}: {old!r} -> {new!r}"
