"""What `score.systems` may say: a system is a row of the table, made of vectors and back-ends, or of other systems."""

import math
from typing import Literal

from pydantic import Field, model_validator

from pipeline.utils.validation import NAME, Frozen


class OperatingPoint(Frozen):
    """An application: how likely targets are, and what a miss and a false alarm cost (NIST SRE plans)."""

    p_target: float = Field(gt=0, lt=1)
    """How likely a trial is one of the same speaker."""
    c_miss: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Cost of a target that is rejected."""
    c_fa: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Cost of a non-target that is accepted."""

    @property
    def name(self) -> str:
        """Its part in the names of figures: `0.01`, or `0.01_10_1` with costs other than 1."""
        costs = "" if self.c_miss == self.c_fa == 1 else f"_{self.c_miss:g}_{self.c_fa:g}"
        return f"{self.p_target:g}{costs}"

    @property
    def weights(self) -> tuple[float, float]:
        """Cost of missing all targets and of accepting all non-targets, the cheaper of which counts 1."""
        miss, false_alarm = self.c_miss * self.p_target, self.c_fa * (1 - self.p_target)
        least = min(miss, false_alarm)
        return miss / least, false_alarm / least

    @property
    def threshold(self) -> float:
        """Log-likelihood ratio above which accepting costs less than rejecting (Bayes)."""
        miss, false_alarm = self.weights
        return math.log(false_alarm / miss)


STANDARD = (OperatingPoint(p_target=0.01), OperatingPoint(p_target=0.05))
"""The points that are reported unless others are asked for."""


COHORT = "cohort"
"""As the name of a calibration list: all pairs of the cohort."""

Compare = Literal["cosine", "pairwise", "plda"]
Norm = Literal["z", "t", "s", "as"]
QualityMeasure = Literal["duration", "norm"]


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
    quality: list[QualityMeasure] = Field([])
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


class Score(Frozen):
    """Trials and what is measured on them."""

    max_trials: int = Field(1_000_000, ge=2)
    comparison: Literal["cosine", "pairwise"] = "cosine"
    both_sides: bool = True
    format: Literal["csv", "kaldi", "txt"] = "csv"
    bootstrap: int = Field(1000, ge=0)
    operating_points: list[OperatingPoint] = Field(list(STANDARD), min_length=1)
    systems: dict[str, System] = Field({})
    cohort: CohortUse = CohortUse()
    groups: dict[Column, list[float]] = Field({"gender": [], "age": [18.0], "duration": [3.0, 6.0]})

    @model_validator(mode="after")
    def _points_differ(self) -> "Score":
        if len({point.name for point in self.operating_points}) < len(self.operating_points):
            raise ValueError("operating_points must differ from each other")
        for column, edges in self.groups.items():
            if column == "gender" and edges:
                raise ValueError("groups.gender has no edges; only numbers are cut into ranges")
            if sorted(set(edges)) != edges:
                raise ValueError(f"groups.{column} must rise")
        for name in self.systems:
            if not NAME.fullmatch(name):
                raise ValueError(f"system name {name!r}: use letters, digits, '-' and '_'")
        return self
