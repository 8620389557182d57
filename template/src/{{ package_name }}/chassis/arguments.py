"""
The arguments that a team hands to the chassis, checked before anything is done with them.
"""

import reprlib
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

__all__ = ["Checked", "FileName", "Name", "Text", "check"]

STRICT = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)

# Labels of metrics, fields of log lines, parts of the names of files.
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^\P{Cc}*$")]
FileName = Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
# PostgreSQL keeps no U+0000, and an entry of an index holds 2,704 bytes.
Text = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]


class Checked:
    """
    Base of a dataclass that can only be made of what its fields are annotated with.
    """

    def __post_init__(self) -> None:
        check(type(self).__init__, **vars(self))


def check(door: Callable[..., object], /, **given: object) -> None:
    """
    Raises ValueError unless each argument is as *door* annotates it; the text names all wrong ones.
    """
    try:
        _model(door, *given).model_validate(given)
    except ValidationError as error:
        name, wrong = door.__qualname__.removesuffix(".__init__"), map(_told, error.errors())
        raise ValueError(f"{name}: {'; '.join(wrong)}") from None


@lru_cache(maxsize=256)
def _model(door: Callable[..., object], *names: str) -> type[BaseModel]:
    kinds: dict[str, Any] = {name: (kind, ...) for name, kind in door.__annotations__.items()}
    known = {name: kinds[name] for name in names if name in kinds}
    return create_model(door.__name__, __config__=STRICT, **known)


def _told(wrong: Any) -> str:
    """
    One wrong argument: only a plain value is quoted, and no URL, as it may hold a password.
    """
    value, right = wrong["input"], wrong["msg"].replace("Input", "it").replace("String", "it")
    if not isinstance(value, str | int | float | None) or "://" in str(value):
        value = type(value)
    return f"{'.'.join(map(str, wrong['loc']))} is {reprlib.repr(value)}, but {right}"
