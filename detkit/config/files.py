"""Config files: programs that end in `config = Config(...)`, by path or, of those that come with detkit, by name."""

import difflib
import runpy
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, overload

from pydantic import ValidationError

from detkit.config.keys import parse_overrides
from detkit.config.runs import Config, Run, RunConfig, explain

# Configs of detectors whose name is not fpn_BACKBONE.
OTHER_NAMES = {"resnet50": "fpn_r50", "efficientnet_lite0": "fpn_lite0"}


@overload
def load_config(source: str | Path, overrides: Sequence[str] = ()) -> Config: ...
@overload
def load_config(source: str | Path, overrides: Sequence[str] = (), *, kind: type[Run]) -> Run: ...
def load_config(source: str | Path, overrides: Sequence[str] = (), *, kind: type[RunConfig] = Config) -> RunConfig:
    """The config of a file (`configs/fpn_r50.py`) or of detkit's own by name (`fpn_r50`), with `key=value` overrides.

    `kind` is ClassifierConfig for those of classifiers. Raises ValueError when there is no such file, it does not end
    in a config, or in one of the other kind, or a key or value is wrong.
    """
    path = _config_path(str(source))
    try:
        config = runpy.run_path(str(path)).get("config")
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error, kind)}") from None
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: not valid Python: {error.msg}") from None
    except Exception as error:  # the file is a program of the user's: anything can go wrong in it
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error
    if isinstance(config, RunConfig) and not isinstance(config, kind):
        raise ValueError(f"{path} is a config of {config.what}, not of {kind.what}: use `{config.command}` with it")
    if not isinstance(config, kind):
        raise ValueError(f"{path}: expected a config file that ends in `config = {kind.__name__}(...)`, found none")
    return config.replace(parse_overrides(overrides))


def config_names() -> list[str]:
    """The names of the configs that come with detkit."""
    return sorted(_names(resources.files("detkit.configs")))


def detector_config_name(backbone: str) -> str:
    """The name of the config in which the backbone of that name becomes a detector."""
    return OTHER_NAMES.get(backbone, f"fpn_{backbone}")


def _config_path(source: str) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    packaged = Path(str(resources.files("detkit.configs"))) / f"{source.removesuffix('.py')}.py"
    if packaged.is_file():
        return packaged
    names = config_names()
    near = difflib.get_close_matches(path.stem, [name.rpartition("/")[2] for name in names], n=1)
    hint = f"did you mean {near[0]}?" if near else f"the configs that come with detkit are {', '.join(names)}"
    raise ValueError(f"no config file {source!r}: {hint}")


def _names(folder: Any, prefix: str = "") -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.name.startswith("_"):
            yield from _names(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".py") and not entry.name.startswith("_"):
            yield prefix + entry.name.removesuffix(".py")
