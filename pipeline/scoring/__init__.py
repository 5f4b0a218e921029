"""Score trials by cosine, or with the systems and back-ends of `score.systems`."""

from pipeline.scoring.scorer import Scorer, score, score_list, scorer_of

__all__ = ["Scorer", "score", "score_list", "scorer_of"]
