"""Groups of trials by gender, age and duration of both sides."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.config.score import GroupColumn
from pipeline.data.utterances import Utterances
from pipeline.metrics import Speakers
from pipeline.utils.array_types import IntArray

UNKNOWN = "unknown"


def group_trials(names: Sequence[str], numbers: Speakers) -> NDArray[np.str_]:
    """Return the group [M] of every trial: the name that both sides share, or both names, as `f/m`.

    `numbers` are indices into the groups' names, of each trial's enrolment and test side [M].
    """
    low, high = np.minimum(*numbers), np.maximum(*numbers)
    codes, trials = np.unique(low * len(names) + high, return_inverse=True)
    pairs = [(names[code // len(names)], names[code % len(names)]) for code in codes]
    return np.array([one if one == other else f"{one}/{other}" for one, other in pairs])[trials]


def label_groups(
    utterances: Utterances, cuts: Mapping[GroupColumn, Sequence[float]]
) -> dict[GroupColumn, tuple[list[str], IntArray]]:
    """Return for each column the names of its groups, in order, and the index of each utterance's group [N].

    A column without any known value is left out. `cuts` are the values at which numbers are cut into ranges.
    """
    groups: dict[GroupColumn, tuple[list[str], IntArray]] = {}
    if any(utterances.genders) and "gender" in cuts:
        names = sorted({name or UNKNOWN for name in utterances.genders})
        index = {name: place for place, name in enumerate(names)}
        groups["gender"] = names, np.array([index[name or UNKNOWN] for name in utterances.genders])
    numbers: dict[GroupColumn, Sequence[float | None]] = {"age": utterances.ages, "duration": utterances.seconds}
    for column, values in numbers.items():
        if column in cuts and any(value is not None for value in values):
            edges = cuts[column]
            known = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
            ranges = np.where(np.isnan(known), len(edges) + 1, np.searchsorted(edges, known, side="right"))
            groups[column] = _name_ranges(edges, {"age": "years", "duration": "s"}[column]), ranges.astype(np.int64)
    return groups


def _name_ranges(edges: Sequence[float], unit: str) -> list[str]:
    """Return the names of the ranges between edges, and of unknown values."""
    if not edges:
        return [f"any {unit}", UNKNOWN]
    between = [f"{low:g}-{high:g} {unit}" for low, high in pairwise(edges)]
    return [f"<{edges[0]:g} {unit}", *between, f">={edges[-1]:g} {unit}", UNKNOWN]
