"""The rows of a split, whatever its format."""

import json

from detkit.coco_json import parse_annotations
from detkit.data.parse import read_json
from detkit.formats.split import Origin, Source, Split
from detkit.formats.voc import read_voc
from detkit.formats.yolo import read_yolo


def read_source(source: Source, whole: bool = False) -> Split:
    """What the annotations of a split say, as COCO rows; `whole`: with keys that detection does not read, as polygons.

    A file that cannot be read at all is noted in `faults`, never raised. Where a format has no ids, pictures and boxes
    are numbered from 1 in the order of the files, categories in the order of their list (VOC: labels.txt, or by name).
    """
    if source.kind == "voc":
        return read_voc(source)
    if source.kind == "yolo":
        return read_yolo(source)
    try:
        return Split(source, read_json(source.annotations, json.loads if whole else parse_annotations))
    except ValueError as error:
        return Split(source, empty_content(), [(Origin(source.annotations), str(error))])


def empty_content() -> dict[str, list[object]]:
    """A COCO file without rows."""
    return {"images": [], "annotations": [], "categories": []}
