"""The findings as one HTML file: a table, and a gallery of the first places of each code, boxes drawn."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detkit.data.parse_values import is_file
from detkit.data.pictures import read_stored
from detkit.doctor.findings import GRADES, Finding, Place
from detkit.doctor.table import Table
from detkit.pages import jpeg_uri, render_page
from detkit.visualize import draw_mark, fit_picture

LISTED = 50  # places of a code in words
SHOWN = 6  # pictures of a code
SIDE = 320  # px of the longer side of a picture in the page


def render(title: str, findings: Sequence[Finding], tables: Sequence[Table]) -> str:
    """The page as text."""
    counts = {grade: sum(f.count for f in findings if f.code.grade == grade) for grade in GRADES}
    splits = [
        {
            "name": table.name,
            "file": str(table.file),
            "pictures": len(table.names),
            "boxes": int((table.usable & ~table.crowd).sum()),
            "categories": len(table.categories),
        }
        for table in tables
    ]
    sections = [
        {"code": f.code, "count": f.count, "places": [p.text() for p in f.places[:LISTED]],
         "more": max(f.count - LISTED, 0), "pictures": list(_gallery(f))}
        for f in findings
    ]  # fmt: skip
    return render_page("doctor/page.html", title=title, counts=counts, splits=splits, sections=sections)


def _gallery(finding: Finding) -> Iterator[dict[str, Any]]:
    """The first pictures that can be shown, each once; unreadable ones cannot."""
    shown: set[Path] = set()
    for place in finding.places:
        if len(shown) == SHOWN:
            return
        if place.picture is None or place.picture in shown or not is_file(place.picture):
            continue
        drawn = _draw(place, [other for other in finding.places if other.picture == place.picture])
        if drawn is not None:
            shown.add(place.picture)
            yield {"data": jpeg_uri(drawn), "caption": place.text()}


def _draw(place: Place, together: Sequence[Place]) -> NDArray[np.uint8] | None:
    """The picture as it is stored, small, with the boxes of all places in it."""
    assert place.picture is not None
    try:
        picture, _ = read_stored(place.picture)
    except ValueError:
        return None
    small, scales = fit_picture(picture, (SIDE, SIDE))
    for other in together:
        if other.box is not None:
            x, y, w, h = other.box
            corners = (x * scales[1], y * scales[0], (x + w) * scales[1], (y + h) * scales[0])
            small = draw_mark(small, corners, str(other.annotation_id))
    return small
