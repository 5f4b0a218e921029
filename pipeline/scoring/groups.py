"""Groups of trials, by what is known of both sides: gender, age, duration."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.config.score import Column
from pipeline.data.trials.table import Index, Trials
from pipeline.data.utterances import Utterances
from pipeline.metrics import Speakers


def trial_groups(kinds: Sequence[str], numbers: Speakers) -> NDArray[np.str_]:
    """Return the group [M] of every trial by the labels of its `sides`: the one that both share, or both, as `f/m`."""
    low, high = np.minimum(*numbers), np.maximum(*numbers)
    codes, trials = np.unique(low * len(kinds) + high, return_inverse=True)
    both = [(kinds[code // len(kinds)], kinds[code % len(kinds)]) for code in codes]
    return np.array([one if one == other else f"{one}/{other}" for one, other in both])[trials]


UNKNOWN = "unknown"


def labels(utterances: Utterances, cuts: Mapping[Column, Sequence[float]]) -> dict[Column, tuple[list[str], Index]]:
    """Return by column the groups there are, in order, and that of every utterance [N]; only where any is known.

    Args:
        utterances: of the stores.
        cuts: columns, and where numbers are cut into ranges.
    """
    found: dict[Column, tuple[list[str], Index]] = {}
    if any(utterances.genders) and "gender" in cuts:
        names = sorted({name or UNKNOWN for name in utterances.genders})
        places = {name: place for place, name in enumerate(names)}
        found["gender"] = names, np.array([places[name or UNKNOWN] for name in utterances.genders])
    numbers: dict[Column, Sequence[float | None]] = {"age": utterances.ages, "duration": utterances.seconds}
    for column, values in numbers.items():
        if column in cuts and any(value is not None for value in values):
            edges = cuts[column]
            known = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
            ranges = np.where(np.isnan(known), len(edges) + 1, np.searchsorted(edges, known, side="right"))
            found[column] = _ranges(edges, {"age": "years", "duration": "s"}[column]), ranges.astype(np.int64)
    return found


def group_trials(labelled: tuple[Sequence[str], Index], trials: Trials) -> NDArray[np.str_]:
    """Return the group [M] of every trial: the one that both sides share, or both, as `f/m`."""
    names, numbers = labelled
    return trial_groups(names, (numbers[trials.enrol], numbers[trials.test]))


def _ranges(edges: Sequence[float], unit: str) -> list[str]:
    """Return the names of the ranges between edges, and of what is in none."""
    if not edges:
        return [f"any {unit}", UNKNOWN]
    between = [f"{low:g}-{high:g} {unit}" for low, high in pairwise(edges)]
    return [f"<{edges[0]:g} {unit}", *between, f">={edges[-1]:g} {unit}", UNKNOWN]
