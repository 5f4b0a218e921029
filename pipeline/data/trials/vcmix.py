"""VC-Mix: hard trials of mismatched sessions, the targets of Vox1-O among the non-targets of VoxConverse."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.data.trials.lists import read_pairs
from pipeline.errors import TrialError
from pipeline.utils.atomic import replacing

TARGETS, NONTARGETS = 18_802, 140_734
"""Trials of the published list (arXiv 2505.16798): targets of Vox1-O cleaned, non-targets of VoxConverse."""


def write_vcmix(vox1_o: Path, voxconverse: Path, out: Path) -> tuple[int, int]:
    """Write the non-targets of a VoxConverse list and after them the targets of a Vox1-O list.

    Returns:
        How many targets and non-targets those were.

    Raises:
        TrialError: a list is malformed, has no labels, or none of the class that is taken from it.
    """
    counts = [0, 0]
    with replacing(out) as temporary, temporary.open("wb") as file:
        for path, target in ((voxconverse, False), (vox1_o, True)):
            for enrol, test in _read_class(path, target):
                file.write(b"%d %s %s\n" % (target, enrol, test))
                counts[target] += 1
            if not counts[target]:
                raise TrialError(f"{path}: has no {'targets' if target else 'non-targets'}. Give the other list there.")
    return counts[True], counts[False]


def _read_class(path: Path, target: bool) -> Iterator[tuple[bytes, bytes]]:
    for enrol, test, labels in read_pairs(path):
        if labels is None:
            raise TrialError(f"{path}: has no labels, which tell targets from non-targets. Give a list that has.")
        for left, right, label in zip(enrol, test, labels.tolist(), strict=True):
            if label == target:
                yield left, right
