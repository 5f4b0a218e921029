"""Score systems by trial lists of names, in place of all pairs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.comparison import COMPARISONS, Name
from pipeline.errors import TrialError
from pipeline.metrics import Histogram, Roc, compare, histogram, thin
from pipeline.operating_points import STANDARD, OperatingPoint
from pipeline.places import Place
from pipeline.scoring import Measured, open_systems
from pipeline.store import OK, EmbeddingStore
from pipeline.trial_lists import TrialList, read_list
from pipeline.trials import Index, Trials


def open_lists(folder: Path, systems: Mapping[str, Place], condition: str) -> dict[str, TrialList]:
    """Read all lists of a folder, by name, against the utterances that the systems' stores share.

    Raises:
        TrialError: a list is malformed, has no labels, or names unknown utterances.
        StoreError: there is no store of the condition.
    """
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not paths:
        return {}
    ids = EmbeddingStore.open(next(iter(systems.values())) / f"{condition}.zarr").utterances
    lists = {path.name.split(".")[0]: read_list(path, ids, ids) for path in paths}
    for name, found in lists.items():
        if found.trials.target is None:
            raise TrialError(f"{folder / name}: the list has no labels, and error rates need them. Take it out there.")
    return lists


def score_lists(
    systems: Mapping[str, Place],
    lists: Mapping[str, Trials],
    conditions: Sequence[str],
    enrolment: str,
    speakers: Mapping[str, str | None],
    bootstrap: int,
    seed: int,
    points: Sequence[OperatingPoint] = STANDARD,
    comparison: Name = "cosine",
    progress: Callable[[str], None] | None = None,
) -> Measured:
    """Measure every system on every list, enrolled on `enrolment`, on the same trials throughout.

    An utterance that failed in any of the stores is in no trial. The interval needs the speakers of all trials.

    Args:
        systems: the folder of each system's stores, `<condition>.zarr`.
        lists: trials by name, as rows of these stores.
        conditions: of the test side.
        enrolment: the condition of the enrolment side.
        speakers: speaker by utterance id, where known.
        bootstrap: resamples of the confidence interval.
        seed: of the bootstrap.
        points: where detection costs are measured.
        comparison: how two sides are compared.
        progress: called with each row's name as it is done.

    Returns:
        Metrics by row and system, and ROCs and histograms by the same pair. A row is a list; of conditions other than
        `enrolment` it is `<list>/<condition>`.

    Raises:
        TrialError: no trials of one class are left of a list.
        StoreError: a store is missing, damaged, or holds other utterances than the rest.
    """
    stores = open_systems(systems, conditions, enrolment)
    first = next(iter(stores.values()))
    usable = np.all([store.status == OK for store in stores.values()], axis=0)
    kept = {name: _usable(name, trials, usable) for name, trials in lists.items()}
    numbers = _numbered([speakers.get(name) for name in first.utterances])
    how = COMPARISONS[comparison]
    enrolled = {system: how.stand_ins(stores[enrolment, system]) for system in systems}
    table: dict[str, dict[str, dict[str, Any]]] = {}
    rocs: dict[tuple[str, str], Roc] = {}
    histograms: dict[tuple[str, str], Histogram] = {}
    for condition in conditions:
        tested = {system: how.stand_ins(stores[condition, system]) for system in systems}
        for name, trials in kept.items():
            row = name if condition == enrolment else f"{name}/{condition}"
            sides = numbers[trials.enrol], numbers[trials.test]
            known = all((side >= 0).all() for side in sides)
            assert trials.target is not None  # or `_usable` would have refused it
            scores = {system: how.score(enrolled[system], tested[system], trials) for system in systems}
            table[row], curves = compare(scores, trials.target, sides if known else None, points, bootstrap, seed)
            rocs |= {(row, system): thin(roc) for system, roc in curves.items()}
            histograms |= {(row, system): histogram(values, trials.target) for system, values in scores.items()}
            if progress:
                progress(row)
    return table, rocs, histograms


def _usable(name: str, trials: Trials, usable: NDArray[np.bool_]) -> Trials:
    kept = trials.keep(usable[trials.enrol] & usable[trials.test])
    if kept.target is None or kept.target.all() or not kept.target.any():
        raise TrialError(
            f"trial list {name}: no targets or no non-targets are left, for their utterances failed. The lists of"
            " failures beside the stores say why."
        )
    return kept


def _numbered(speakers: Sequence[str | None]) -> Index:
    """Return a number a speaker, -1 for an unknown one."""
    numbers: dict[str, int] = {}
    return np.array([-1 if name is None else numbers.setdefault(name, len(numbers)) for name in speakers])
