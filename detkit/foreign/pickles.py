"""Pickles of arrays and tensors from elsewhere, read without executing anything from them.

A pickle names functions and classes, and calls them. Here the few names of which an array, a tensor or a dict consists
stand for classes of this file that only record what they are given. Any other name is neither imported nor called: it
becomes a class whose objects swallow what they are given, as training scripts keep their options and histories
beside the weights. What no checkpoint needs, such as os.system, is refused.
"""

import builtins
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

KINDS = {f"{kind}{size}" for kind, sizes in (("f", "248"), ("i", "1248"), ("u", "1248")) for size in sizes} | {"b1"}


STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# Modules whose functions act on the machine. Nothing of them would run, but a file that names them is an attack.
REFUSED = {
    *("os", "posix", "nt", "posixpath", "ntpath", "pty", "subprocess", "commands", "sys", "shutil", "socket"),
    *("importlib", "imp", "runpy", "pkgutil", "code", "codeop", "ctypes", "webbrowser", "pdb", "timeit", "cProfile"),
}
BUILTINS = ("builtins", "__builtin__")


class Refused(pickle.UnpicklingError):
    """A pickle that is whole, but holds what detkit does not read; the message says what."""


class Inert:
    """Stands for an object of a class that is not known here: takes whatever it is given and does nothing."""

    origin: ClassVar[str]

    def __new__(cls, *_: object, **__: object) -> "Inert":
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __call__(self, *_: object, **__: object) -> "Inert":
        return self

    def __setstate__(self, _: object) -> None: ...

    def __setitem__(self, _: object, __: object) -> None: ...

    def append(self, _: object) -> None:
        """An item of a list."""

    def extend(self, _: object) -> None:
        """Items of a list."""

    def add(self, _: object) -> None:
        """An item of a set."""


class Storage:
    """Numbers in a row, of which tensors are views; the file's reader fills in the `data` after the pickle."""

    data: bytes = b""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def numbers(self) -> Tensor:
        """The numbers (N,). Raises ValueError when the bytes are no whole number of them."""
        return (
            torch.frombuffer(bytearray(self.data), dtype=self.dtype) if self.data else torch.empty(0, dtype=self.dtype)
        )


class _Tensor:
    """A tensor as its pickle describes it: a view of a storage."""

    def __init__(self, storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def __setstate__(self, _: object) -> None: ...

    def tensor(self) -> Tensor:
        """The tensor. Raises RuntimeError when it reaches beyond its storage."""
        return self.storage.numbers().as_strided(self.size, self.stride, self.offset)


class _DType:
    """A number format by its code, such as f4, and its byte order."""

    def __init__(self, code: str, *_: object) -> None:
        if code not in KINDS:
            raise Refused(f"it holds arrays of {code!r}, which are no numbers")
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
            raise Refused("it holds an array without its numbers")
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
        raise Refused(f"it holds text in the encoding {encoding!r}")
    return text.encode("latin1")


def _parameter(tensor: object, *_: object) -> object:
    return tensor


_NUMPY: dict[str, Callable[..., object]] = {
    "multiarray._reconstruct": _reconstruct,
    "multiarray.scalar": _scalar,
    "numeric._frombuffer": _from_buffer,
}
ALLOWED: dict[str, Callable[..., object]] = {
    **{f"numpy.{core}.{name}": kind for core in ("core", "_core") for name, kind in _NUMPY.items()},
    "numpy.ndarray": _Array,
    "numpy.dtype": _DType,
    "torch._utils._rebuild_tensor_v2": _Tensor,
    "torch._utils._rebuild_tensor": _Tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _encode,
}


class Reader(pickle.Unpickler):
    """Reads one pickle; `storages` holds those that its tensors are views of, by their keys in the file."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")  # what numpy needs for arrays that Python 2 has written
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name here. Raises Refused for what no checkpoint needs."""
        full = f"{module}.{name}"
        if full in ALLOWED:
            return ALLOWED[full]
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        harmless = isinstance(getattr(builtins, name, None), type) if module in BUILTINS else True
        if not harmless or module.split(".")[0] in REFUSED:
            raise Refused(f"it wants to call {full}, which detkit refuses")
        return type(name.rpartition(".")[2], (Inert,), {"origin": full})

    def persistent_load(self, pid: Any) -> object:
        """The storage that a tensor refers to: ("storage", type, key, device, length, view in old files)."""
        if not isinstance(pid, tuple) or len(pid) < 5:
            raise pickle.UnpicklingError  # the PK of a truncated zip is an opcode that leads here
        if pid[0] != "storage" or any(pid[5:]):
            raise Refused("its tensors are stored as no recent version of torch does it")
        if not isinstance(pid[1], torch.dtype):
            return Inert()
        return self.storages.setdefault(str(pid[2]), Storage(pid[1]))


def as_tensors(value: Any) -> Any:
    """Containers with their arrays and tensors as torch's; everything else stays as it is."""
    if isinstance(value, _Array):
        return torch.from_numpy(value.numpy())
    if isinstance(value, _Tensor):
        return value if isinstance(value.storage, Inert) else value.tensor()
    if isinstance(value, dict):
        return {key: as_tensors(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_tensors(item) for item in value]
    return value
