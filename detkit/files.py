"""Files that are written whole or not at all."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def write_atomically(
    path: Path, content: bytes | str | Callable[[BinaryIO], None], previous: Path | None = None
) -> None:
    """Write `path` so that at any moment, even after a power cut, it is the old file or the new one.

    `content` is bytes, text (stored as UTF-8) or a function that writes into the opened file. With `previous`
    the file that was at `path` is kept under that name. Raises OSError as the system gives it (disk full, not
    allowed); what was at `path` is then still there, and no temporary file is left.
    """
    with replacing(path, path.with_name(f".{path.name}.tmp"), previous) as temporary, open(temporary, "wb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path, temporary: Path, previous: Path | None = None) -> Iterator[Path]:
    """Context in which `temporary`, in the same folder, is written; at its end it takes the place of `path`.

    Where the context ends by an exception nothing is left of it. For what does not write through Python's files;
    the rest is as in `write_atomically`.
    """
    try:
        with open(temporary, "wb"):
            pass  # says at once, and why, where nothing can be written
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            path.replace(previous)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def is_disk_full(error: OSError) -> bool:
    """Whether the disk has no more room, or the user may take no more of it."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut; systems that cannot open folders are left alone."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems refuse fsync on folders
    finally:
        os.close(handle)
