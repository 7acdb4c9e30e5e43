"""Scikit-learn estimators that train a small network through its explanations; needs the extra ``sklearn``."""

from rightly.integrations.sklearn.estimators import PriorClassifier, PriorRegressor

__all__ = ["PriorClassifier", "PriorRegressor"]
