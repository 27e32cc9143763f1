"""The house rules that a machine can hold: imports run downwards only, no circles, everything is packaged."""

import ast
import configparser
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# The floor of each room, lowest first: a module may import from its own floor and from those below.
FLOORS = [
    {"files", "coco_json", "large_pages", "memory", "types", "boxes", "norm", "winograd", "convolution"}
    | {"config", "weights", "foreign", "pretrained", "backbones"},
    {"data", "formats", "models", "evaluation", "engine", "visualize", "pages"},
    {
        "augmented",
        "browsing",
        "build",
        "curves",
        "doctor",
        "heatmaps",
        "importing",
        "merging",
        "ready_made",
        "predict",
        "profiling",
        "report",
        "slicing",
        "summary",
        "validation",
        "video",
    },
    {"web"},
    {"cli", "__main__"},
    {"configs"},
]
KNOWS_CONFIG = {"browsing", "build", "doctor", "importing", "predict", "cli", "configs", "config"}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def imports(path: Path) -> set[str]:
    """The modules of detkit that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "detkit" and "." in name}


@cache
def modules() -> dict[str, set[str]]:
    graph = {}
    for folder, prefix in ((ROOT / "detkit", "detkit"), (ROOT / "configs", "detkit.configs")):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join((prefix, *parts)).removesuffix(".__init__")
            graph[name] = imports(path)
    return graph


def test_every_room_has_a_floor() -> None:
    known = set().union(*FLOORS)
    assert {room(name) for name in modules()} - {"__init__"} == known


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_run_downwards(name: str) -> None:
    floor = {entry: number for number, rooms in enumerate(FLOORS) for entry in rooms}
    for target in modules()[name]:
        assert floor[room(target)] <= floor.get(room(name), 0), f"{name} imports {target}, which is above it"


def test_no_import_circle() -> None:
    graph = {name: {target for target in targets if target != name} for name, targets in modules().items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"import circle: {' -> '.join((*path, name))}"
        if name in done:
            return
        for target in graph.get(name, ()):
            visit(target, (*path, name))
        done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", sorted(modules()))
def test_only_the_upper_rooms_know_the_config(name: str) -> None:
    if room(name) not in KNOWS_CONFIG:
        assert not {"detkit.config"} & modules()[name]


@pytest.mark.parametrize("name", sorted(modules()))
def test_models_and_data_do_not_know_each_other(name: str) -> None:
    forbidden = {"models": "data", "data": "models"}.get(room(name))
    assert forbidden not in {room(target) for target in modules()[name]}


def test_every_folder_is_packaged() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "detkit").rglob("__init__.py")}
    folders |= {Path("detkit") / path.parent.relative_to(ROOT) for path in (ROOT / "configs").rglob("__init__.py")}
    assert listed == {".".join(folder.parts) for folder in folders}


def test_tools_are_thin() -> None:
    for path in (ROOT / "tools").glob("*.py"):
        assert len(path.read_text().splitlines()) < 10, f"{path.name} holds more than a call"
