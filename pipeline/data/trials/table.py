"""Trials: pairs of enrolment and test utterances, and their labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import TrialError
from pipeline.utils.array_types import IntArray


@dataclass(frozen=True)
class Trials:
    """Trials as row numbers: `enrol` and `test` [M] into lists of utterance ids (or of models)."""

    enrol: IntArray
    test: IntArray
    target: NDArray[np.bool_] | None
    """True for the same speaker [M]; None if unlabeled."""

    def __len__(self) -> int:
        return len(self.enrol)

    def keep(self, mask: NDArray[np.bool_]) -> "Trials":
        """Return the trials of a mask [M]."""
        return Trials(self.enrol[mask], self.test[mask], None if self.target is None else self.target[mask])


def make_all_pairs(speakers: Sequence[str], limit: int, seed: int) -> Trials:
    """Pair every utterance as enrolment with every other utterance as test, in row order.

    If there are more than `limit` trials, draw a seeded sample: all targets up to half the limit, the rest non-targets.

    `speakers` [N] holds the speaker of every utterance.

    Raises:
        TrialError: there would be no target or no non-target trial.
    """
    _, group = np.unique(np.asarray(speakers), return_inverse=True)
    count = len(group)
    enrol, test = _target_pairs(group)
    others = count * (count - 1) - len(enrol)
    if len(enrol) == 0 or others == 0:
        kind = "target" if len(enrol) == 0 else "non-target"
        raise TrialError(
            f"{count} utterances of {len(set(speakers))} speakers make no {kind}"
            " trials; give at least two speakers with two utterances each."
        )
    rng = np.random.default_rng(seed)
    if len(enrol) + others > limit:
        kept = np.sort(rng.permutation(len(enrol))[: max(1, limit // 2)])
        enrol, test = enrol[kept], test[kept]
        codes = _sample_nontargets(group, min(others, limit - len(enrol)), rng)
    else:
        codes = np.flatnonzero((group[:, None] != group[None, :]).ravel())
    codes = np.sort(np.concatenate([enrol * count + test, codes]))
    enrol, test = codes // count, codes % count
    return Trials(enrol, test, group[enrol] == group[test])


def _target_pairs(group: IntArray) -> tuple[IntArray, IntArray]:
    """Return all ordered pairs of different rows of the same group."""
    enrol, test = [], []
    order = np.argsort(group, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        first, second = np.meshgrid(rows, rows, indexing="ij")
        differ = first != second
        enrol.append(first[differ])
        test.append(second[differ])
    return np.concatenate(enrol), np.concatenate(test)


def _sample_nontargets(group: IntArray, wanted: int, rng: np.random.Generator) -> IntArray:
    """Draw distinct non-target pairs as codes enrol * N + test, without listing all pairs."""
    count = len(group)
    codes: IntArray = np.empty(0, dtype=np.int64)
    while len(codes) < wanted:
        drawn = rng.integers(count * count, size=2 * (wanted - len(codes)) + 64)
        drawn = drawn[group[drawn // count] != group[drawn % count]]
        codes = np.unique(np.concatenate([codes, drawn]))
    return rng.permutation(codes)[:wanted]
