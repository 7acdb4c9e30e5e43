"""What the two estimators share: arguments, training, explanations, and a folder to keep them in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pandas import DataFrame
from sklearn.base import BaseEstimator
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError
from rightly.integrations.sklearn import learning, saving
from rightly.integrations.sklearn.settings import Settings, read_settings
from rightly.integrations.sklearn.tables import fit_encoder, read_rows
from rightly.integrations.sklearn.terms import make_term, read_annotation, read_prior
from rightly.objectives import Term
from rightly.training import Run

#: references an example when importances are computed
_IMPORTANCE_SAMPLES = 50


class PriorEstimator(BaseEstimator):  # type: ignore[misc]
    """The common part; see ``PriorClassifier``."""

    def __init__(
        self,
        prior: Any = "sparsity",
        weight: Any = "auto",
        *,
        attribution: Any = "expected_gradients",
        n_samples: Any = 1,
        reference: Any = None,
        network: Any = None,
        hidden: Any = (64, 32),
        epochs: Any = 100,
        batch_size: Any = None,
        lr: Any = 1e-3,
        weight_decay: Any = 1e-4,
        validation_fraction: Any = 0.2,
        patience: Any = 10,
        random_state: Any = None,
        verbose: Any = False,
        device: Any = None,
    ) -> None:
        self.prior = prior
        self.weight = weight
        self.attribution = attribution
        self.n_samples = n_samples
        self.reference = reference
        self.network = network
        self.hidden = hidden
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.verbose = verbose
        self.device = device

    def explain(self, X: Any, y: Any = None, *, n_samples: int = 200) -> np.ndarray:
        """How much each original column moved each prediction, against a sample of the training rows.

        Expected gradients; the features that encode a column are summed, so that a row adds up (but for the sampling
        error, which falls with ``n_samples``) to its output minus the mean output of the training rows.

        Args:
            X: (N, n_features_in_), as for ``fit``.
            y: (N,) classes to explain, by default the predicted ones. A regressor does not read it.
            n_samples: training rows that each row is compared with.

        Returns:
            (N, n_features_in_) float64. Of a classifier in units of the class' score, which is the logit minus the
            mean logit over classes (with two classes: half of the log-odds); of a regressor in units of y.

        Raises:
            NotFittedError: before ``fit``.
            ArgumentError, DataError, ValueError: the rows or classes cannot be read.
        """
        encoded = self._encode(X)
        check_count("n_samples", n_samples)
        return self._explain(encoded, self._targets(y, len(encoded)), n_samples)

    def save(self, folder: str | Path) -> Path:
        """Write the fitted estimator to ``folder`` as one file, ``estimator.safetensors``; an older one is replaced.

        The file holds arguments, encoder, network and up to 200 encoded training rows, which ``explain`` compares
        with. Nothing in it is pickled.

        Returns:
            The file.

        Raises:
            NotFittedError: before ``fit``.
            ArgumentError: an argument cannot be described, such as a ``network`` of one's own; pickle takes those.
        """
        check_is_fitted(self, "network_")
        return saving.save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The estimator that ``save`` wrote; its predictions are the same to the bit.

        Raises:
            CheckpointError: there is none, it is damaged, or it is of another kind.
        """
        estimator: Self = saving.load(cls, Path(folder))
        return estimator

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _learn(self, frame: DataFrame, labels: Tensor, n_out: int, annotation: Any) -> None:
        """Train on all rows of ``frame`` and set the fitted attributes.

        Args:
            frame: as read.
            labels: (N,) class numbers, or float32 values in units of their deviation.
            n_out: classes, or 1.
            annotation: as given to ``fit``.
        """
        settings = read_settings(self, len(frame))
        prior = read_prior(self.prior)
        encoder = fit_encoder(frame)
        encoded = encoder.transform(frame)
        inputs, groups = torch.from_numpy(encoded), torch.from_numpy(encoder.groups)
        columns = frame.shape[1]
        read = read_annotation(annotation, prior, len(frame), groups, columns)
        term = None
        if prior is not None:
            term = make_term(self, prior, settings.weight, settings.n_samples, inputs, groups, columns)
        network = learning.make_network(settings, encoded.shape[1], n_out)
        with learning.one_thread():
            run = learning.train(network, learning.Table(inputs, labels, read), term, settings)
            self.encoder_, self.network_, self.seed_ = encoder, network, settings.seed
            sizes = {"n_in": encoded.shape[1], "hidden": list(settings.hidden), "n_out": n_out}
            self.layers_ = sizes if settings.network is None else None
            self.background_ = encoded[learning.some_rows(len(encoded), learning.BACKGROUND, settings.seed)]
            self._set_facts(run, term, encoded, settings)

    def _set_facts(self, run: Run, term: Term | None, encoded: np.ndarray, settings: Settings) -> None:
        self.weight_ = 0.0 if term is None else run.weights[term.name]
        self.weight_choice_ = None if term is None else run.choices.get(term.name)
        self.history_, self.n_iter_ = run.history, len(run.history)
        rows = learning.some_rows(len(encoded), learning.IMPORTANCE_ROWS, settings.seed)
        sizes = np.abs(self._explain(encoded[rows], None, _IMPORTANCE_SAMPLES)).mean(0)
        self.feature_importances_ = sizes / sizes.sum() if sizes.sum() > 0 else sizes

    def _explain(self, encoded: np.ndarray, target: np.ndarray | None, n_samples: int) -> np.ndarray:
        groups = self.encoder_.groups
        return learning.explain(
            self.network_,
            encoded,
            self.background_,
            groups,
            self.n_features_in_,
            n_samples=n_samples,
            target=target,
            seed=self.seed_,
        )

    def _targets(self, y: Any, rows: int) -> np.ndarray | None:
        """(N,) class numbers to explain; None for the predicted ones."""
        return None

    def _encode(self, X: Any) -> np.ndarray:
        """(N, F) float32."""
        check_is_fitted(self, "network_")
        return self.encoder_.transform(read_rows(self, X, fitting=False))

    def _outputs(self, X: Any) -> np.ndarray:
        """(N, n_out) float64."""
        encoded = self._encode(X)
        return learning.outputs(self.network_, encoded)

    def _read_y(self, y: Any, rows: int) -> np.ndarray:
        """(N,) finite labels of any type. Raises ``ValueError`` where that is not what ``y`` is."""
        if y is None:
            raise ArgumentError(
                f"{type(self).__name__} requires y to be passed, but the target y is None", expected="(rows,)"
            )
        values: np.ndarray = column_or_1d(y, warn=True)
        assert_all_finite(values, input_name="y")
        if len(values) != rows:
            check_consistent_length(np.empty(rows), values)
        return values
