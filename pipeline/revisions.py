"""Code revisions that DVC watches, one number per stage of `dvc.yaml`.

Raise a stage's number when the same inputs and parameters give other outputs: `dvc repro` then makes them again. Code
may move or be rewritten as long as outputs stay the same. A resumed run, too, starts from scratch after a raise.
"""

FETCH = 1
"""Corpora: `ROLES` and `LISTS` of `pipeline.data.corpora` included."""
EXTRACT = 2
"""Embedding stores."""
CHECK = 1
"""Figures of `seed store check`."""
TRAIN = 6
"""Models."""
ENHANCE = 6
"""Enhanced stores."""
SCORE = 4
"""Scores and error rates."""
