"""Tree regularisation: a model that small decision trees can imitate (Wu et al. 2018; Ross 2018, 4.2)."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from rightly.core import autodiff, seeding
from rightly.core.batch import Model, outputs_of
from rightly.core.checks import check_count, check_number
from rightly.core.errors import ArgumentError, NotConnectedError, ShapeError
from rightly.core.extras import require
from rightly.objectives.model_term import Batch, ModelTerm
from rightly.objectives.term import Schedule, Weight, check_weight
from rightly.priors.base import Level

Over = Literal["mean", "max"]

#: strengths that the surrogate tries, beside a kernel of 1 at no distance
_RIDGES = tuple(10.0 ** (e / 2) for e in range(-6, 7))


def path_length(tree: Any, rows: Any) -> float:
    """Mean number of nodes on the way from a tree's root to a row's leaf, both counted.

    One more than the questions asked: a tree that asks none has length 1. (The published code of Wu et al. averages
    the numbers of the leaves instead, which grow with the size of the tree, not with its depth.)

    Args:
        tree: a fitted decision tree of scikit-learn.
        rows: (N, p).
    """
    return float(tree.decision_path(rows).sum() / len(rows))


def path_lengths(
    model: Model, inputs: Tensor, regions: Tensor | None = None, *, least: int = 1, seed: int = 0
) -> Tensor:
    """How long the paths are in the decision trees that imitate a model, one a region of the inputs.

    Args:
        model: a module or a callable that gives scores (N, classes), or (N, 1), above zero for one of two classes.
            Read with dropout off and batch norm frozen, and left as it was.
        inputs: (N, *X); a feature is an entry of an example. The trees are fitted to the model's classes there, and
            measured there.
        regions: (N,), which region an example is in, from 0 on (Wu et al. 2019); None for one that holds them all.
        least: examples that every leaf holds at least: the smaller, the finer the imitation.
        seed: of scikit-learn, which breaks ties by it.

    Returns:
        (R,) in float64.

    Raises:
        ArgumentError, ShapeError: an argument cannot be used.
        MissingExtraError: scikit-learn is not installed.
    """
    check_count("least", least)
    rows = _checked(inputs).detach().flatten(1).float().cpu().numpy()  # what scikit-learn makes of them anyway
    with autodiff.reading(model, trainable=False), torch.no_grad():
        outputs = outputs_of(model(_as_read(model, inputs)))
    if outputs.ndim != 2 or len(outputs) != len(inputs):
        raise ShapeError("trees imitate classes", expected=(len(inputs), "classes"), got=tuple(outputs.shape))
    if lost := int(outputs.isnan().any(1).sum()):
        raise ArgumentError(
            "trees cannot imitate answers that are no numbers",
            expected="scores without NaN",
            got=f"NaN for {lost} of {len(inputs)} examples",
            mend="a smaller learning rate, if the training diverged; inputs without NaN",
        )
    said = (outputs.argmax(1) if outputs.shape[1] > 1 else outputs[:, 0] > 0).cpu().numpy()
    where = np.zeros(len(rows), dtype=int) if regions is None else _regions(regions, len(rows)).cpu().numpy()
    grow = require("sklearn.tree").DecisionTreeClassifier
    found = []
    for region in range(where.max() + 1):
        own = where == region
        tree = grow(min_samples_leaf=least, random_state=seed).fit(rows[own], said[own])
        found.append(path_length(tree, rows[own]))
    return torch.tensor(found, dtype=torch.float64)


class TreeSurrogate(nn.Module):
    """What a ``TreeTerm`` learns: the path lengths of the imitating trees, as a smooth function of a model's weights.

    Kernel ridge regression on pairs of flattened weights and true path lengths. Every ``refit`` steps it takes in the
    weights that the training has come to, and ``neighbours`` drawn around them; the last ``memory`` pairs are what it
    knows. How far it trusts them is chosen by leaving each pair out in turn, so that it shows no slope where it
    can foretell nothing; and away from what it knows it goes back to the mean, so that nothing is gained by running
    off. The network of Wu et al. (2018), fitted to the weights on the way alone, has neither: in our trials training
    drove its estimate down to 1 while true paths stayed as long as they were.

    All that it knows is in its ``state_dict``, and its draws are seeded by the step, so that a resumed training goes
    on with the same bits. It learns in training mode only, where gradients are recorded, and has no parameters.

    Args:
        model: whose trees are regularised; only the number of its weights is taken from it here.
        inputs: (N, *X), on which trees are fitted: the training inputs, or some of them.
        regions: (N,), as in ``path_lengths``.
        least: as in ``path_lengths``.
        refit: steps between two fits of the surrogate.
        neighbours: weights drawn at each, from a normal distribution whose standard deviation is at most ``spread``
            times the root mean square of a tensor's weights, and at least a tenth of that: trees that no small change
            moves are moved by a larger one, and where a small one does it tells more.
        memory: pairs that it keeps.
        seed: of the draws.
    """

    inputs: Tensor
    regions: Tensor | None
    known: Tensor
    lengths: Tensor
    scale: Tensor
    level: Tensor
    coefficients: Tensor
    counts: Tensor

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor,
        *,
        regions: Tensor | None = None,
        least: int = 1,
        refit: int = 5,
        neighbours: int = 10,
        spread: float = 0.3,
        memory: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.least, self.refit = check_count("least", least), check_count("refit", refit)
        self.neighbours, self.memory = check_count("neighbours", neighbours), check_count("memory", memory, least=2)
        self.spread, self.seed = check_number("spread", spread, positive=True), seed
        size = len(flattened(model))
        count = 1 if regions is None else int(_regions(regions, len(_checked(inputs))).max()) + 1
        self.register_buffer("inputs", _checked(inputs), persistent=False)
        self.register_buffer("regions", regions, persistent=False)
        self.register_buffer("known", torch.zeros(memory, size))
        self.register_buffer("lengths", torch.zeros(memory, count))
        self.register_buffer("scale", torch.ones(size))
        self.register_buffer("level", torch.ones(count))
        self.register_buffer("coefficients", torch.zeros(memory, count))
        #: steps taken, and pairs ever noted
        self.register_buffer("counts", torch.zeros(2, dtype=torch.long))

    def forward(self, weights: Tensor) -> Tensor:
        """Path lengths (M, R) of weights (M, P)."""
        near = self._kernel(weights, self.known)
        return self.level + near @ self.coefficients.to(near)

    def _kernel(self, first: Tensor, second: Tensor) -> Tensor:
        """exp(-d^2 / 2 P), d in units in which the furthest neighbours are about sqrt(P) away: (M, N)."""
        # not by products of matrices, which lose small distances; in what precision cdist knows
        wide = torch.promote_types(first.dtype, torch.float32)
        here, there = ((weights / self.scale).to(wide) for weights in (first, second))
        apart = torch.cdist(here, there, compute_mode="donot_use_mm_for_euclid_dist")
        return torch.exp(-apart.square() / (2 * first.shape[1]))

    @torch.no_grad()
    def learn(self, model: nn.Module) -> None:
        """Take a step: every ``refit`` of them, note what the weights here are worth, and those around them."""
        step = int(self.counts[0])
        if step % self.refit == 0:
            self._note(model)
            self._note_neighbours(model, seeding.generator("tree neighbours", self.seed, step))
            self._fit()
        self.counts[0] += 1

    def _note(self, model: nn.Module) -> None:
        place = int(self.counts[1]) % self.memory
        self.known[place] = flattened(model)
        self.lengths[place] = path_lengths(model, self.inputs, self.regions, least=self.least).to(self.lengths)
        self.counts[1] += 1

    def _note_neighbours(self, model: nn.Module, draws: torch.Generator) -> None:
        near = copy.deepcopy(model)
        parameters = _trainable(near)
        start = [parameter.clone() for parameter in parameters]
        spreads = [self.spread * own.square().mean().sqrt().clamp_min(1e-3).expand_as(own) for own in start]
        self.scale.copy_(torch.cat([spread.flatten() for spread in spreads]))
        for _ in range(self.neighbours):
            share = 10.0 ** -float(torch.rand((), generator=draws))
            for parameter, own, spread in zip(parameters, start, spreads, strict=True):
                parameter.copy_(own + share * spread * torch.randn(own.shape, generator=draws).to(own))
            self._note(near)

    def _fit(self) -> None:
        """Ridge regression in the kernel's space, of the strength that foretells pairs left out best."""
        count = min(int(self.counts[1]), self.memory)
        lengths, known = self.lengths[:count].double(), self.known[:count]
        values, vectors = torch.linalg.eigh(self._kernel(known, known).double())
        level = lengths.mean(0)
        turned = vectors.T @ (lengths - level)
        best, error = torch.zeros_like(lengths), torch.inf
        for ridge in _RIDGES:
            shrunk = 1 / (values + ridge)
            coefficients = (vectors * shrunk) @ turned
            left_out = float((coefficients / ((vectors**2) @ shrunk)[:, None]).square().sum())
            if left_out < error:
                best, error = coefficients, left_out
        self.level.copy_(level)
        self.coefficients.zero_()
        self.coefficients[:count] = best.to(self.coefficients)


@dataclass(frozen=True)
class TreeTerm(ModelTerm):
    """``weight * path length`` of the decision tree that imitates the model, as its surrogate estimates it.

    Wu et al. (2018), and with regions Wu et al. (2019). The estimate is a function of the weights alone: the batch is
    not looked at. What it is worth is told by ``rightly.objectives.path_lengths`` after the training.

    Args:
        surrogate: see ``TreeSurrogate``; the objective saves and moves it, and it learns at every training step.
        over: ``"mean"`` over regions, or ``"max"``, that of the worst one (whose gradient is that of this one).
        weight: of the number of nodes: the papers' lambda, for a task loss that is a mean over examples.
        name: in reports.
        schedule: when it acts, and learns.
    """

    surrogate: TreeSurrogate
    over: Over = "mean"
    weight: Weight = 1.0
    name: str = "tree"
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if not isinstance(self.surrogate, TreeSurrogate):
            raise ArgumentError(
                "a tree term needs a surrogate", expected="TreeSurrogate(model, inputs)", got=repr(self.surrogate)
            )
        if self.over not in get_args(Over):
            raise ArgumentError("unknown summary of regions", expected=", ".join(get_args(Over)), got=repr(self.over))
        check_weight(self.weight)

    @property
    def level(self) -> Level:
        """No quantity of the examples: every process adds it whole."""
        return "batch"

    @property
    def about(self) -> str:
        """In words."""
        regions = self.surrogate.lengths.shape[1]
        return "path length of the imitating tree" + f", {self.over} over {regions} regions" * (regions > 1)

    @property
    def module(self) -> nn.Module:
        """The surrogate."""
        return self.surrogate

    def of(self, model: nn.Module, batch: Batch) -> Tensor:
        """The estimated path length ()."""
        weights = flattened(model)
        if len(weights) != self.surrogate.known.shape[1]:
            raise ShapeError(
                "the surrogate was made for a model with other weights",
                expected=f"{self.surrogate.known.shape[1]} trainable weights",
                got=len(weights),
            )
        if self.surrogate.training and torch.is_grad_enabled():
            self.surrogate.learn(model)
        found: Tensor = self.surrogate(weights.to(self.surrogate.known)[None])
        return found.amax() if self.over == "max" else found.mean()


def flattened(model: nn.Module) -> Tensor:
    """All trainable weights in a row, (P,), with their graph."""
    parameters = _trainable(model)
    if not parameters:
        raise NotConnectedError(
            "the tree term finds nothing to train", expected="a model with trainable weights", got=type(model).__name__
        )
    return torch.cat([parameter.flatten() for parameter in parameters])


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _checked(inputs: Tensor) -> Tensor:
    if not isinstance(inputs, Tensor) or inputs.ndim < 2 or not len(inputs):
        got = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ShapeError("trees are fitted to examples", expected="a tensor (N, *X)", got=got)
    return inputs


def _as_read(model: Model, inputs: Tensor) -> Tensor:
    """The inputs in the precision of the model's weights."""
    own = model.parameters() if isinstance(model, nn.Module) else ()
    precision = next((weights.dtype for weights in own if weights.is_floating_point()), inputs.dtype)
    return inputs.to(precision) if inputs.is_floating_point() else inputs


def _regions(regions: Tensor, count: int) -> Tensor:
    whole = isinstance(regions, Tensor) and not regions.is_floating_point() and regions.dtype != torch.bool
    if not whole or regions.shape != (count,) or int(regions.min()) < 0:
        got = f"{regions.dtype} {tuple(regions.shape)}" if isinstance(regions, Tensor) else type(regions).__name__
        raise ShapeError("regions number the examples", expected=f"whole numbers >= 0, ({count},)", got=got)
    if empty := set(range(int(regions.max()) + 1)) - set(regions.tolist()):
        raise ArgumentError("there are empty regions", expected="0 to R - 1, all in use", got=sorted(empty))
    return regions
