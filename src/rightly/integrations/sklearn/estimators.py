"""``PriorClassifier`` and ``PriorRegressor``: scikit-learn estimators, their documentation and their outputs."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from scipy.special import softmax
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets

from rightly.core.errors import ArgumentError, DataError
from rightly.integrations.sklearn.base import PriorEstimator
from rightly.integrations.sklearn.tables import read_rows


class PriorClassifier(ClassifierMixin, PriorEstimator):  # type: ignore[misc]
    """A small network that classifies the rows of a table, trained through its explanations.

    ``X`` is a frame whose columns hold numbers, text, categories or truth values, or an array; entries may be
    missing. Arrays of numbers are numbers throughout. Numbers are standardised and categories become 0/1 features
    (``rightly.data.TableEncoder``), but priors, annotations and importances count original columns.

    An ``annotation`` is passed to ``fit``: an ``rt.Annotation`` whose last dimension counts the columns of ``X``, or
    an array (rows or 1, columns), True where a column must not matter and NaN where that is not known. Behind
    scikit-learn's metadata routing use an array, since those are what it can take rows from.

    The default weight is chosen with up to eight trainings on the rows that are not held out. With annotations prefer
    ``"balance"`` or a number: held-out rows of the same table reward the very shortcut that an annotation forbids.

    Args:
        prior: what is expected of the explanations: a registered name, a prior, or None for plain training.
        weight: its strength: ``"auto"`` (the largest that the held-out rows cannot tell from the best),
            ``"balance"`` (as large as the task loss), or a number.
        attribution: how columns are explained in training: a registered name or an attribution.
        n_samples: references an example in training, for an attribution given by name that takes references.
        reference: what "not knowing a column" means, likewise: None (other rows of the batch), a registered name
            (``"sample"``: any training row), or a reference in encoded features, where 0 is a number's mean.
        network: (n_in, n_out) -> ``torch.nn.Module``; None for ReLU layers of sizes ``hidden``.
        hidden: sizes of the hidden layers.
        epochs: at most so many.
        batch_size: rows a step; None for 64, and up to 1024 for tables of more than 3,200 rows.
        lr, weight_decay: of Adam.
        validation_fraction: share of the rows, of every class, that is held out to stop early and to choose the
            weight; 0 for none.
        patience: epochs without improvement until training stops; None never stops.
        random_state: an int for the same bits every time; None for another network every time. Global random states
            are never touched.
        verbose: show progress.
        device: where to train. The fitted network is on the CPU.

    Attributes:
        classes_: (C,) labels, sorted.
        feature_importances_: (n_features_in_,) mean absolute ``explain`` of the training rows, with sum 1.
        weight_: of the prior, as used. weight_choice_: how ``"auto"`` or ``"balance"`` settled it, else None.
        history_: one dict an epoch: ``task``, ``terms``, ``validation``. n_iter_: epochs trained.
        network_: the module, in float64 on the CPU. layers_: its sizes; None for a ``network`` of one's own.
        encoder_: the ``TableEncoder``, learnt from all rows given to ``fit``.
        background_: (at most 200, F) encoded training rows that explanations compare with.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Raises:
        ArgumentError, AnnotationError, DataError: an argument of the constructor or of ``fit`` cannot be used; each
            is a ``ValueError``.
    """

    def fit(self, X: Any, y: Any, *, annotation: Any = None) -> Self:
        """Train on a table ``X`` (N, columns) with labels ``y`` (N,)."""
        frame = read_rows(self, X, fitting=True)
        labels = self._read_y(y, len(frame))
        check_classification_targets(labels)
        classes, numbers = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise DataError(
                f"{type(self).__name__} needs two classes",
                expected="at least 2 classes",
                got=f"1 class: {classes[0]!r}",
            )
        self.classes_ = classes
        self._learn(frame, torch.tensor(numbers, dtype=torch.int64), len(classes), annotation)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row, (N,)."""
        scores = self._outputs(X)
        labels: np.ndarray = self.classes_[scores.argmax(1)]
        return labels

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class, (N, C) float64."""
        probabilities: np.ndarray = softmax(self._outputs(X), axis=1)
        return probabilities

    def decision_function(self, X: Any) -> np.ndarray:
        """(N, C) scores, logits whose mean over classes is 0; with two classes (N,) log-odds of the second."""
        scores = self._outputs(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def _targets(self, y: Any, rows: int) -> np.ndarray | None:
        if y is None:
            return None
        labels = self._read_y(y, rows)
        if unknown := sorted(set(labels.tolist()) - set(self.classes_.tolist()), key=str):
            raise ArgumentError("y names unknown classes", expected=self.classes_.tolist(), got=unknown[:5])
        return np.searchsorted(self.classes_, labels)


class PriorRegressor(RegressorMixin, PriorEstimator):  # type: ignore[misc]
    """A small network that predicts a number for each row of a table, trained through its explanations.

    Arguments and attributes are those of ``PriorClassifier``, without ``classes_``. In training ``y`` is
    standardised; ``history_`` is in those units, ``predict`` and ``explain`` in the units of ``y``.

    Attributes:
        y_mean_, y_scale_: of the training labels.
    """

    def fit(self, X: Any, y: Any, *, annotation: Any = None) -> Self:
        """Train on a table ``X`` (N, columns) with values ``y`` (N,)."""
        frame = read_rows(self, X, fitting=True)
        values = self._read_values(y, len(frame))
        unit = float(np.abs(values).max()) or 1.0  # squares of very large values would overflow
        deviation = float((values / unit).std()) * unit
        self.y_mean_ = float((values / unit).mean()) * unit
        self.y_scale_ = deviation if deviation > 1e-12 * unit else 1.0
        standard = (values - self.y_mean_) / self.y_scale_
        self._learn(frame, torch.tensor(standard, dtype=torch.float32), 1, annotation)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The predicted value of each row, (N,) float64."""
        return self._outputs(X)[:, 0] * self.y_scale_ + self.y_mean_

    def _explain(self, encoded: np.ndarray, target: np.ndarray | None, n_samples: int) -> np.ndarray:
        return super()._explain(encoded, None, n_samples) * self.y_scale_

    def _read_values(self, y: Any, rows: int) -> np.ndarray:
        labels = self._read_y(y, rows)
        try:
            return labels.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise DataError("y must hold numbers", expected="numbers", got=str(error)) from error
