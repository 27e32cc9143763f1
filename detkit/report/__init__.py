"""What a detector does on a split, as one page: scores, errors, proposals, levels, speed, pictures of its faults."""

from detkit.report.inspection import Inspection, inspect
from detkit.report.page import render

__all__ = ["Inspection", "inspect", "render"]
