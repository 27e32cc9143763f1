"""Small checks of JSON values, many rows at once. A rows."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from detkit.data.check import Faults


class Files:
    """`name in files`: whether a relative name is a file below the folder. Each subfolder is listed only once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[str, set[str]] = {}

    def __contains__(self, name: str) -> bool:
        part, _, last = name.rpartition("/")
        if part not in self._listed:
            self._listed[part] = _list_files(self.folder / part)
        # names such as a//b.jpg, or another case on systems that do not tell cases apart, are not in the listing
        return last in self._listed[part] or is_file(self.folder / name)


def is_file(path: Path) -> bool:
    """As `Path.is_file`, and False for a name that is too long for a file, where that raises OSError."""
    try:
        return path.is_file()
    except OSError:
        return False


def _list_files(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


def is_int(value: Any) -> TypeGuard[int]:
    """Whether a JSON value is a whole number of 64 bits; true and false are none."""
    return type(value) is int and -(2**63) <= value < 2**63


def is_text(value: Any) -> TypeGuard[str]:
    """Whether a JSON value is text that can be stored: half a surrogate pair cannot."""
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value))


def kind(value: Any) -> str:
    """What a JSON value is, in JSON's words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def whole_numbers(values: list[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The values (A,), 0 where they are no whole numbers, and where they are (A,)."""
    if set(map(type, values)) <= {int}:
        try:
            return np.array(values, np.int64), np.ones(len(values), bool)
        except OverflowError:
            pass
    good = np.array([is_int(value) for value in values], bool)
    return np.array([value if is_int(value) else 0 for value in values], np.int64), good


def repeats(ids: NDArray[np.int64], good: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the good rows (A,) have the id of an earlier good row."""
    rows = np.flatnonzero(good)
    result = good.copy()
    result[rows[np.unique(ids[rows], return_index=True)[1]]] = False
    return result


def note(
    faults: Faults, ids: NDArray[np.int64], wrong: NDArray[np.bool_], reason: Callable[[int], str]
) -> NDArray[np.bool_]:
    """Add a fault for each wrong annotation (A,); returns which annotations are not wrong."""
    faults.extend("annotation", ((int(ids[i]), reason(i)) for i in np.flatnonzero(wrong).tolist()))
    return ~wrong


def lookup(
    wanted: NDArray[np.int64], keys: NDArray[np.int64], values: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The value of each wanted key, 0 where there is none, and whether there is one; keys ascend."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    known = keys[at] == wanted
    return np.where(known, values[at], 0), known
