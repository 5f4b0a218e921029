"""What `score.systems` may say: a system is a row of the table, made of vectors and back-ends, or of other systems."""

from typing import Literal

from pydantic import Field, model_validator

from pipeline.validation import Frozen

COHORT = "cohort"
"""As the name of a calibration list: all pairs of the cohort."""

Compare = Literal["cosine", "pairwise", "plda"]
Norm = Literal["z", "t", "s", "as"]
Quality = Literal["duration", "norm"]


class System(Frozen):
    """One line: how its scores come about, in the order of the fields."""

    of: str | None = None
    """Whose vectors."""
    ensemble: float | None = Field(None, ge=0, le=1)
    """Share of the original in a weighted sum of original and enhanced unit vectors; of enhanced vectors only."""
    center: bool = False
    """Is the mean vector of the cohort subtracted."""
    compare: Compare | None = None
    """How two sides are compared; as `score.comparison` if not given."""
    norm: Norm | None = None
    """Score normalisation by the cohort: z, t, s, or as (adaptive)."""
    top: int = Field(300, ge=2)
    """How many of the highest cohort scores adaptive normalisation goes by."""
    fuse: list[str] = Field([])
    """In place of `of`: systems whose scores are added, with learnt weights if `calibrate` is given."""
    calibrate: str | None = None
    """The list that logistic regression is fitted to, for log-likelihood ratios: a name, or `cohort`."""
    quality: list[Quality] = Field([])
    """What it also looks at, of both sides: duration in seconds, norm of the raw embedding."""

    @model_validator(mode="after")
    def _goes_together(self) -> "System":
        if (self.of is None) == (not self.fuse):
            raise ValueError("a system is `of` one system's vectors, or must `fuse` the scores of several")
        if self.fuse and (len(set(self.fuse)) < 2 or len(set(self.fuse)) < len(self.fuse)):
            raise ValueError("fuse must name two systems or more, each once")
        if self.fuse and (self.ensemble is not None or self.center or self.compare or self.norm):
            raise ValueError("ensemble, center, compare and norm belong to the systems that are fused")
        if self.quality and not self.calibrate:
            raise ValueError("quality needs calibrate, which learns what to make of it")
        return self

    @property
    def needs_cohort(self) -> bool:
        """Whether it cannot be scored without a cohort."""
        return self.center or self.norm is not None or self.compare == "plda" or self.calibrate == COHORT

    @property
    def needs_models(self) -> bool:
        """Whether it cannot be scored without the models that made enhanced vectors."""
        return self.needs_cohort or self.ensemble is not None


Column = Literal["gender", "age", "duration"]
"""What error rates can be told apart by."""


class CohortUse(Frozen):
    """Which part of the cohort store normalises scores."""

    of: Literal["utterances", "speakers"] = "utterances"
    """Single utterances, or the mean of each speaker's."""
    size: int = Field(6000, ge=2)
    """Most of them; a larger cohort is sampled."""
