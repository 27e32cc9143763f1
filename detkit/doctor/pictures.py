"""Pictures: can they be read, are they as large as their annotations say, which side is up, which look alike.

N pictures.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detkit.data.pictures import TURNS, read_stored
from detkit.doctor.files import note_shared
from detkit.doctor.findings import Findings
from detkit.doctor.table import Table

NEAR = 4  # of the 64 bits of a perceptual hash
FLAT = 8.0  # standard deviation of grey below which a picture is too plain to be told from others by its hash
BLOCK = 256  # pictures that are compared with all others at a time

Owner = tuple[Table, int]


@dataclass(frozen=True)
class Facts:
    """What a picture file holds, or why it cannot be read."""

    fault: str = ""
    size: tuple[int, int] = (0, 0)  # (height, width) px as stored
    orientation: int = 1
    digest: bytes = b""  # of the pixels
    look: int | None = None  # perceptual hash, 64 bits; None for a plain picture


def check_pictures(tables: Sequence[Table], findings: Findings, progress: Callable[[], None] | None = None) -> None:
    """Decode each picture once and note what is wrong; missing ones are noted elsewhere."""
    gone = {place.picture for code in ("missing-picture", "path-outside") for place in findings.of(code)}
    owners = [(table, i) for table in tables for i in range(len(table.names)) if table.picture(i) not in gone]
    facts: list[Facts] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(look_at, (table.picture(i) for table, i in owners)):
            facts.append(found)
            if progress is not None:
                progress()
    for (table, i), found in zip(owners, facts, strict=True):
        _check_picture(table, i, found, findings)
    readable = [(owner, found) for owner, found in zip(owners, facts, strict=True) if not found.fault]
    exact = _find_exact(readable, findings)
    _find_near([entry for k, entry in enumerate(readable) if k not in exact], findings)


def look_at(path: Path) -> Facts:
    """Read a picture file; a file that is none gives facts with a fault."""
    try:
        picture, orientation = read_stored(path)
    except ValueError as error:
        return Facts(str(error))
    digest = hashlib.blake2b(picture.tobytes(), digest_size=16, key=repr(picture.shape).encode()).digest()
    image = Image.fromarray(picture).convert("L")
    look = None if np.asarray(image).std() < FLAT else int(str(imagehash.phash(image)), 16)
    return Facts("", (picture.shape[0], picture.shape[1]), orientation, digest, look)


def _check_picture(table: Table, i: int, facts: Facts, findings: Findings) -> None:
    if facts.fault:
        findings.add("unreadable-picture", table.image(i, facts.fault))
        return
    stated, stored = (int(table.heights[i]), int(table.widths[i])), facts.size
    turned = stored[::-1] if TURNS.get(facts.orientation, (False,))[0] else stored
    shown = f"{stored[1]} x {stored[0]}, EXIF orientation {facts.orientation}"
    if stated not in (stored, turned):
        detail = f"is {turned[1]} x {turned[0]}, stated {stated[1]} x {stated[0]}"
        findings.add("size-mismatch", table.image(i, detail, turned))
    elif facts.orientation in TURNS:
        if stored == turned:
            findings.add("exif-ambiguous", table.image(i, shown))
        else:
            findings.add("exif-stored" if stated == stored else "exif-turned", table.image(i, shown))


def _find_exact(readable: Sequence[tuple[Owner, Facts]], findings: Findings) -> set[int]:
    """Note pictures with the pixels of an earlier one; returns their places."""
    first: dict[bytes, Owner] = {}
    repeated: set[int] = set()
    for k, (owner, facts) in enumerate(readable):
        earlier = first.setdefault(facts.digest, owner)
        if earlier is owner:
            continue
        repeated.add(k)
        if earlier[0].picture(earlier[1]) != owner[0].picture(owner[1]):  # one file in two rows is noted already
            note_shared(earlier, owner, findings)
    return repeated


def _find_near(readable: Sequence[tuple[Owner, Facts]], findings: Findings) -> None:
    """Note each picture once, with the first of the others that it looks like."""
    rich = [(owner, facts.look) for owner, facts in readable if facts.look is not None]
    looks = np.array([look for _, look in rich], np.uint64)
    told: set[int] = set()
    for j, k in near_pairs(looks, NEAR):
        across = rich[j][0][0] is not rich[k][0][0]
        if k not in told or across:
            told.add(k)
            note_shared(rich[j][0], rich[k][0], findings, near=True)


def near_pairs(looks: NDArray[np.uint64], distance: int) -> Iterator[tuple[int, int]]:
    """Pairs j < k of hashes (N,) that differ in at most `distance` bits: all are compared, block by block."""
    for start in range(0, len(looks), BLOCK):
        block = looks[start : start + BLOCK]
        differing = np.bitwise_count(block[:, None] ^ looks[None, start:])
        for j, k in np.argwhere(differing <= distance).tolist():
            if j < k:
                yield start + j, start + k
