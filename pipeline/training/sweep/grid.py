"""Grid files of sweeps, read and checked as a whole before the first run."""

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
from pipeline.training.sweep.selection import DATA_PREFIX
from pipeline.utils.validation import Frozen, load_yaml, validated

USED = ("train", "enhance", "score", "conditions")
"""Sections of the parameters that a sweep uses."""
UNUSED = ("score.systems", "score.groups", "score.both_sides", "score.cohort", "score.format")
"""Parameters of these sections that it does not use."""
ParameterChanges = dict[str, Any]
"""Parameters that differ from the parameter file, by dotted names."""


class Grid(Frozen):
    """The content of a grid file."""

    seeds: list[int] = Field([0, 1, 2], min_length=1)
    grid: dict[str, list[Any]] = Field({})
    """Values by parameter; all combinations are run."""
    runs: list[dict[str, Any]] = Field([])
    """Further sets of changes, each run by itself."""


class DataSubset(Frozen):
    """A subset of the training store: `data.speakers` and `data.draws` in a grid; None for all."""

    speakers: int | None = Field(None, ge=2)
    draws: int | None = Field(None, ge=1)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep, before it starts."""

    changes: ParameterChanges
    seed: int
    params: Params
    """All parameters, with the changes and the seed."""
    subset: DataSubset


def read_grid(path: Path) -> tuple[list[ParameterChanges], list[int]]:
    """Return the distinct sets of changes of a grid file, and the seeds to run each with.

    Raise ConfigError if the file is not a grid, or has no runs.
    """
    grid = validated(Grid, load_yaml(path), str(path))
    crossed = [dict(zip(grid.grid, values, strict=True)) for values in itertools.product(*grid.grid.values())]
    listed = (crossed if grid.grid else []) + [dict(run) for run in grid.runs]
    unique = {_serialise(changes, path): changes for changes in listed}
    if not unique:
        raise ConfigError(f"{path}: has neither a grid nor runs. Name parameters and their values.")
    return list(unique.values()), list(dict.fromkeys(grid.seeds))


def _serialise(changes: ParameterChanges, path: Path) -> str:
    """Return changes as JSON that is equal for equal changes."""
    try:
        return json.dumps(changes, sort_keys=True)
    except (TypeError, ValueError) as error:  # YAML also has dates, bytes, sets, and lists that hold themselves
        raise ConfigError(f"{path}: {format_changes(changes)}: not a parameter value ({error}).") from None


def plan_runs(
    grid: Sequence[ParameterChanges],
    seeds: Sequence[int],
    params: Params,
    store: EmbeddingStore,
    speakers: Mapping[str, str | None],
) -> list[PlannedRun]:
    """Return one run for each set of changes and each seed.

    Raise ConfigError if a name or value is not allowed, values conflict, or a subset is larger than the training store.
    """
    runs = []
    for changes in grid:
        of_data = {name: value for name, value in changes.items() if name.startswith(DATA_PREFIX)}
        content = {name.removeprefix(DATA_PREFIX): value for name, value in of_data.items()}
        subset = validated(DataSubset, content, format_changes(changes))
        _check_subset(subset, changes, store, speakers)
        others = {name: value for name, value in changes.items() if name not in of_data}
        _check_used(others)
        runs += [PlannedRun(changes, seed, apply_changes(params, {**others, "seed": seed}), subset) for seed in seeds]
    return runs


def apply_changes(params: Params, changes: Mapping[str, Any]) -> Params:
    """Return parameters with changes by dotted names; raise ConfigError if a name or a value is not allowed."""
    content = params.model_dump(mode="json")
    for name, value in changes.items():
        *sections, last = name.split(".")
        parent: Any = content
        for section in sections:
            parent = parent.get(section) if isinstance(parent, dict) else None
        if not isinstance(parent, dict) or last not in parent:
            raise ConfigError(f"{name}: no such parameter. Names are those of params.yaml, joined by dots.")
        is_section = isinstance(value, Mapping) and isinstance(parent[last], dict)
        parent[last] = parent[last] | value if is_section else value  # a section keeps values that are not named
    return validated(Params, content, format_changes(changes))


def _check_used(changes: ParameterChanges) -> None:
    """Raise ConfigError for a parameter that a sweep does not use, because it would repeat the same run."""
    for name in changes:
        if name == "seed":
            raise ConfigError("seed: a grid file lists seeds under the key seeds.")
        if name.split(".")[0] not in USED or name.startswith(UNUSED):
            raise ConfigError(
                f"{name}: a sweep does not use it. It changes {', '.join(USED)}, {DATA_PREFIX}speakers and"
                f" {DATA_PREFIX}draws. Use `dvc exp run` for parameters that change stores."
            )


def format_changes(changes: Mapping[str, Any]) -> str:
    """Return changes as one line of text."""
    return ", ".join(f"{name}={value}" for name, value in changes.items()) or "no changes"


def list_speakers(store: EmbeddingStore, speakers: Mapping[str, str | None]) -> list[str]:
    """Return the sorted names of the known speakers of a store's utterances."""
    return sorted({name for name in map(speakers.get, store.utterances) if name is not None})


def _check_subset(
    subset: DataSubset, changes: ParameterChanges, store: EmbeddingStore, speakers: Mapping[str, str | None]
) -> None:
    """Raise ConfigError if a store has fewer speakers or draws than the subset."""
    for name, wanted, available in (
        ("speakers", subset.speakers, len(list_speakers(store, speakers)) if subset.speakers else 0),
        ("draws", subset.draws, store.shape[1]),
    ):
        if wanted is not None and wanted > available:
            raise ConfigError(
                f"{format_changes(changes)}: {store.path} has {available} {name}. Ask for fewer, or leave out"
                f" {DATA_PREFIX}{name} to use all."
            )
