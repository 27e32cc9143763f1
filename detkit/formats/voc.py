"""Pascal VOC: an XML file a picture (Everingham et al., 2010, development kit, section 6).

hotcoco's `from_voc` reads the same rows, but stops at the first broken file, knows no lists of splits, and forgets
pose, truncation and parts; its `to_voc` rounds boxes to whole pixels. Hence this reader and writer.

VOC counts pixels from 1 and the last one belongs to the box: x = xmin - 1, width = xmax - xmin + 1. Many tools count
from 0 instead; a set with a box that begins at 0 is read so: x = xmin, width = xmax - xmin.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from detkit.data.parse_values import is_file
from detkit.data.pictures import SUFFIXES
from detkit.formats.sizes import picture_size
from detkit.formats.split import Origin, Source, Split

CORNERS = ("xmin", "ymin", "xmax", "ymax")
ATTRIBUTES = ("pose", "truncated", "difficult", "occluded")


def read_voc(source: Source) -> Split:
    """The pictures and objects of a folder of XML files; difficult objects are crowd regions, which nothing scores."""
    parsed: list[tuple[Path, ElementTree.Element]] = []
    faults: list[tuple[Origin, str]] = []
    for path in _files(source):
        try:
            parsed.append((path, _parse(path)))
        except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:
            faults.append((Origin(path), f"cannot be read: {getattr(error, 'strerror', None) or error}"))
    names = _categories(source.annotations)
    objects = [element for _, root in parsed for element in root.iter("object")]
    found = sorted({element.findtext("name", "").strip() for element in objects} - {"", *names})
    numbers = {name: number for number, name in enumerate([*names, *found], start=1)}
    first = 0 if any(_corners(element)[:2].count(0) for element in objects) else 1
    images: list[Any] = []
    annotations: list[Any] = []
    origins: dict[str, list[Origin]] = {"images": [Origin(path) for path, _ in parsed], "annotations": []}
    for path, root in parsed:
        images.append(_image(path, root, len(images) + 1, source.images))
        for element in root.findall("object"):
            row = {"id": len(annotations) + 1, "image_id": len(images)}
            annotations.append(row | _annotation(element, numbers, first))
            origins["annotations"].append(Origin(path))
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    unsized = frozenset(i for i, (_, root) in enumerate(parsed) if _stated_size(root) is None)
    content = {"images": images, "annotations": annotations, "categories": categories}
    return Split(source, content, faults, origins, unsized)


def _files(source: Source) -> list[Path]:
    if source.members is None:
        return sorted(source.annotations.glob("*.xml"))
    return [source.annotations / f"{name}.xml" for name in source.members]


def _parse(path: Path) -> ElementTree.Element:
    data = path.read_bytes()
    if b"<!ENTITY" in data:  # a few lines of them can stand for gigabytes
        raise ValueError("it declares XML entities, which VOC has no use for")
    root = ElementTree.fromstring(data)
    if root.tag != "annotation":
        raise ValueError(f"expected <annotation>, found <{root.tag}>")
    return root


def _categories(folder: Path) -> list[str]:
    """The names of labels.txt, beside the XML files or above them; none where there is no such file."""
    for path in (folder.parent / "labels.txt", folder / "labels.txt"):
        if path.is_file():
            return list(dict.fromkeys(path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]))
    return []


def _image(path: Path, root: ElementTree.Element, number: int, images: Path) -> dict[str, Any]:
    name = _file_name(path, root, images)
    height, width = _stated_size(root) or picture_size(images / name) or (None, None)
    return {"id": number, "file_name": name, "height": height, "width": width}


def _stated_size(root: ElementTree.Element) -> tuple[int, int] | None:
    """(height, width) px as <size> states them, None where it does not."""
    height, width = (_number(root.findtext(f"size/{key}")) for key in ("height", "width"))
    return (height, width) if all(isinstance(side, int) and 0 < side < 2**31 for side in (height, width)) else None


def _file_name(path: Path, root: ElementTree.Element, images: Path) -> str:
    """What <filename> says where that file is there, else the picture of the XML file's own name."""
    said = (root.findtext("filename") or "").strip()
    candidates = [said, *(path.stem + suffix for suffix in sorted(SUFFIXES))]
    there = [name for name in candidates if name and is_file(images / name)]
    return there[0] if there else said or f"{path.stem}.jpg"


def _annotation(element: ElementTree.Element, numbers: dict[str, int], first: int) -> dict[str, Any]:
    name = element.findtext("name", "").strip()
    x1, y1, x2, y2 = _corners(element)
    plain = all(isinstance(value, int | float) for value in (x1, y1, x2, y2))
    box = [x1 - first, y1 - first, x2 - x1 + first, y2 - y1 + first] if plain else [x1, y1, x2, y2]
    row: dict[str, Any] = {"category_id": numbers.get(name, name), "bbox": [_rounded(value) for value in box]}
    if plain:
        row["area"] = _rounded(row["bbox"][2] * row["bbox"][3])
    attributes = {key: _number(element.findtext(key)) for key in ATTRIBUTES if element.findtext(key) is not None}
    parts = [[part.findtext("name", ""), *_corners(part)] for part in element.findall("part")]
    return row | {"iscrowd": int(attributes.get("difficult") == 1)} | attributes | ({"parts": parts} if parts else {})


def _corners(element: ElementTree.Element) -> list[Any]:
    return [_number(element.findtext(f"bndbox/{key}")) for key in CORNERS]


def _number(text: str | None) -> Any:
    """The number that a text is, else the text."""
    for kind in (int, float):
        try:
            return kind(text or "")
        except ValueError:
            continue
    return text


def _rounded(value: Any) -> Any:
    """Without the noise of decimal fractions in binary: 0.1 + 0.2 is 0.3."""
    return round(value, 6) if isinstance(value, float) else value


def voc_xml(image: dict[str, Any], annotations: Sequence[dict[str, Any]], names: dict[int, str]) -> str:
    """The XML file of a picture; boxes that are no whole pixels keep their fractions."""
    lines = [
        "<annotation>",
        f"  <filename>{escape(image['file_name'])}</filename>",
        f"  <size><width>{image['width']}</width><height>{image['height']}</height><depth>3</depth></size>",
        "  <segmented>0</segmented>",
    ]
    for row in annotations:
        x, y, width, height = row["bbox"]
        difficult = int(bool(row.get("iscrowd", 0)))
        values = {"pose": "Unspecified", "truncated": 0} | {k: row[k] for k in ATTRIBUTES if k in row}
        values["difficult"] = difficult
        lines += ["  <object>", f"    <name>{escape(names[row['category_id']])}</name>"]
        lines += [f"    <{key}>{escape(str(value))}</{key}>" for key, value in values.items()]
        lines.append(_box_xml((x + 1, y + 1, x + width, y + height), 4))
        for name, *corners in row.get("parts", ()):
            lines += ["    <part>", f"      <name>{escape(str(name))}</name>", _box_xml(corners, 6), "    </part>"]
        lines.append("  </object>")
    return "\n".join([*lines, "</annotation>", ""])


def _box_xml(corners: Sequence[Any], indent: int) -> str:
    values = (_rounded(value) for value in corners)
    plain = (int(value) if isinstance(value, float) and value.is_integer() else value for value in values)
    inner = "".join(f"<{key}>{value}</{key}>" for key, value in zip(CORNERS, plain, strict=True))
    return f"{' ' * indent}<bndbox>{inner}</bndbox>"
