"""Iris-Cancer: two easy data sets side by side, so that either half tells the label (Ross 2018, section 2.3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rightly.core.extras import require

#: flowers of each class, and as many tumours
_EACH = 50


@dataclass(frozen=True)
class IrisCancer:
    """The composite data.

    Attributes:
        inputs: (100, 34) float32: four measurements of an iris in cm, then 30 of a tumour, each in its own unit.
        labels: (100,) int64: 0 for versicolor beside malignant, 1 for virginica beside benign.
        features: their names.
        irrelevant: (34,) bool, true for the iris.
    """

    inputs: np.ndarray
    labels: np.ndarray
    features: tuple[str, ...]
    irrelevant: np.ndarray

    def without_iris(self, inputs: np.ndarray) -> np.ndarray:
        """The same examples with the iris at 0, as in the thesis' second test set."""
        return np.where(self.irrelevant, np.float32(0), inputs)


def iris_cancer() -> IrisCancer:
    """All examples of Iris' classes 1 and 2 beside the first 50 of each class of Breast Cancer Wisconsin.

    Errors:
        MissingExtraError: scikit-learn, which brings both, is not installed.
    """
    datasets = require("sklearn.datasets")
    iris, cancer = datasets.load_iris(), datasets.load_breast_cancer()
    flowers = [iris.data[iris.target == kind][:_EACH] for kind in (1, 2)]
    tumours = [cancer.data[cancer.target == kind][:_EACH] for kind in (0, 1)]
    inputs = np.hstack([np.vstack(flowers), np.vstack(tumours)]).astype(np.float32)
    names = (*(name.removesuffix(" (cm)") for name in iris.feature_names), *cancer.feature_names.tolist())
    return IrisCancer(
        inputs,
        np.repeat(np.arange(2), _EACH),
        tuple(f"iris {name}" if at < 4 else f"tumour {name}" for at, name in enumerate(names)),
        np.arange(len(names)) < 4,
    )
