"""Made tables with a linear outcome: the two data sets on which explanation methods are compared.

Source: Lundberg et al. (2020), From local explanations to global understanding with explainable AI for trees (the SHAP
package's benchmark). The defaults give the published numbers themselves: the same random stream, in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rightly.core.checks import check_count

_FEATURES, _RELEVANT, _GROUP = 60, 30, 3
_CORRELATION, _NOISE = 0.99, 0.01


@dataclass(frozen=True)
class LinearData:
    """A table whose outcome is a linear function of it and a little noise.

    Attributes:
        inputs: (N, 60) float64.
        labels: (N,) float64, inputs @ coefficients + noise of standard deviation 0.01.
        coefficients: (60,), 1 for features 0, 3, ..., 27 and 0 for all others.
    """

    inputs: np.ndarray
    labels: np.ndarray
    coefficients: np.ndarray


def corrgroups60(n: int = 1000, *, seed: int = 0) -> LinearData:
    """Correlated groups 60: ten groups of three features correlated by 0.99, then 30 independent ones.

    The first of each group makes the outcome. Means are exactly 0, and the sample's correlations exactly those named.

    Args:
        n: rows, more than 60.
        seed: of the numbers; 0 is the published data set.
    """
    draws, normal = _draw(n, seed, least=_FEATURES + 1)
    groups = np.arange(_FEATURES) // _GROUP
    together = (groups[:, None] == groups) & (groups * _GROUP < _RELEVANT)
    correlations = np.where(together, _CORRELATION, 0.0)
    np.fill_diagonal(correlations, 1.0)
    # removes what correlation the draws have by chance, then gives them the one that is wanted
    white = normal @ np.linalg.cholesky(np.linalg.inv(normal.T @ normal / n))
    return _labelled(white @ np.linalg.cholesky(correlations).T, draws)


def independentlinear60(n: int = 1000, *, seed: int = 0) -> LinearData:
    """Independent linear 60: the same outcome, of 60 independent normal features; only their means are exactly 0.

    Args:
        n: rows.
        seed: of the numbers; 0 is the published data set.
    """
    draws, normal = _draw(n, seed, least=1)
    return _labelled(normal, draws)


def _draw(n: int, seed: int, least: int) -> tuple[np.random.RandomState, np.ndarray]:
    """The stream, and the first (n, 60) normal numbers of it, each column less its mean."""
    # NumPy's older generator, because the published data sets were drawn from it
    draws = np.random.RandomState(check_count("seed", seed, least=0))
    normal = draws.standard_normal((check_count("n", n, least=least), _FEATURES))
    return draws, normal - normal.mean(0)


def _labelled(inputs: np.ndarray, draws: np.random.RandomState) -> LinearData:
    coefficients = np.zeros(_FEATURES)
    coefficients[:_RELEVANT:_GROUP] = 1
    noise = _NOISE * draws.standard_normal(len(inputs))
    return LinearData(inputs, inputs @ coefficients + noise, coefficients)
