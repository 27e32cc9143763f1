"""A config as a whole: of any run, and of a detector's; changing keys, and what is said of mistakes."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError

from detkit.config.data import DataConfig
from detkit.config.keys import set_key, unknown_key
from detkit.config.model import ModelConfig
from detkit.config.section import Section
from detkit.config.train import TrainConfig


class RunConfig(Section):
    """What the configs of all kinds of runs have."""

    what: ClassVar[str] = "a run"
    command: ClassVar[str] = ""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")] = "detkit"
    """Names the run folder: runs/NAME."""

    def replace(self, changes: Mapping[str, object]) -> Self:
        """A copy with some keys changed, e.g. {"train.epochs": 24}; checked like the original.

        Raises ValueError for an unknown key or a value of the wrong type or range.
        """
        values = self.model_dump()
        for key, value in changes.items():
            set_key(values, key, value)
        return _validated(type(self), values)


class Config(RunConfig):
    """All of a detector's run: the model, the data, the training."""

    what = "a detector"
    command = "detkit train"

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()


Run = TypeVar("Run", bound=RunConfig)


def config_from_dict(values: Mapping[str, Any]) -> Config:
    """A Config from nested plain values, as a checkpoint holds them. Raises ValueError that names the keys."""
    if "task" in values:
        raise ValueError(
            f"expected the checkpoint of a detector, found that of a net trained for {values['task']}; "
            "a detector starts from it by model.backbone.weights=PATH"
        )
    return _validated(Config, values)


def _validated(kind: type[Run], values: Mapping[str, Any]) -> Run:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(explain(error, kind)) from None


def _prefixes(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(name of the class, its place such as `model.rpn.`) of each section of a config."""
    yield section.__name__, prefix
    for key, entry in section.model_fields.items():
        if isinstance(entry.annotation, type) and issubclass(entry.annotation, Section):
            yield from _prefixes(entry.annotation, f"{prefix}{key}.")


def explain(error: ValidationError, kind: type[RunConfig]) -> str:
    """One line a mistake: key, what is wrong, what came."""
    prefixes = dict(_prefixes(kind))
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"] if not str(part).startswith(("function-", "constrained-")))
        if item["type"] == "extra_forbidden":
            lines.append(unknown_key(prefixes.get(error.title, "") + key, kind().model_dump()))
        else:
            # keys that do not go together are named by the message, and not all of their section
            came = "" if isinstance(item["input"], dict) else f" (got {item['input']!r:.80})"
            lines.append(f"{key or error.title}: {item['msg'].removeprefix('Value error, ')}{came}")
    return "; ".join(lines)
