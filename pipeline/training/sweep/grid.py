"""What a sweep is to run: a grid file, read and checked as a whole before the first run."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from pipeline.config.params import Params
from pipeline.errors import ConfigError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.training.sweep.selection import OF_DATA
from pipeline.utils.validation import Frozen, load_yaml, validated

USED = ("train", "enhance", "score", "conditions")
"""What of the parameters a sweep uses."""
UNUSED = ("score.systems", "score.groups", "score.both_sides", "score.cohort", "score.format")
"""And what of these it does not."""
Changes = dict[str, Any]
"""Parameters that differ from those of the parameter file, by dotted names."""


class Grid(Frozen):
    """What a grid file says."""

    seeds: list[int] = Field([0, 1, 2], min_length=1)
    grid: dict[str, list[Any]] = Field({})
    """Every combination of these values."""
    runs: list[dict[str, Any]] = Field([])
    """And these, one by one."""


class Part(Frozen):
    """Some of the training store: `data.speakers` and `data.draws` in a grid."""

    speakers: int | None = Field(None, ge=2)
    draws: int | None = Field(None, ge=1)


@dataclass(frozen=True)
class Run:
    """One row of a sweep, before it is run."""

    changes: Changes
    seed: int
    params: Params
    """With the changes and the seed."""
    part: Part


def read_grid(path: Path) -> tuple[list[Changes], list[int]]:
    """Return the sets of changes that a grid file asks for, each once, and the seeds of each.

    Raises:
        ConfigError: it is no such file, or asks for nothing.
    """
    grid = validated(Grid, load_yaml(path), str(path))
    crossed = [dict(zip(grid.grid, values, strict=True)) for values in itertools.product(*grid.grid.values())]
    wanted = (crossed if grid.grid else []) + [dict(run) for run in grid.runs]
    unique = {_text(changes, path): changes for changes in wanted}
    if not unique:
        raise ConfigError(f"{path}: has neither a grid nor runs. Name parameters and their values.")
    return list(unique.values()), list(dict.fromkeys(grid.seeds))


def _text(changes: Changes, path: Path) -> str:
    """Return changes as a text that is the same for the same changes."""
    try:
        return json.dumps(changes, sort_keys=True)
    except (TypeError, ValueError) as error:  # YAML also has dates, bytes, sets, and lists that hold themselves
        raise ConfigError(f"{path}: {told(changes)}: no value of a parameter ({error}).") from None


def plan_runs(
    grid: Sequence[Changes],
    seeds: Sequence[int],
    params: Params,
    store: EmbeddingStore,
    speakers: Mapping[str, str | None],
) -> list[Run]:
    """Return a run for every set of changes and seed.

    Raises:
        ConfigError: a name or value that there is not, values that do not go together, or a part of the training store
            that is larger than it.
    """
    runs = []
    for changes in grid:
        of_data = {name.removeprefix(OF_DATA): value for name, value in changes.items() if name.startswith(OF_DATA)}
        part = validated(Part, of_data, told(changes))
        _check_part(part, changes, store, speakers)
        others = {name: value for name, value in changes.items() if not name.startswith(OF_DATA)}
        _check_used(others)
        runs += [Run(changes, seed, changed(params, {**others, "seed": seed}), part) for seed in seeds]
    return runs


def changed(params: Params, changes: Mapping[str, Any]) -> Params:
    """Return parameters with changes by dotted names.

    Raises:
        ConfigError: a name or a value that there is not, or values that do not go together.
    """
    content = params.model_dump(mode="json")
    for name, value in changes.items():
        *sections, last = name.split(".")
        place: Any = content
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if not isinstance(place, dict) or last not in place:
            raise ConfigError(f"{name}: no such parameter. Names are those of params.yaml, joined by dots.")
        is_section = isinstance(value, Mapping) and isinstance(place[last], dict)
        place[last] = place[last] | value if is_section else value  # what a section does not name stays as it is
    return validated(Params, content, told(changes))


def _check_used(changes: Changes) -> None:
    """Raise ConfigError for a parameter that a sweep does not use: its rows would be the same run."""
    for name in changes:
        if name == "seed":
            raise ConfigError("seed: a grid file gives them as a list of its own, seeds.")
        if name.split(".")[0] not in USED or name.startswith(UNUSED):
            raise ConfigError(
                f"{name}: a sweep does not use it. It changes {', '.join(USED)}, {OF_DATA}speakers and {OF_DATA}draws."
                " What changes stores is for `dvc exp run`."
            )


def told(changes: Mapping[str, Any]) -> str:
    """Return changes for people, on one line."""
    return ", ".join(f"{name}={value}" for name, value in changes.items()) or "no changes"


def read_speakers(store: EmbeddingStore, speakers: Mapping[str, str | None]) -> list[str]:
    """Return the known speakers of a store's utterances, in order of their names."""
    return sorted({name for name in map(speakers.get, store.utterances) if name is not None})


def _check_part(part: Part, changes: Changes, store: EmbeddingStore, speakers: Mapping[str, str | None]) -> None:
    """Raise ConfigError if a store has fewer speakers or draws than are asked for."""
    for what, wanted, most in (
        ("speakers", part.speakers, len(read_speakers(store, speakers)) if part.speakers else 0),
        ("draws", part.draws, store.shape[1]),
    ):
        if wanted is not None and wanted > most:
            raise ConfigError(
                f"{told(changes)}: {store.path} has {most} {what}. Ask for fewer, or leave {OF_DATA}{what} out for all."
            )
