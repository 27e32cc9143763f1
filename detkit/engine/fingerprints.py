"""What a run left, as hashes: of each tensor of its last checkpoint and of each row of its metrics."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detkit.engine.checkpoint import LAST, load_checkpoint
from detkit.engine.log import TIME_FIELDS, read_rows
from detkit.engine.run import METRICS

Fingerprints = dict[str, dict[str, str]]  # part of the run -> name -> hash


def fingerprint_run(folder: Path) -> Fingerprints:
    """Hashes of `weights`, `average` (where there is one), `optimizer` and `metrics`, without what clocks say.

    Raises ValueError where the folder has no good checkpoint.
    """
    state = load_checkpoint(folder / LAST)
    parts = {"weights": state["model"], "average": state.get("ema"), "optimizer": state["training"]["optimizer"]}
    found = {part: dict(_hashes(value, "")) for part, value in parts.items() if value is not None}
    rows = read_rows(folder / METRICS)
    found["metrics"] = {
        f"row {number} (step {row['step']})": _hash_of({k: v for k, v in row.items() if k not in TIME_FIELDS})
        for number, row in enumerate(rows, start=1)
    }
    return found


def _hashes(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """(name, hash) of each tensor and each plain value inside, by their dotted places."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _hashes(entry, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(entry, dict | list | tuple | Tensor) for entry in value):
        for number, entry in enumerate(value):
            yield from _hashes(entry, f"{name}[{number}]")
    else:
        yield name, _hash_of(value)


def _hash_of(value: Any) -> str:
    if not isinstance(value, Tensor):
        return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()
    digest = hashlib.sha256(f"{value.dtype} {tuple(value.shape)}".encode())
    digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
