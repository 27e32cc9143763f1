"""Files of other libraries: those of torch.save, today's zip and the older row of pickles, and bare pickles."""

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from detkit.foreign.pickles import Inert, Reader, Refused, as_tensors
from detkit.weights import DAMAGED, whole_file

# The number with which files of torch.save began before it wrote zips.
LEGACY = 0x1950A86A20F9469CFC6C


def read_objects(path: Path) -> Any:
    """What a file holds, arrays and tensors as torch's; plain values as they are, other objects without content.

    Nothing in it is executed. Raises ValueError when it is damaged, names what no checkpoint needs, or holds arrays of
    anything but numbers.
    """
    path = whole_file(path)
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        with open(path, "rb") as file:
            return _read_pickles(file)
    except Refused as error:
        raise ValueError(f"{path}: not a file of weights alone: {error}") from None
    except PermissionError:
        raise
    except (*DAMAGED, pickle.UnpicklingError, zipfile.BadZipFile, struct.error, MemoryError, RecursionError):
        raise ValueError(
            f"{path}: cannot be read as weights: truncated, damaged, or neither a file of torch.save nor a pickle"
        ) from None


def _read_zip(path: Path) -> Any:
    """NAME/data.pkl, and NAME/data/KEY for each storage; the checksums are looked at."""
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Refused("it is a zip file that torch.save has not written")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise Refused("it was written on a machine whose numbers begin with the high byte")
        with archive.open(pickles[0]) as file:
            reader = Reader(file)  # type: ignore[arg-type]
            content = reader.load()
        for key, storage in reader.storages.items():
            storage.data = archive.read(f"{folder}data/{key}")
    return as_tensors(content)


def _read_pickles(file: BinaryIO) -> Any:
    """One pickle, or the older form: magic number, version, system, content, keys of storages, and these in a row."""
    first = Reader(file).load()
    if first != LEGACY:
        return as_tensors(first)
    Reader(file).load()
    Reader(file).load()
    reader = Reader(file)
    content = reader.load()
    for key in Reader(file).load():
        (length,) = struct.unpack("<q", file.read(8))
        storage = reader.storages[key]
        size = length * storage.dtype.itemsize
        storage.data = file.read(size)
        if len(storage.data) != size:
            raise EOFError
    return as_tensors(content)


def kind_of(content: object) -> str:
    """What a file holds, in words for messages."""
    return f"an object {content.origin}" if isinstance(content, Inert) else type(content).__name__
