"""Categories: their ids, how often they occur, and whether the splits agree. By name, as training matches them."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from detkit.doctor.findings import Findings, Place
from detkit.doctor.table import Table

RARE = 10  # boxes
IMBALANCE = 50


def check_categories(tables: Sequence[Table], findings: Findings) -> None:
    """Compare the splits, training first."""
    counts = {table.name: box_counts(table) for table in tables}
    for table in tables:
        _check_ids(table, findings)
    _check_unused(tables, counts, findings)
    train = next((table for table in tables if table.split.source.is_train), None)
    if train is None:
        return
    _check_training(train, counts[train.name], findings)
    others = [table for table in tables if not table.split.source.is_train]
    for table in others:
        _compare(train, table, counts, findings)
    if others:
        scored = set().union(*(counts[table.name] for table in others))
        for name in sorted(set(counts[train.name]) - scored):
            findings.add("category-only-in-train", _category(train, f"{name!r}, {_boxes(counts[train.name][name])}"))


def box_counts(table: Table) -> Counter[str]:
    """Usable boxes of each category by its name; crowd regions are none."""
    chosen = table.category_ids[table.usable & ~table.crowd].tolist()
    return Counter(table.categories[number] for number in chosen)


def _category(table: Table, detail: str) -> Place:
    return Place(table.file, detail, "category", split=table.name)


def _check_ids(table: Table, findings: Findings) -> None:
    ids = sorted(table.categories)
    if not ids or table.split.source.kind != "coco":
        return
    if ids[0] == 0:
        findings.add("category-id-zero", _category(table, f"0 is {table.categories[0]!r}"))
    gaps = [number for number, following in pairwise(ids) if following != number + 1]
    if gaps or ids[0] > 1:
        findings.add("category-id-gap", _category(table, f"{len(ids)} categories with ids {ids[0]} to {ids[-1]}"))


def _check_unused(tables: Sequence[Table], counts: dict[str, Counter[str]], findings: Findings) -> None:
    used = set().union(*counts.values())
    listed = {name: table for table in reversed(tables) for name in table.categories.values()}
    findings.add("unused-category", *(_category(listed[name], repr(name)) for name in sorted(set(listed) - used)))


def _check_training(train: Table, counts: Counter[str], findings: Findings) -> None:
    if not counts:
        return
    rare = sorted((count, name) for name, count in counts.items() if count < RARE)
    findings.add("rare-category", *(_category(train, f"{name!r}, {_boxes(count)}") for count, name in rare))
    (most, most_count), (least, least_count) = counts.most_common()[0], counts.most_common()[-1]
    if most_count >= IMBALANCE * least_count:
        detail = f"{most!r} has {most_count} boxes, {least!r} {least_count}"
        findings.add("class-imbalance", _category(train, detail))


def _compare(train: Table, table: Table, counts: dict[str, Counter[str]], findings: Findings) -> None:
    ids = {name: number for number, name in train.categories.items()}
    for number, name in sorted(table.categories.items()):
        boxes = counts[table.name][name]
        if name not in ids:
            if boxes:
                findings.add("category-not-in-train", _category(table, f"{name!r}, {_boxes(boxes)}"))
        elif ids[name] != number:
            findings.add("category-id-differs", _category(table, f"{name!r}: {ids[name]} in {train.name}, {number}"))
        if name in ids and boxes and not counts[train.name][name]:
            findings.add("category-only-outside-train", _category(table, f"{name!r}, {_boxes(boxes)}"))


def _boxes(count: int) -> str:
    return "1 box" if count == 1 else f"{count} boxes"
