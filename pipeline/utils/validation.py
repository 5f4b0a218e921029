"""Validated settings: frozen models that reject unknown keys, and YAML files."""

import re
import reprlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

from pipeline.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9_-]+")
"""Allowed names of encoders, views and systems, which become names of files and columns."""


MAX_WORKERS = 1024
"""The largest number of threads or processes; far more end the process, as libraries do not expect them."""
MAX_COUNT = 10**9
"""The largest number of rows, steps or epochs."""
_LARGEST = 2**63
"""A whole number from which on files hold nothing meant."""


class Frozen(BaseModel):
    """An immutable model that rejects unknown keys, values of another type, and NaN and infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class OneOf:
    """Annotate a text field with the names that a registry allows: `Annotated[str, OneOf(list_objectives)]`."""

    list_names: Callable[[], Iterable[str]]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, name: str) -> str:
        names = list(self.list_names())
        if name not in names:
            raise ValueError(f"must be one of {', '.join(names)}")
        return name


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping from YAML 1.2, as DVC does (so 5e-4 is a number).

    Raises:
        ConfigError: the file is missing, is not YAML, holds no mapping, or a whole number of more than 64 bits.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        _check_numbers(content)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file. Name another, or run from the project's folder.") from None
    except (YAMLError, ValueError, RecursionError) as error:  # a date of month 13; ten thousand brackets
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping of keys to values.")
    return content


def _check_numbers(content: Any) -> None:
    """Raise ValueError for a whole number that no setting can be meant to have, and that may be too long to print."""
    left, seen = [content], set[int]()
    while left:
        each = left.pop()
        if isinstance(each, int) and abs(each) > _LARGEST:
            raise ValueError(f"a whole number of {each.bit_length():,} bits; the largest has 64")
        if isinstance(each, dict | list) and id(each) not in seen:  # aliases name one list exponentially often
            seen.add(id(each))
            left += [*each, *each.values()] if isinstance(each, dict) else each


_M = TypeVar("_M", bound=BaseModel)


def validated(model: type[_M], content: Any, where: str) -> _M:
    """Build a model from plain data.

    Raises:
        ConfigError: a key is wrong; the message names the first one and what it should be.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first, more = error.errors()[0], error.error_count() - 1
        key = ".".join(map(str, first["loc"]))
        got = f", got {_abbreviate(first['input'])}" if first["type"] != "missing" and first["loc"] else ""
        what = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        tail = f" ({more} more wrong)" if more else ""
        raise ConfigError(f"{where}: {key + ': ' if key else ''}{what}{got}{tail}") from error


def _abbreviate(value: Any) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # Python prints no whole numbers of more than 4,300 digits
        return "a huge number"
