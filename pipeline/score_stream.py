"""Score a list of any length from disk to disk: in memory is a block of it, and what error rates need of the rest."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.score_lines import Format, header, lines_of
from pipeline.scoring import Scorer, no_trials
from pipeline.trial_spool import Spool


def score_to_file(
    spool: Spool,
    scorer: Scorer,
    names: tuple[Sequence[str], Sequence[str]],
    form: Format,
    out: Path,
    progress: Callable[[int], None] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None, int]:
    """Score a list block by block, and write a line a trial in its order; trials of failed utterances are left out.

    Args:
        spool: the list.
        scorer: of the stores it was read against.
        names: ids of both sides in row order.
        form: of the lines.
        out: the file to write.
        progress: called with the number of trials of each block as it is done.

    Returns:
        Scores [M] and labels [M] of the trials written, of an unlabeled list none and None; and how many these are.

    Raises:
        TrialError: no trials are left, a score is not finite, or an id cannot be written in this form.
    """
    lines, written = lines_of(form, *names), 0
    labeled = spool.counts.targets is not None
    scores = np.empty(spool.counts.trials if labeled else 0, dtype=np.float32)
    target = np.empty(len(scores), dtype=np.bool_)
    with out.open("wb") as file:
        file.write(header(form))
        for block in spool.blocks():
            kept, values = scorer(block)
            file.write(lines(kept, values))
            if kept.target is not None:
                scores[written : written + len(kept)] = values
                target[written : written + len(kept)] = kept.target
            written += len(kept)
            if progress:
                progress(len(block))
    if written == 0:
        raise no_trials(scorer.path)
    return scores[:written], target[:written] if labeled else None, written
