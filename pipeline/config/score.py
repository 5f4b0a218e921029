"""Settings of `score`. Each system is a row of the result table, made of vectors and back-ends, or of other systems."""

import math
from typing import Literal

from pydantic import Field, model_validator

from pipeline.utils.validation import MAX_COUNT, NAME, Frozen


class OperatingPoint(Frozen):
    """The prior of targets, and the costs of rejecting a target and of accepting a non-target (NIST SRE plans)."""

    p_target: float = Field(gt=0, lt=1)
    """The prior probability of a target."""
    c_miss: float = Field(1.0, gt=0, le=1e9)
    """The cost of rejecting a target."""
    c_fa: float = Field(1.0, gt=0, le=1e9)
    """The cost of accepting a non-target."""

    @property
    def name(self) -> str:
        """The suffix of the point's figures: `0.01`, or `0.01_10_1` if costs are not 1."""
        costs = "" if self.c_miss == self.c_fa == 1 else f"_{self.c_miss:g}_{self.c_fa:g}"
        return f"{self.p_target:g}{costs}"

    @property
    def weights(self) -> tuple[float, float]:
        """The costs of missing all targets and of accepting all non-targets, scaled so that the lower one is 1."""
        miss, false_alarm = self.c_miss * self.p_target, self.c_fa * (1 - self.p_target)
        return miss / min(miss, false_alarm), false_alarm / min(miss, false_alarm)

    @property
    def threshold(self) -> float:
        """The log-likelihood ratio above which accepting costs less than rejecting (Bayes)."""
        miss, false_alarm = self.weights
        return math.log(false_alarm / miss)


STANDARD = (OperatingPoint(p_target=0.01), OperatingPoint(p_target=0.05))
"""The default operating points."""

COHORT = "cohort"
"""The name of the calibration list with all pairs of the cohort."""

ComparisonName = Literal["cosine", "pairwise"]
Norm = Literal["z", "t", "s", "as"]
QualityMeasure = Literal["duration", "norm"]
ScoreFormat = Literal["csv", "kaldi", "txt"]


class System(Frozen):
    """A system; its steps are applied in the order of the fields."""

    of: str | None = None
    """The name of the vectors to score."""
    ensemble: float | None = Field(None, ge=0, le=1)
    """The weight of the original in the sum of original and enhanced vectors; only for enhanced vectors."""
    lengths: Literal["unit", "own"] = "unit"
    """The lengths of the vectors that an ensemble adds: unit, or their own."""
    center: bool = False
    """Subtract the mean vector of the cohort."""
    compare: Literal["cosine", "pairwise", "plda"] | None = None
    """The comparison of two sides; the default is `score.comparison`."""
    norm: Norm | None = None
    """The score normalisation by the cohort: z, t, s, or as (adaptive)."""
    top: int = Field(300, ge=2, le=MAX_COUNT)
    """Number of highest cohort scores that adaptive normalisation uses."""
    fuse: list[str] = Field([])
    """Systems whose scores are added, in place of `of`; `calibrate` learns their weights."""
    calibrate: str | None = None
    """The name of the list that logistic regression is fitted to, for log-likelihood ratios, or `cohort`."""
    quality: list[QualityMeasure] = Field([])
    """Quality measures of both sides that calibration also uses: duration in seconds, norm of the raw embedding."""

    @model_validator(mode="after")
    def _check_combination(self) -> "System":
        if (self.of is None) == (not self.fuse):
            raise ValueError("a system is `of` one system's vectors, or must `fuse` the scores of several")
        if self.fuse and (len(set(self.fuse)) < 2 or len(set(self.fuse)) < len(self.fuse)):
            raise ValueError("fuse must name two systems or more, each once")
        if self.fuse and (self.ensemble is not None or self.center or self.compare or self.norm):
            raise ValueError("ensemble, center, compare and norm belong to the systems that are fused")
        if self.lengths == "own" and self.ensemble is None:
            raise ValueError("lengths belongs to an ensemble; give its weight, ensemble: 0.5")
        if self.quality and not self.calibrate:
            raise ValueError("quality needs calibrate, which learns its weights")
        return self

    @property
    def needs_cohort(self) -> bool:
        """True if scoring needs a cohort."""
        return self.center or self.norm is not None or self.compare == "plda" or self.calibrate == COHORT

    @property
    def needs_models(self) -> bool:
        """True if scoring needs the models that made the enhanced vectors."""
        return self.needs_cohort or self.ensemble is not None


GroupColumn = Literal["gender", "age", "duration"]
"""The columns of a manifest by which error rates can be reported."""


class CohortUse(Frozen):
    """The selection of the cohort's vectors for score normalisation."""

    of: Literal["utterances", "speakers"] = "utterances"
    """Single utterances, or the mean of each speaker's utterances."""
    size: int = Field(6000, ge=2, le=MAX_COUNT)
    """Maximum number of vectors; a larger cohort is sampled."""


class Score(Frozen):
    """Trials, and the figures to measure on them."""

    max_trials: int = Field(1_000_000, ge=2, le=10**12)
    max_left_out: int | None = Field(None, ge=0, le=10**12)
    """The maximum number of trials of a list that may be left out because utterances failed; null: none of a published
    list, any number of another one."""
    comparison: ComparisonName = "cosine"
    both_sides: bool = True
    format: ScoreFormat = "csv"
    bootstrap: int = Field(1000, ge=0, le=1_000_000)
    operating_points: list[OperatingPoint] = Field(list(STANDARD), min_length=1)
    systems: dict[str, System] = Field({})
    cohort: CohortUse = CohortUse()
    groups: dict[GroupColumn, list[float]] = Field({"gender": [], "age": [18.0], "duration": [3.0, 6.0]})

    @model_validator(mode="after")
    def _check_values(self) -> "Score":
        if len({point.name for point in self.operating_points}) < len(self.operating_points):
            raise ValueError("operating_points must differ from each other")
        for column, edges in self.groups.items():
            if column == "gender" and edges:
                raise ValueError("groups.gender takes no edges; only numbers are cut into ranges")
            if sorted(set(edges)) != edges:
                raise ValueError(f"groups.{column}: edges must rise")
        for name in self.systems:
            if not NAME.fullmatch(name):
                raise ValueError(f"system name {name!r}: use letters, digits, '-' and '_'")
        return self
