"""Where detection costs are measured: in itself it knows no scores, so that parameters can name it cheaply."""

import math

from pydantic import Field

from pipeline.validation import Frozen


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
