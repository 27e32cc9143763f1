"""HTML pages in one file: everything from the data escaped, pictures inside, nothing fetched, no scripts.

Templates lie beside the code that fills them, and extend `page.html`, which has the head and the style.
"""

import base64
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import cv2
from jinja2 import Environment, FunctionLoader, StrictUndefined

from detkit.types import Picture

QUALITY = 85  # of JPEG


def render_page(template: str, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any) -> str:
    """The page as text. `template`: a file of the package, such as `doctor/page.html`."""
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, loader=FunctionLoader(_read)
    )
    environment.filters.update(filters or {})
    return environment.get_template(template).render(values)


def jpeg_uri(picture: Picture) -> str:
    """A picture as the address of an `img`, its bytes within."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return _data_uri("image/jpeg", data.tobytes())


def svg_uri(drawing: str) -> str:
    """An SVG as the address of an `img`: whatever it holds, nothing in it is run."""
    return _data_uri("image/svg+xml", drawing.encode())


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _read(name: str) -> str:
    return resources.files("detkit").joinpath(name).read_text(encoding="utf-8")
