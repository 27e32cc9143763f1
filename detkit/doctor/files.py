"""Picture files without opening them: missing ones, names that leave the folder, files used twice, or by no row."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detkit.data.parse import leaves_folder
from detkit.data.parse_values import Files
from detkit.data.pictures import SUFFIXES
from detkit.doctor.findings import Findings, Place
from detkit.doctor.table import Table


def check_files(tables: Sequence[Table], findings: Findings) -> None:
    """Look for the file of each row, and for the row of each file."""
    first_use: dict[Path, tuple[Table, int]] = {}
    for table in tables:
        files = Files(table.split.source.images)
        for i, name in enumerate(table.names):
            if leaves_folder(name):
                findings.add("path-outside", table.image(i, f"not below {files.folder}"))
            elif name not in files:
                findings.add("missing-picture", table.image(i, f"not in {files.folder}"))
            else:
                _note_use(table, i, first_use, findings)
    _check_empty(tables, findings)
    unreadable = {place.picture for place in findings.of("unreadable-picture") if place.picture is not None}
    _check_unlisted(tables, set(first_use) | unreadable, findings)


def _note_use(table: Table, i: int, first_use: dict[Path, tuple[Table, int]], findings: Findings) -> None:
    path = table.picture(i)
    if path not in first_use:
        first_use[path] = table, i
        return
    earlier, j = first_use[path]
    if earlier is table:
        findings.add("repeated-file", table.image(i, f"as image {table.image_ids[j]}"))
    else:
        note_shared((earlier, j), (table, i), findings)


def note_shared(one: tuple[Table, int], other: tuple[Table, int], findings: Findings, near: bool = False) -> None:
    """Note the same picture in two splits: in training and elsewhere it is a leak, at the training picture."""
    kept, told = one, other
    if one[0].split.source.is_train and not other[0].split.source.is_train:
        kept, told = other, one
    (first, j), (table, i) = kept, told
    leak = table.split.source.is_train and not first.split.source.is_train
    codes = ("leaked-near-duplicate", "near-duplicate-picture") if near else ("leaked-picture", "duplicate-picture")
    detail = f"like image {first.image_ids[j]} ({first.names[j]}) of {first.name}"
    findings.add(codes[0] if leak else codes[1], table.image(i, detail))


def _check_empty(tables: Sequence[Table], findings: Findings) -> None:
    for table in tables:
        shown = np.zeros(len(table.names), bool)
        shown[table.places[table.usable & ~table.crowd]] = True
        findings.add("empty-picture", *(table.image(i) for i in np.flatnonzero(~shown).tolist()))
        if not len(table.names) or (table.split.source.is_train and not shown.any()):
            what = "no box to learn from" if len(table.names) else "no usable picture"
            findings.add("empty-split", Place(table.file, f"{table.name} has {what}", split=table.name))
    if len(tables) == 1 and tables[0].split.source.is_train:
        detail = "there is only the training split; a file of the other can be named beside it"
        findings.add("missing-split", Place(tables[0].file, detail))


def _check_unlisted(tables: Sequence[Table], listed: set[Path], findings: Findings) -> None:
    """Folders of COCO hold what other annotation files list, so only those that some split uses are looked into."""
    for folder in dict.fromkeys(table.split.source.images for table in tables):
        if not folder.is_dir():
            continue
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in SUFFIXES and path not in listed and path.is_file():
                findings.add("unlisted-picture", Place(folder, file_name=path.relative_to(folder).as_posix()))
