"""Trial lists by name, as rows of the stores that are scored by them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import TrialError
from pipeline.trial_lists import TrialList, read_list
from pipeline.trials import Trials


def lists_in(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by name, without their endings."""
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return {path.name.split(".")[0]: path for path in paths}


def read_lists(paths: Mapping[str, Path], ids: Sequence[str]) -> dict[str, TrialList]:
    """Read lists by name against the utterances of stores.

    Raises:
        TrialError: a list is malformed, has no labels, or names unknown utterances.
    """
    lists = {name: read_list(path, ids, ids) for name, path in paths.items()}
    for name, found in lists.items():
        if found.trials.target is None:
            raise TrialError(f"{paths[name]}: the list has no labels, and error rates need them. Take it out there.")
    return lists


def usable_trials(name: str, trials: Trials, usable: NDArray[np.bool_]) -> Trials:
    """Return the trials of a list of which neither utterance failed, given which did not [N].

    Raises:
        TrialError: no targets or no non-targets are left.
    """
    kept = trials.keep(usable[trials.enrol] & usable[trials.test])
    if kept.target is None or kept.target.all() or not kept.target.any():
        raise TrialError(
            f"trial list {name}: no targets or no non-targets are left, for their utterances failed. The lists of"
            " failures beside the stores say why."
        )
    return kept
