"""Scikit-learn estimators that train a small network through its explanations; needs the extra ``sklearn``."""

from rightly.core.extras import require

for _package in ("sklearn", "pandas"):  # a missing one is named with the extra that brings it
    require(_package)

from rightly.integrations.sklearn.estimators import PriorClassifier, PriorRegressor  # noqa: E402

__all__ = ["PriorClassifier", "PriorRegressor"]
