"""`detkit import-weights FILE --from LIBRARY --output x.pth`: weights of other libraries, as detkit reads them."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from detkit.cli.errors import Debug, run_command
from detkit.cli.output import say
from detkit.engine.checkpoint import save_checkpoint
from detkit.files import write_atomically
from detkit.importing import Imported, import_weights


def import_command(
    file: Annotated[Path, typer.Argument(help="The checkpoint of the other library: .pth, or detectron2's .pkl.")],
    source: Annotated[str, typer.Option("--from", help="torchvision, detectron2, mmdet, timm.")],
    output: Annotated[Path, typer.Option(help="The file to write; an existing one is not overwritten.")],
    bn_eps: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="What the backbone's batch norm adds to the variance: no file tells. 1e-5 in a detector.",
            show_default=False,
        ),
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="Class names without background: a JSON list, or one a line.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Turn a Faster R-CNN with FPN, or a backbone, into a file for detkit. Nothing in the file is executed."""
    if output.exists():
        raise ValueError(f"{output} exists already and is not overwritten: give another name or remove it")
    if not output.parent.is_dir():
        raise ValueError(f"--output: there is no folder {output.parent}")
    imported = import_weights(file, source, bn_eps, None if classes is None else read_names(classes))
    console = Console()
    console.print(_table(imported, file))
    if imported.is_detector:
        save_checkpoint(output, imported.content)
        say(console, _classes_line(imported.content["classes"], imported.content["category_ids"]))
        say(console, f"a detector, with the config that gives the same detections: {output}")
    else:
        write_atomically(output, partial(torch.save, imported.content))
        values = [f"{key}={_word(value)}" for key, value in imported.keys.items()]
        say(console, f"a backbone: train with model.backbone.weights={output} {' '.join(values)}")


def read_names(path: Path) -> list[str]:
    """Class names from a JSON list, or one a line; empty lines do not count. Raises ValueError for anything else."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"--classes: cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected class names in UTF-8, a JSON list or one a line") from None
    if not text.lstrip().startswith(("[", "{")):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        names = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: no valid JSON: {error}") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: expected a JSON list of class names")
    return names


def _table(imported: Imported, file: Path) -> Table:
    table = Table("tensors", "number", "such as", title=escape(f"{file}: {imported.backbone}"))
    pairs = [f"{theirs} -> {ours}" for theirs, ours in imported.mapped.items()]
    for kind, names in (("mapped", pairs), ("unused", imported.unused), ("missing", imported.missing)):
        table.add_row(kind, str(len(names)), escape(", ".join(names[:2])))
    return table


def _classes_line(classes: Sequence[str], ids: Sequence[int | None]) -> str:
    named = [name for name, number in zip(classes, ids, strict=True) if number is not None]
    unused = f", and {len(classes) - len(named)} outputs without a class" if len(named) < len(classes) else ""
    shown = ", ".join(named[:10]) + (f" and {len(named) - 10} more" if len(named) > 10 else "")
    return f"{len(named)} classes: {shown}{unused}"


def _word(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({','.join(str(item) for item in value)})"
    return str(value)


def main() -> None:
    """Entry point of `python -m detkit.cli.import_weights`, and of tests."""
    run_command(import_command)
