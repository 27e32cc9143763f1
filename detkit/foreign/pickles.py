"""Pickles of numpy arrays, such as detectron2's .pkl files, read without executing anything from them.

A pickle names functions and calls them. Here the few names that an array or a dict consists of stand for classes of
this file that only record what they are given; any other name is refused before anything is called.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detkit.weights import DAMAGED, first_line

KINDS = {f"{kind}{size}" for kind, sizes in (("f", "248"), ("i", "1248"), ("u", "1248")) for size in sizes} | {"b1"}


class _DType:
    """A number format by its code, such as f4, and its byte order."""

    def __init__(self, code: str, *_: object) -> None:
        if code not in KINDS:
            raise pickle.UnpicklingError(f"it holds arrays of {code!r}, which are no numbers")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = {"<": "<", ">": ">"}.get(state[1], "=")

    def numpy(self) -> np.dtype[Any]:
        """The format as numpy knows it."""
        return np.dtype(self.order + self.code)


class _Array:
    """An array as its pickle describes it: shape, format and bytes."""

    shape: tuple[int, ...]
    dtype: _DType
    data: bytes
    fortran = False

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.fortran, data = state
        data = data.encode("latin1") if isinstance(data, str) else data
        if not isinstance(data, (bytes, bytearray)):
            raise pickle.UnpicklingError("it holds an array without its numbers")
        self.data = bytes(data)

    def numpy(self) -> NDArray[Any]:
        """The array, in this machine's byte order. Raises ValueError when the bytes do not fill the shape."""
        kind = self.dtype.numpy()
        flat = np.frombuffer(self.data, kind).astype(kind.newbyteorder("="))
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _from_buffer(data: bytes, dtype: _DType, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _scalar(dtype: _DType, data: bytes) -> _Array:
    return _from_buffer(data, dtype, (), "C")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding.lower() not in ("latin1", "latin-1", "iso-8859-1"):
        raise pickle.UnpicklingError(f"it holds text in the encoding {encoding!r}")
    return text.encode("latin1")


_NUMPY: dict[str, Callable[..., object]] = {
    "multiarray._reconstruct": _reconstruct,
    "multiarray.scalar": _scalar,
    "numeric._frombuffer": _from_buffer,
}
ALLOWED: dict[str, Callable[..., object]] = {
    **{f"numpy.{core}.{name}": kind for core in ("core", "_core") for name, kind in _NUMPY.items()},
    "numpy.ndarray": _Array,
    "numpy.dtype": _DType,
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _encode,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = ALLOWED.get(f"{module}.{name}")
        if found is None:
            raise pickle.UnpicklingError(f"it wants to call {module}.{name}, which detkit refuses")
        return found


def read_pickle(path: Path) -> Any:
    """What a pickle holds, its arrays as tensors; containers and plain values stay as they are.

    Raises ValueError when it is damaged, or names anything but arrays of numbers and containers.
    """
    try:
        with open(path, "rb") as file:
            return _as_tensors(_Reader(file, encoding="latin1").load())
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: not a file of plain weights, and nothing else is read: {first_line(error)}"
        ) from None
    except (*DAMAGED, MemoryError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as weights (truncated or damaged?): {first_line(error)}") from None


def _as_tensors(value: Any) -> Any:
    if isinstance(value, _Array):
        return torch.from_numpy(value.numpy())
    if isinstance(value, dict):
        return {key: _as_tensors(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_tensors(item) for item in value]
    return value
