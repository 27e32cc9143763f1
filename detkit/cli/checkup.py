"""The doctor's quick form before a training: one line, which never stops it."""

from pathlib import Path

from rich.console import Console

from detkit.cli.output import say
from detkit.config import Config
from detkit.data.layout import find_layout
from detkit.doctor import Findings, examine_quickly
from detkit.formats import Source, read_source

LARGEST = 64 * 2**20  # bytes of annotations: reading more of them twice would be felt


def print_checkup(config: Config, console: Console) -> None:
    """Print how many findings there are in the annotations of a config; what cannot be read is not for here to say."""
    if config.data.root in (None, "shapes"):
        return
    try:
        sources = _sources(config)
        if sum(source.annotations.stat().st_size for source in sources) > LARGEST:
            return
        findings, _ = examine_quickly([read_source(source) for source in sources], config)
    except (ValueError, OSError):
        return
    say(console, f"doctor: {_counts(findings)}; `detkit doctor {config.data.root}` shows where, and looks at pictures")


def _sources(config: Config) -> list[Source]:
    data = config.data
    root = Path(data.root or "").expanduser()
    paths = data.train_annotations, data.train_images, data.val_annotations, data.val_images
    named = zip(("train", "val"), find_layout(root, *paths), strict=True)
    return [Source(name, "coco", split.annotations, split.images) for name, split in named]


def _counts(findings: Findings) -> str:
    """`1 error (empty-box 1), 12 warnings (overhanging-box 12)`."""
    parts = []
    for grade in ("error", "warning"):
        found = [finding for finding in findings.all() if finding.code.grade == grade]
        total = sum(finding.count for finding in found)
        codes = ", ".join(f"{finding.code.name} {finding.count}" for finding in found)
        parts.append(f"{total} {grade}{'' if total == 1 else 's'}" + (f" ({codes})" if codes else ""))
    return ", ".join(parts)
