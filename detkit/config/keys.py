"""Dotted keys: `train.epochs` in nested values, `train.epochs=3` on the command line, and what to say of a typo."""

import ast
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def parse_overrides(overrides: Sequence[str]) -> dict[str, object]:
    """`["train.epochs=3", "model.backbone.weights=none"]` as keys and values; a value is Python, or else text."""
    parsed: dict[str, object] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"expected section.key=value, got {override!r}")
        parsed[key.strip()] = _literal(text.strip())
    return parsed


def _literal(text: str) -> object:
    words: dict[str, object] = {"none": None, "null": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def set_key(values: dict[str, Any], key: str, value: object) -> None:
    """Set a dotted key in nested dicts; unknown keys are refused with the nearest known one."""
    section = values
    *parents, last = key.split(".")
    if parents[-1:] == ["options"]:  # an open section: the net itself knows what it takes
        set_key(values, ".".join(parents), {**values["model"]["backbone"]["options"], last: value})
        return
    for parent in parents:
        if not isinstance(section.get(parent), dict):
            raise ValueError(unknown_key(key, values))
        section = section[parent]
    if last not in section:
        raise ValueError(unknown_key(key, values))
    if isinstance(section[last], dict) and not isinstance(value, Mapping):
        raise ValueError(f"{key} is a section; set one of its keys: {', '.join(f'{key}.{k}' for k in section[last])}")
    section[last] = value


def _all_keys(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from _all_keys(value, f"{prefix}{key}.")


def unknown_key(key: str, values: Mapping[str, Any]) -> str:
    """What to say of a key that is not among those of a config's `values`."""
    known = list(_all_keys(values))
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    near += [k for k in known if k.rpartition(".")[2] == key.rpartition(".")[2] and k not in near]
    hint = f"did you mean {' or '.join(near[:3])}?" if near else f"the sections are {', '.join(values)}"
    return f"unknown config key {key!r}: {hint}"
