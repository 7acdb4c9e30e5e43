"""LIME's explanations in one form, to hold others against: extra ``lime``.

Source: Ribeiro, Singh, Guestrin (2016), "Why should I trust you?". Every function takes ``predict``, from an array (or
texts) to class probabilities (N, classes), and explains class ``target`` of one example by a local linear fit.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rightly.core.extras import require

Predict = Callable[[Any], np.ndarray]


def check_installed() -> None:
    """Raise ``MissingExtraError`` where LIME is not installed, before anything is trained for it."""
    require("lime")


def explain_row(
    predict: Predict,
    background: np.ndarray,
    row: np.ndarray,
    *,
    target: int,
    n_features: int = 10,
    n_samples: int = 5000,
    discretize: bool = False,
    seed: int = 0,
) -> dict[int, float]:
    """The columns of a row that matter most, with their weights.

    Args:
        predict: (N, F) -> (N, classes).
        background: (N, F), the rows whose spread the perturbations have.
        row: (F,).
        target: the class explained.
        n_features, n_samples: of the local fit.
        discretize: quartiles instead of numbers.
        seed: of the perturbations.

    Errors:
        MissingExtraError: lime is not installed.
    """
    tabular = require("lime.lime_tabular")
    explainer = tabular.LimeTabularExplainer(
        background, mode="classification", discretize_continuous=discretize, random_state=seed
    )
    found = explainer.explain_instance(row, predict, labels=(target,), num_features=n_features, num_samples=n_samples)
    return {int(column): float(weight) for column, weight in found.as_map()[target]}


def explain_text(
    predict: Callable[[Sequence[str]], np.ndarray],
    text: str,
    *,
    target: int,
    n_features: int = 10,
    n_samples: int = 5000,
    seed: int = 0,
) -> dict[str, float]:
    """The words of a text that matter most, with their weights; arguments as for ``explain_row``."""
    texts = require("lime.lime_text")
    explainer = texts.LimeTextExplainer(random_state=seed)
    found = explainer.explain_instance(text, predict, labels=(target,), num_features=n_features, num_samples=n_samples)
    return {str(word): float(weight) for word, weight in found.as_list(label=target)}


def explain_image(
    predict: Predict, image: np.ndarray, *, target: int, n_samples: int = 1000, seed: int = 0
) -> tuple[dict[int, float], np.ndarray]:
    """Weights of all pieces of a grey picture (H, W) in [0, 1], and which piece each pixel belongs to, (H, W).

    ``predict`` gets pictures (N, H, W, 3), as LIME makes them; a piece that is taken away is painted in its mean.
    """
    images, wrappers = require("lime.lime_image"), require("lime.wrappers.scikit_image")
    explainer = images.LimeImageExplainer(random_state=seed)
    # the defaults are for photographs: a digit would be one piece
    pieces = wrappers.SegmentationAlgorithm("quickshift", kernel_size=1, max_dist=200, ratio=0.2, random_seed=seed)
    with contextlib.redirect_stderr(io.StringIO()):  # it draws a bar that cannot be turned off
        found = explainer.explain_instance(
            np.repeat(image[..., None], 3, axis=2).astype(np.float64),
            predict,
            labels=(target,),
            top_labels=None,
            num_samples=n_samples,
            segmentation_fn=pieces,
        )
    weights = {int(piece): float(weight) for piece, weight in found.local_exp[target]}
    return weights, np.asarray(found.segments)
