"""Sparsity studies: networks for mortality under every penalty that the papers compare, on few rows.

A recipe says on which people and at which strengths; encoding, the penalties themselves, training a block of splits at
once, choosing a strength by validation and measuring what came out are the same for all of them and are done here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from rightly.attributions import ExpectedGradients, attribute
from rightly.core.errors import ArgumentError
from rightly.data import Table, TableEncoder
from rightly.evaluation import Importance, global_importance, lorenz
from rightly.models import mlp
from rightly.objectives import recipes
from rightly.objectives.model_term import AnyTerm
from rightly.objectives.term import EngineName, Term
from rightly.objectives.weights import WeightTerm
from rightly.priors import L2
from rightly.references import Sample
from rightly.training import fit_many
from rightly.workflows.resumable import Row

Part = tuple[Tensor, Tensor]
Parts = dict[str, Part]

HIDDEN = (512, 128, 32)
#: references a row, at most, when the importances of networks that were not chosen are measured
_COARSE = 20
#: rows, at most, that importances are measured on
_EXPLAINED = 500
#: networks trained at once
_AT_ONCE = 10


@dataclass(frozen=True)
class Arm:
    """One way to regularise.

    Attributes:
        title: in the report.
        terms: (the paper's lambda, training inputs, references a row) -> terms.
        told: the attribution in words, for a prior.
        rates: strengths are dropout rates.
    """

    title: str
    terms: Callable[[float, Tensor, int], list[AnyTerm]] = lambda weight, x, k: []
    told: str = ""
    rates: bool = False


def network(features: int, seed: int, dropout: float = 0.0) -> nn.Module:
    """The papers' network, one logit."""
    return mlp(features, HIDDEN, 1, dropout=dropout, seed=seed)


def _l1_of_weights(layers: Any) -> Callable[[float, Tensor, int], list[AnyTerm]]:
    return lambda weight, x, k: [recipes.l1_weights(weight, layers=layers, paper_model=network(x.shape[1], 0))]


_EG, _GRAD, _ROSS = "expected gradients", "input gradients of the logit", "input gradients of the log-probabilities"

#: the sixteen of the authors' code, in the papers' lambda where it can be converted. L2 is that of squares: the code's
#: root of their sum has the same stationary points, at other strengths
ARMS = {
    "plain": Arm("No penalty"),
    "dropout": Arm("Dropout", rates=True),
    "l1_all": Arm("L1 of all weights", _l1_of_weights("all")),
    "l1_first": Arm("L1 of the first layer", _l1_of_weights("first")),
    "l2_all": Arm("L2 of all weights", lambda w, x, k: [WeightTerm("l2", "all", w)]),
    "l2_first": Arm("L2 of the first layer", lambda w, x, k: [WeightTerm("l2", "first", w)]),
    "sgl_all": Arm("Sparse group lasso, all layers", lambda w, x, k: [recipes.sparse_group_lasso(w)]),
    "sgl_first": Arm(
        "Sparse group lasso, first layer", lambda w, x, k: [recipes.sparse_group_lasso(w, layers="first")]
    ),
    "l1_eg": Arm(
        "L1 of expected gradients",
        lambda w, x, k: [recipes.l1_attribution_prior(w, reference=Sample(x), n_samples=k, paper_features=x.shape[1])],
        _EG,
    ),
    "l2_eg": Arm(
        "L2 of expected gradients", lambda w, x, k: [Term(ExpectedGradients(Sample(x), n_samples=k), L2(), w)], _EG
    ),
    "gini_eg": Arm(
        "Gini of expected gradients",
        lambda w, x, k: [recipes.sparse_attribution_prior(w, reference=Sample(x), n_samples=k)],
        _EG,
    ),
    "mixed_eg": Arm(
        "Gini and L1 of expected gradients",
        lambda w, x, k: [
            *recipes.mixed_sparse_attribution_prior(w, reference=Sample(x), n_samples=k, paper_features=x.shape[1])
        ],
        _EG,
    ),
    "l1_grad": Arm(
        "L1 of gradients",
        lambda w, x, k: [recipes.neural_lasso(w, output="logit", paper_features=x.shape[1])],
        _GRAD,
    ),
    "gini_grad": Arm("Gini of gradients", lambda w, x, k: [recipes.sparse_gradient_prior(w, output="logit")], _GRAD),
    "l1_ross": Arm(
        "L1 of log-probability gradients",
        lambda w, x, k: [recipes.neural_lasso(w, paper_features=x.shape[1])],
        _ROSS,
    ),
    "gini_ross": Arm("Gini of log-probability gradients", lambda w, x, k: [recipes.sparse_gradient_prior(w)], _ROSS),
}


@dataclass(frozen=True)
class _Trained:
    """A network at the epoch that validated best; none where its training diverged."""

    seed: int
    strength: float
    model: nn.Module | None
    validation: float | None
    epoch: int
    engines: dict[str, str]


@dataclass(frozen=True)
class Study:
    """People, and how networks are trained on them.

    Attributes:
        table: everyone.
        train, validation: rows of a split; ``test`` are the others, or so many of them.
        chance: features of pure chance that are added: 0/1, with shares from 0.5 to 20 % that are the same in every
            split.
        k, references: references a row in training, and when the importances of a chosen network are measured.
        epochs, batch_size, optimizer, lr: of every network.
        corner: choose the strength whose network comes closest to an AUC and a Gini coefficient of 1, both on what it
            may see; by the best validation AUC alone if not.
        engine: of every term.
    """

    table: Table
    train: int = 100
    validation: int = 100
    test: int | None = None
    chance: int = 0
    k: int = 1
    references: int = 100
    epochs: int = 100
    batch_size: int = 100
    optimizer: str = "adam"
    lr: float = 1e-3
    corner: bool = False
    engine: EngineName = "auto"
    _encoded: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        # the rows of a block of splits are asked for once for every arm
        self._encoded["split"] = lru_cache(maxsize=2 * _AT_ONCE)(self._split)

    def split(self, seed: int) -> Parts:
        """Rows to train, to validate and to test on, drawn uniformly at random; labels (N, 1).

        As in the authors' code every feature, also a 0/1 one, is standardised by the training rows, and not clipped:
        a feature that one training row in a hundred has is 10 where it is present.
        """
        parts: Parts = self._encoded["split"](seed)
        return parts

    def _split(self, seed: int) -> Parts:
        draws = np.random.default_rng(seed)
        order = draws.permutation(len(self.table.labels))
        ends = np.cumsum([self.train, self.validation, self.test or len(order)])
        places = dict(zip(("train", "validation", "test"), np.split(order, ends)[:3], strict=True))
        columns = self.table.columns
        names = TableEncoder().fit(self.table.features, columns).feature_names
        encoder = TableEncoder().fit(self.table.features.iloc[places["train"]], columns)
        # what no training row has (a level, a missing entry) stays 0, so that every split has the same features
        known = [names.index(name) for name in encoder.feature_names]
        shares = np.exp(np.random.default_rng(0).uniform(np.log(0.005), np.log(0.2), self.chance))
        found = {}
        for part, rows in places.items():
            encoded = np.zeros((len(rows), len(names) + self.chance), np.float32)
            encoded[:, known] = encoder.transform(self.table.features.iloc[rows])
            encoded[:, len(names) :] = draws.random((len(rows), self.chance)) < shares
            found[part] = torch.from_numpy(encoded)
        mean, scale = found["train"].mean(0), found["train"].std(0, correction=0)
        scale[scale == 0] = 1
        labels = torch.from_numpy(self.table.labels).float()[:, None]
        return {part: ((values - mean) / scale, labels[places[part]]) for part, values in found.items()}

    def block(self, arm: str, strengths: Sequence[float], seeds: Sequence[int]) -> list[Row]:
        """Train an arm at every strength on every split; for each split what validation chose, measured.

        Returns:
            For each seed: ``weight`` (of equals the smallest), ``validation``, ``test``, ``gini``, ``lorenz``, ``size``
            and ``epoch`` of what was chosen, and of all strengths ``validations`` and ``ginis`` (None where training
            diverged).
        """
        trained: dict[int, list[_Trained]] = {seed: [] for seed in seeds}
        for strength in strengths:
            for one in self._trained(ARMS[arm], strength, seeds):
                trained[one.seed].append(one)
        return [self._judged(self.split(seed), trained[seed]) for seed in seeds]

    def best_of(self, arm: str, strength: float, split: int, networks: int, kept: int) -> Row:
        """Train so many networks on one split: the mean ``test`` AUC of those few that validate best."""
        found = [one for one in self._trained(ARMS[arm], strength, range(networks), split) if one.model is not None]
        found = sorted(found, key=lambda one: -(one.validation or 0.0))[:kept]
        inputs, labels = self.split(split)["test"]
        scores = [auc(_outputs(one.model, inputs), labels) for one in found if one.model is not None]
        return {"test": float(np.mean(scores)), "engines": found[0].engines}

    def _trained(self, arm: Arm, strength: float, seeds: Sequence[int], split: int | None = None) -> list[_Trained]:
        """A network for each seed, on its own split or all on one."""

        def parts(seed: int) -> Parts:
            return self.split(seed if split is None else split)

        def terms(train: Any) -> list[AnyTerm]:
            return [term.with_engine(self.engine) for term in arm.terms(strength, train[0], self.k)]

        features = parts(seeds[0])["train"][0].shape[1]
        trials = fit_many(
            lambda seed: network(features, seed, strength if arm.rates else 0.0),
            binary_cross_entropy_with_logits,
            terms,
            splits=lambda seed: (parts(seed)["train"], parts(seed)["validation"]),
            seeds=seeds,
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            lr=self.lr,
            monitor=_not_auc,
            at_once=min(_AT_ONCE, len(seeds)),
        )
        return [
            _Trained(
                trial.seed,
                strength,
                trial.model,
                None if trial.model is None or trial.run.best_value is None else 1 - trial.run.best_value,
                trial.run.best_epoch,
                trial.run.engines,
            )
            for trial in trials
        ]

    def _judged(self, parts: Parts, trained: Sequence[_Trained]) -> Row:
        inputs = parts["train"][0]
        coarse = min(_COARSE, self.references)
        ginis = [None if one.model is None else _importance(one.model, inputs, coarse).gini for one in trained]
        best = min(zip(trained, ginis, strict=True), key=lambda pair: (self._loss(*pair), pair[0].strength))[0]
        if best.model is None:
            raise ArgumentError("every network diverged", expected="a finite loss at one strength", got=len(trained))
        importance = _importance(best.model, inputs, self.references)
        return {
            "seed": best.seed,
            "weight": best.strength,
            "validation": best.validation,
            "test": auc(_outputs(best.model, parts["test"][0]), parts["test"][1]),
            "gini": importance.gini,
            "lorenz": [round(value, 5) for value in lorenz(importance.values)],
            "size": float(importance.values.sum()),
            "epoch": best.epoch,
            "engines": best.engines,
            "validations": [one.validation for one in trained],
            "ginis": ginis,
        }

    def _loss(self, one: _Trained, gini: float | None) -> float:
        if one.validation is None or gini is None:
            return math.inf
        return math.hypot(1 - one.validation, 1 - gini) if self.corner else 1 - one.validation


def _importance(model: nn.Module, inputs: Tensor, references: int) -> Importance:
    found = attribute(model, inputs[:_EXPLAINED], reference=Sample(inputs), n_samples=references, diagnostics=False)
    return global_importance(found.attributions)


@torch.no_grad()
def _outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    model.eval()
    outputs: Tensor = model(inputs)
    return outputs


def auc(outputs: Tensor, labels: Tensor) -> float:
    """Share of pairs of a positive and a negative whose order is right, ties half (Mann and Whitney), (N, 1) each.

    By ranks, as scikit-learn's, without what that costs on 100 rows at every epoch.
    """
    values, positive = outputs.detach()[:, 0].double(), labels[:, 0] > 0.5
    below, above = values[~positive].sort().values, values[positive].contiguous()
    smaller = torch.searchsorted(below, above).sum() + torch.searchsorted(below, above, right=True).sum()
    return float(smaller) / (2 * len(below) * len(above))


def _not_auc(outputs: Tensor, labels: Tensor) -> float:
    return 1 - auc(outputs, labels)
