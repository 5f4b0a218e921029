"""VC-Mix: hard trials from different sessions, with targets of Vox1-O and non-targets of VoxConverse."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.data.trials.parser import parse_trials
from pipeline.errors import TrialError
from pipeline.utils.atomic import replacing

TARGETS, NONTARGETS = 18_802, 140_734
"""Trials of the published list (arXiv 2505.16798): targets of Vox1-O cleaned, non-targets of VoxConverse."""


def write_vcmix(vox1_o: Path, voxconverse: Path, out: Path) -> tuple[int, int]:
    """Write the non-targets of a VoxConverse list, then the targets of a Vox1-O list.

    Returns:
        Numbers of targets and non-targets.

    Raises:
        TrialError: a list is malformed, has no labels, or has no trials of its class.
    """
    counts = [0, 0]
    with replacing(out) as temporary, temporary.open("wb") as file:
        for path, target in ((voxconverse, False), (vox1_o, True)):
            for enrol, test in _read_class(path, target):
                file.write(b"%d %s %s\n" % (target, enrol, test))
                counts[target] += 1
            if not counts[target]:
                raise TrialError(f"{path}: has no {'targets' if target else 'non-targets'}. Give another list.")
    return counts[True], counts[False]


def _read_class(path: Path, target: bool) -> Iterator[tuple[bytes, bytes]]:
    for block in parse_trials(path):
        if block.target is None:
            raise TrialError(f"{path}: has no labels to distinguish targets from non-targets. Give a labeled list.")
        for enrol, test, label in zip(block.enrol, block.test, block.target.tolist(), strict=True):
            if label == target:
                yield enrol, test
