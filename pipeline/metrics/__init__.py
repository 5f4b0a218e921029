"""Error rates of speaker verification, their confidence intervals, and the calibration of scores."""

from pipeline.metrics.bootstrap import Ranking, interval, p_value, replicates
from pipeline.metrics.costs import act_dcf, cllr, min_cllr, min_dcf, min_dcf_threshold
from pipeline.metrics.roc import Roc, eer, eer_threshold, false_alarm_at, miss_at, probit, roc_of, rocch, thin
from pipeline.metrics.summary import (
    Histogram,
    Speakers,
    by_group,
    compare,
    figures,
    histogram,
    mean_compared,
    operating,
)

__all__ = ["Histogram", "Ranking", "Roc", "Speakers", "act_dcf", "by_group", "cllr", "compare", "eer", "eer_threshold"]
__all__ += ["false_alarm_at", "figures", "histogram", "interval", "mean_compared", "min_cllr", "min_dcf"]
__all__ += ["min_dcf_threshold", "miss_at", "operating", "p_value", "probit", "replicates", "roc_of", "rocch", "thin"]
