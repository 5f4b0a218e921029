"""Score trials by cosine, or by the back-ends and systems of `score.systems`."""

from pipeline.scoring.scorer import Scorer, score, score_list, scorer_of

__all__ = ["Scorer", "score", "score_list", "scorer_of"]
