"""What sections of a config are made of: their base, and the kinds of values that several of them have."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

BoxLoss = Literal["smooth_l1", "l1", "giou"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
PositiveInt = Annotated[int, Field(ge=1)]
Triple = tuple[float, float, float]


def _none_word(value: object) -> object:
    return None if isinstance(value, str) and value.lower() == "none" else value


def _word_none(value: object) -> object:
    return "none" if value is None else value


def _listed(value: object) -> object:
    """Names that are joined by commas, and the word none, as tuples."""
    if value is None:
        return ()
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


Name = Annotated[str | None, BeforeValidator(_none_word)]
# `none` on the command line is read as Python's None, but here it is a word like the others.
Norm = Annotated[Literal["batch", "frozen", "group", "sync", "none"], BeforeValidator(_word_none)]
BackboneNorm = Annotated[Literal["default", "batch", "frozen", "group", "sync", "none"], BeforeValidator(_word_none)]
ExtraLevel = Annotated[Literal["pool", "conv", "none"], BeforeValidator(_word_none)]
Loggers = Annotated[tuple[Literal["tensorboard", "wandb", "mlflow"], ...], BeforeValidator(_listed)]


class Section(BaseModel):
    """Base of all sections: frozen, and an unknown key is an error.

    The text below each key says what it means; docs/config.md is made of these texts.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
