"""Annotation formats: what COCO, VOC and YOLO files say, as COCO rows, unchecked; and back."""

from detkit.formats.look import find_sources, find_splits
from detkit.formats.read import read_source
from detkit.formats.split import Source, Split

__all__ = ["Source", "Split", "find_sources", "find_splits", "read_source"]
