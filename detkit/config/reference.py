"""All keys of a config as a page: `python -m detkit.config.reference > docs/config.md`."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from detkit.config.classifier import ClassifierConfig
from detkit.config.runs import Config, RunConfig
from detkit.config.section import Section

INTRODUCTION = """\
# Config reference

Written by `python -m detkit.config.reference` from the schema in `detkit/config/`; do not edit.

A config is a Python file that ends in `config = Config(...)`, or a changed copy of another one. Every key can also be
set on the command line as `section.key=value`. `configs/fpn_r50.py` and its neighbours change the defaults below.
"""

BOUNDS = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))


def reference() -> str:
    """The page in Markdown: a section of the page and a table for each section of the schema."""
    detectors, classifiers = _pages(Config), _pages(ClassifierConfig)
    known = {row for page in detectors for row in page.rows}
    differing = [replace(page, rows=[row for row in page.rows if row not in known]) for page in classifiers]
    parts = [INTRODUCTION, "## A detector: `detkit train`", *(page.text() for page in detectors)]
    parts += ["## A classifier: `detkit train-cls`\n\nThese keys are other than a detector's."]
    parts += [page.text() for page in differing if page.rows]
    return "\n\n".join(part.strip() for part in parts) + "\n"


@dataclass(frozen=True)
class _Page:
    """A section of the schema: where it is, such as `model.rpn`, what it is, and a row of the table for each key."""

    place: str
    about: str
    rows: list[str]

    def text(self) -> str:
        head = f"### `{self.place}`\n\n" if self.place else ""
        table = ["| key | values | default | meaning |", "| --- | --- | --- | --- |", *self.rows]
        return f"{head}{self.about}\n\n" + "\n".join(table)


def _pages(kind: type[RunConfig]) -> list[_Page]:
    return [
        _Page(prefix.rstrip("."), inspect.getdoc(section) or "", list(_rows(section, prefix)))
        for prefix, section in _sections(kind)
    ]


def _sections(kind: type[RunConfig]) -> Iterator[tuple[str, type[Section]]]:
    """Each section of `kind` that has keys of its own, with its place, such as `model.rpn.`."""
    todo: list[tuple[str, type[Section]]] = [("", kind)]
    while todo:
        prefix, section = todo.pop(0)
        if any(not _is_section(entry) for entry in section.model_fields.values()):
            yield prefix, section
        nested = [(f"{prefix}{key}.", entry.annotation) for key, entry in section.model_fields.items()]
        todo[:0] = [(place, inner) for place, inner in nested if isinstance(inner, type) and issubclass(inner, Section)]


def _is_section(entry: FieldInfo) -> bool:
    return isinstance(entry.annotation, type) and issubclass(entry.annotation, Section)


def _rows(section: type[Section], prefix: str) -> Iterator[str]:
    for key, entry in section.model_fields.items():
        if not _is_section(entry):
            meaning = _cell(entry.description or "")
            yield f"| `{prefix}{key}` | {_kind(entry)} | `{_value(entry.default)}` | {meaning} |"


def _kind(entry: FieldInfo) -> str:
    return _cell(_named(entry.annotation, entry.metadata))


def _named(kind: Any, metadata: Any = ()) -> str:
    """A type in words a user knows: its name or its choices, and the bounds that the metadata hold."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _named(inner[0], [*inner[1:], *metadata])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return "; or ".join(_named(part, metadata if part in (int, float) else ()) for part in inner)
    if origin is tuple:
        each = _named(inner[0])
        return f"list: {each}" if inner[-1] is Ellipsis else f"{len(inner)} numbers"
    if origin is dict:
        return "name=value"
    words = {bool: "`true`, `false`", int: "whole number", float: "number", str: "text", type(None): "`none`"}
    return words[kind] + "".join(f", {bound}" for bound in _bounds(metadata))


def _bounds(metadata: Any) -> Iterator[str]:
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from _bounds(item.metadata)
        elif isinstance(item, annotated_types.BaseMetadata):
            yield from (f"{sign} {getattr(item, name):g}" for name, sign in BOUNDS if hasattr(item, name))


def _value(default: object) -> str:
    """A default as one would type it."""
    if isinstance(default, float):
        return f"{default:.6g}"
    if isinstance(default, tuple):
        return "(" + ",".join(_value(part) for part in default) + ("," if len(default) == 1 else "") + ")"
    words = {None: "none", True: "true", False: "false"}
    return words[default] if default is None or isinstance(default, bool) else str(default)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


if __name__ == "__main__":
    print(reference(), end="")
