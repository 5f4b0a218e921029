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


class Frozen(BaseModel):
    """An immutable model that rejects unknown keys and values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


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
        ConfigError: the file is missing, is not YAML, or holds no mapping.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file. Name another, or run from the project's folder.") from None
    except (YAMLError, ValueError, RecursionError) as error:  # a date of month 13; ten thousand brackets
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping of keys to values.")
    return content


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
        got = f", got {reprlib.repr(first['input'])}" if first["type"] != "missing" and first["loc"] else ""
        what = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        tail = f" ({more} more wrong)" if more else ""
        raise ConfigError(f"{where}: {key + ': ' if key else ''}{what}{got}{tail}") from error
