"""COCO's JSON files without what detection does not read: polygons, links and the like are skipped, not built.

In COCO's own annotations they are nine tenths of the bytes. Rows are plain dicts.
"""

import json
from typing import Any, TypedDict

import msgspec


class _Image(TypedDict, total=False):
    id: Any
    file_name: Any
    height: Any
    width: Any


class _Annotation(TypedDict, total=False):
    id: Any
    image_id: Any
    category_id: Any
    bbox: Any
    area: Any
    iscrowd: Any


class _Category(TypedDict, total=False):
    id: Any
    name: Any


class _Annotations(TypedDict):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


class _Detection(TypedDict, total=False):
    image_id: Any
    category_id: Any
    bbox: Any
    score: Any


def parse_annotations(data: bytes) -> Any:
    """The content of an annotation file, with the keys that detection reads.

    A file of another shape comes back whole, so that it can be said what is wrong. Raises as `json.loads` does.
    """
    return _parse(data, _Annotations)


def parse_detections(data: bytes) -> Any:
    """The content of a file of results, likewise."""
    return _parse(data, list[_Detection])


def _parse(data: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # Python's parser also takes NaN and lone surrogates, and says where a file is broken.
        return json.loads(data)
