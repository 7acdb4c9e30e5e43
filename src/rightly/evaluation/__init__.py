"""Did it get better: metrics, importances, intervals and paired tests, for models trained anywhere."""

from rightly.evaluation.importance import Importance, global_importance, lorenz, share_inside
from rightly.evaluation.metrics import METRICS, Metric, metrics_for, score
from rightly.evaluation.statistics import Comparison, Interval, adjust, binomial, bootstrap, compare, interval

__all__ = [
    "METRICS",
    "Comparison",
    "Importance",
    "Interval",
    "Metric",
    "adjust",
    "binomial",
    "bootstrap",
    "compare",
    "global_importance",
    "interval",
    "lorenz",
    "metrics_for",
    "score",
    "share_inside",
]
