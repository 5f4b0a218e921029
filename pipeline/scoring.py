"""Score a list of trials on stored embeddings."""

import numpy as np
from numpy.typing import NDArray

from pipeline.comparison import COMPARISONS, Name, unit_crops
from pipeline.enrolment import Models, Pooling, mean_of_units
from pipeline.errors import TrialError
from pipeline.spaces import check_comparable
from pipeline.store import OK, EmbeddingStore
from pipeline.trials import Trials


def score_list(
    enrol: EmbeddingStore,
    test: EmbeddingStore,
    trials: Trials,
    models: Models | None = None,
    pool: Pooling = mean_of_units,
    comparison: Name = "cosine",
) -> tuple[Trials, NDArray[np.float32]]:
    """Score a trial list between two stores; trials of failed utterances are left out.

    Args:
        enrol: store of the enrolment side.
        test: store of the test side.
        trials: rows of the test store against rows of the enrolment store, or against models.
        models: enrolment models of the enrolment store's utterances; what failed is left out of them.
        pool: how the utterances of a model become its vector.
        comparison: how two sides are compared.

    Raises:
        StoreError: the stores cannot be compared, or are damaged.
        TrialError: no trials are left; or models are to be compared crop by crop, which takes single utterances.
    """
    if models is not None and comparison != "cosine":
        raise TrialError("enrolment models are one vector each: set score.comparison to cosine, or leave them out.")
    check_comparable(enrol, test)
    ok = enrol.status == OK
    enrolled = ok if models is None else models.usable(ok)
    kept = trials.keep(enrolled[trials.enrol] & (test.status[trials.test] == OK))
    if len(kept) == 0:
        raise TrialError(f"{test.path}: no trials are left, their utterances all failed. See its failures list.")
    how = COMPARISONS[comparison]
    enrolled_as, tested_as = (how.stand_ins(unit_crops(store.read()[:, :, 0])) for store in (enrol, test))
    return kept, how.score(enrolled_as if models is None else pool(enrolled_as, models), tested_as, kept)
