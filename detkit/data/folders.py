"""Pictures sorted into a folder for each class, as torchvision's ImageFolder and ImageNet have them.

root/train/<class>/*.jpg and root/val/<class>/*.jpg, at any depth below the folder of the class.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset


@dataclass(frozen=True)
class FolderIndex:
    """The pictures of a split and their classes; N pictures. The order is that of ImageFolder: by class, then name."""

    root: Path
    classes: tuple[str, ...]
    names: NDArray[np.bytes_]  # (N,) paths below root: one array, as a million strings would be copied to each worker
    labels: NDArray[np.int64]  # (N,) in [0, len(classes))

    def __len__(self) -> int:
        return len(self.names)

    def path(self, i: int) -> Path:
        """The file of picture i."""
        return self.root / self.file_name(i)

    def file_name(self, i: int) -> str:
        """The path of picture i below the root."""
        return os.fsdecode(bytes(self.names[i]))

    def fingerprint(self) -> str:
        """16 hex digits that change when pictures come, go or change class; the pixels are not looked at."""
        digest = hashlib.blake2b(repr(self.classes).encode(), digest_size=8)
        digest.update(self.names.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()


def load_folders(root: Path, split: str, classes: Sequence[str] | None = None, limit: int | None = None) -> FolderIndex:
    """The pictures of root/split. `classes`: those of training, for validation; None takes the folders found.

    `limit`: so many pictures, spread evenly over the split. Raises ValueError that says what was expected and found.
    """
    folder = root / split
    found = _class_folders(root, folder)
    if classes is None:
        if len(found) < 2:
            raise ValueError(f"{folder} has the single class {found[0]!r}: a classifier needs at least two")
        classes = found
    strange = [name for name in found if name not in set(classes)]
    if strange:
        raise ValueError(
            f"{folder} has folders that are no classes of the training split: {_some(strange)}; "
            f"its classes are {_some(classes)}"
        )
    labels = {name: number for number, name in enumerate(classes) if name in set(found)}
    samples = make_dataset(str(folder), labels, extensions=IMG_EXTENSIONS, allow_empty=True)
    empty = sorted(set(labels.values()) - {label for _, label in samples})
    if empty:
        raise ValueError(
            f"{folder / classes[empty[0]]} has no pictures ({', '.join(IMG_EXTENSIONS)}); add some or remove the folder"
        )
    if limit is not None and limit < len(samples):
        samples = [samples[k * len(samples) // limit] for k in range(limit)]
    names = [os.fsencode(os.path.relpath(path, folder)) for path, _ in samples]
    return FolderIndex(folder, tuple(classes), np.array(names), np.array([label for _, label in samples], np.int64))


def _class_folders(root: Path, folder: Path) -> list[str]:
    """Names of the folders of the classes, sorted; hidden ones are left out."""
    expected = f"expected {folder}/<class>/*.jpg, a folder for each class (data.root={root})"
    if not root.is_dir():
        raise ValueError(f"{expected}, but there is no folder {root}")
    if not folder.is_dir():
        raise ValueError(f"{expected}, but {root} has {_some(sorted(path.name for path in root.iterdir()))}")
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        files = sorted(path.name for path in folder.iterdir())
        raise ValueError(f"{expected}, but {folder} has no folders, only {_some(files)}")
    return classes


def _some(names: Sequence[str]) -> str:
    """The first names of many."""
    if not names:
        return "nothing in it"
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
