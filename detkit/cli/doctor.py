"""`detkit doctor DATA`: what is wrong with a data set, and a repaired copy."""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from detkit.cli.data_sets import Images, find_data
from detkit.cli.errors import Debug, run_command, split_overrides
from detkit.cli.output import ALONE, refuse_existing, refuse_same, say
from detkit.config import Config, load_config
from detkit.doctor import Finding, Findings, Place, examine
from detkit.doctor.findings import GRADES
from detkit.doctor.fix import repair
from detkit.doctor.page import render
from detkit.doctor.table import Table
from detkit.files import write_atomically, write_json
from detkit.formats import read_source
from detkit.validation import show_progress

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}
SHOWN = 3  # places of a code in the table
NAMES_DATA = re.compile(r"data\.(root|limit|classes|(train|val)_(annotations|images))=")
Data = Annotated[
    list[str],
    typer.Argument(
        help="Folder of a COCO, VOC, YOLO or Roboflow data set, or COCO JSONs, one a split, such as train.json"
        " val.json; and section.key=value overrides of the config.",
        show_default=False,
    ),
]


def doctor(
    data: Data,
    config: Annotated[
        str, typer.Option(help="Config whose anchors and levels the boxes are held against.")
    ] = "fpn_r50",
    images: Images = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all findings to this file; - prints them alone.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with the worst pictures to this file.")] = None,
    fix: Annotated[
        Path | None, typer.Option(help="Write a repaired COCO JSON; of several splits NAME_train.json, NAME_val.json.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Look for faults in pictures and annotations. Exit status 1: there are errors. The data are never changed."""
    words, overrides = split_overrides(data)
    settings = _settings(config, overrides)
    paths, named = [Path(word) for word in words], shlex.join(words)
    sources = find_data(paths, images)
    copies = _copies(fix, paths, [source.name for source in sources])
    refuse_same("--json, --html and --fix", json_file, html, *copies.values())
    refuse_existing(None if json_file == ALONE else json_file, html, *copies.values())
    console = Console(stderr=json_file == ALONE)
    splits = [read_source(source, whole=fix is not None) for source in sources]
    with show_progress("looking at pictures", console) as bar:
        task = bar.add_task("", total=sum(len(split.content["images"]) for split in splits))
        findings, tables = examine(splits, settings, lambda: bar.advance(task))
    _print(console, findings, tables)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(html, render(named, findings.all(), tables))
        say(console, f"page: {html}")
    for table in tables if fix is not None else ():
        _write_copy(console, copies[table.name], table, findings)
    _write_json(json_file, named, findings)
    raise typer.Exit(1 if findings.count("error") else 0)


def _settings(config: str, overrides: Sequence[str]) -> Config:
    """The config whose anchors count. Raises ValueError for keys that would name other data than DATA."""
    for override in overrides:
        if NAMES_DATA.match(override):
            raise ValueError(
                f"{override}: the doctor looks at all of DATA: name there what it is to look at, such as"
                " `detkit doctor train.json val.json --images FOLDER`"
            )
    return load_config(config, overrides)


def _copies(fix: Path | None, data: Sequence[Path], names: Sequence[str]) -> dict[str, Path]:
    """Where the repaired copy of each split goes. Raises ValueError for a name in the folder of the data."""
    if fix is None:
        return {}
    if fix.suffix.lower() != ".json":
        raise ValueError(f"--fix: expected a name that ends in .json, got {fix}")
    if any(fix.resolve().is_relative_to(path.resolve()) for path in data):
        raise ValueError(
            f"--fix: {fix} is in the data set's own folder, which would take it for a split; choose another"
        )
    if len(names) == 1:
        return {names[0]: fix}
    return {name: fix.with_name(f"{fix.stem}_{name}.json") for name in names}


def _print(console: Console, findings: Findings, tables: Sequence[Table]) -> None:
    for table in tables:
        boxes = int((table.usable & ~table.crowd).sum())
        say(
            console,
            f"{table.name}: {len(table.names)} pictures of {table.split.source.images}, {boxes} boxes of"
            f" {len(table.categories)} categories in {table.file} ({table.split.source.kind})",
        )
    grid = Grid("code", "count", "what it means, what to do, and where", show_lines=True)
    for finding in findings.all():
        grade = finding.code.grade
        grid.add_row(f"[{COLOURS[grade]}]{grade}[/]\n{finding.code.name}", str(finding.count), _told(finding))
    console.print(grid)
    counts = {grade: findings.count(grade) for grade in GRADES}
    say(console, ", ".join(f"{count} {grade}{'' if count == 1 else 's'}" for grade, count in counts.items()))


def _told(finding: Finding) -> str:
    lines = [f"{finding.code.meaning} {finding.code.advice}"]
    lines += [f"· {place.text()}" for place in finding.places[:SHOWN]]
    lines += [f"· and {finding.count - SHOWN} more"] if finding.count > SHOWN else []
    return escape("\n".join(lines))


def _write_copy(console: Console, path: Path, table: Table, findings: Findings) -> None:
    content, changes = repair(table, findings)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)
    say(console, f"repaired copy of {table.name}: {path}, pictures in {table.split.source.images}")
    for change in changes or ["nothing changed"]:
        say(console, f"  {change}")


def _write_json(path: Path | None, data: str, findings: Findings) -> None:
    report = {
        "data": data,
        "counts": {f"{grade}s": findings.count(grade) for grade in GRADES},
        "findings": [_as_json(finding) for finding in findings.all()],
    }
    if path == ALONE:
        typer.echo(json.dumps(report, indent=2))
    elif path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, report)


def _as_json(finding: Finding) -> dict[str, Any]:
    code = finding.code
    return {
        "code": code.name,
        "grade": code.grade,
        "count": finding.count,
        "meaning": code.meaning,
        "advice": code.advice,
        "places": [_place_as_json(place) for place in finding.places],
    }


def _place_as_json(place: Place) -> dict[str, Any]:
    """What is known of a place."""
    values: dict[str, Any] = {
        "split": place.split,
        "file": str(place.file),
        "line": place.line,
        "file_name": place.file_name,
        "image_id": place.image_id,
        "annotation_id": place.annotation_id,
        "row": place.row,
        "bbox": place.box,
        "detail": place.detail,
    }
    return {key: value for key, value in values.items() if value not in (None, "")}


def main() -> None:
    """The command as a program of its own."""
    run_command(doctor)
