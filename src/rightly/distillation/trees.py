"""Distillation into a shallow decision tree that a person can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rightly.core import autodiff
from rightly.core.batch import Model, outputs_of
from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.extras import require

_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class DistilledTree:
    """A tree that imitates a model.

    Attributes:
        tree: scikit-learn's, fitted to the model's predictions.
        fidelity: on the rows held out: the share on which it says what the model says; R2 against the model's values
            for a regression.
        baseline: the same of the best constant, so that one sees what a fidelity is worth.
        rows: how many were held out.
        features: their names.
    """

    tree: Any
    fidelity: float
    baseline: float
    rows: int
    features: tuple[str, ...]

    @property
    def rules(self) -> str:
        """The tree in words, a line a branch."""
        return str(require("sklearn.tree").export_text(self.tree, feature_names=list(self.features), decimals=3))

    def __call__(self, inputs: Tensor) -> Tensor:
        """Its predictions: (N, *X) -> (N,) class numbers or values."""
        return torch.as_tensor(self.tree.predict(inputs.flatten(1).cpu().numpy()))


def distill_tree(
    model: Model,
    inputs: Tensor,
    *,
    max_depth: int = 3,
    held_out: float = 0.3,
    least: int = 5,
    features: Sequence[str] | None = None,
    task: str = "classification",
    seed: int = 0,
) -> DistilledTree:
    """A shallow tree fitted to what a model predicts, with its fidelity on rows that it was not fitted to.

    Args:
        model: a module or a callable; read with dropout off and batch norm frozen, and left as it was.
        inputs: (N, *X); a feature is an entry of an example.
        max_depth: questions asked of a row at most.
        held_out: share of rows on which the fidelity is measured.
        least: rows that every leaf holds at least.
        features: names, one a feature; by default x0, x1, ...
        task: ``"classification"``: the model's class (of a single output, whether it is above zero). ``"regression"``:
            its single output.
        seed: of the split.

    Raises:
        ArgumentError, ShapeError: an argument cannot be used.
        MissingExtraError: scikit-learn is not installed.
    """
    check_count("max_depth", max_depth)
    check_count("least", least)
    if not isinstance(inputs, Tensor) or inputs.ndim < 2 or len(inputs) < 4:
        got = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ShapeError("a tree is fitted to rows", expected="a tensor (N, *X), N at least 4", got=got)
    if not 0 < held_out < 1:
        raise ArgumentError("some rows are held out, not all", expected="0 < held_out < 1", got=held_out)
    if task not in ("classification", "regression"):
        raise ArgumentError("unknown task", expected="'classification' or 'regression'", got=repr(task))
    rows = inputs.detach().flatten(1).cpu().numpy()
    names = tuple(f"x{i}" for i in range(rows.shape[1])) if features is None else tuple(map(str, features))
    if len(names) != rows.shape[1]:
        raise ShapeError("a name for every feature", expected=rows.shape[1], got=len(names))
    said = _predictions(model, inputs, task)
    order = np.random.default_rng(seed).permutation(len(rows))
    test, train = np.split(order, [max(1, round(held_out * len(rows)))])
    kind = "DecisionTreeClassifier" if task == "classification" else "DecisionTreeRegressor"
    grown = getattr(require("sklearn.tree"), kind)(max_depth=max_depth, min_samples_leaf=least, random_state=seed)
    grown.fit(rows[train], said[train])
    if task == "classification":
        values, counts = np.unique(said[train], return_counts=True)
        baseline = float((said[test] == values[counts.argmax()]).mean())
    else:
        baseline = 0.0
    fidelity = float(grown.score(rows[test], said[test]))
    return DistilledTree(grown, fidelity, baseline, len(test), names)


@torch.no_grad()
def _predictions(model: Model, inputs: Tensor, task: str) -> np.ndarray[Any, Any]:
    with autodiff.reading(model, trainable=False), torch.no_grad():
        outputs = torch.cat([outputs_of(model(part)) for part in inputs.split(_CHUNK)])
    outputs = outputs.reshape(len(inputs), -1).cpu()
    if task == "classification":
        found = outputs.argmax(1) if outputs.shape[1] > 1 else (outputs[:, 0] > 0).long()
        return np.asarray(found.numpy())
    if outputs.shape[1] != 1:
        raise ShapeError("a regression has one output", expected=(len(inputs), 1), got=tuple(outputs.shape))
    return np.asarray(outputs[:, 0].double().numpy())
