"""Concepts as directions in a layer, and how much a model's answers follow them (Kim et al. 2018; Ross 2018, 4.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from rightly.attributions.base import check_space
from rightly.attributions.gradient import Gradient
from rightly.core import autodiff, seeding
from rightly.core.batch import Inputs, rows
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.extras import require
from rightly.core.scalar import Output, Target
from rightly.core.types import Space

Fit = Literal["pattern", "classifier"]


@dataclass(frozen=True, eq=False)
class ConceptVector:
    """A concept activation vector.

    Attributes:
        direction: (*F) of the space, or (C,) of its channels, of length 1: towards more of the concept. What
            ``rt.priors.ConceptDirection`` takes.
        separation: area under the ROC curve of the projection on it, on examples held out: 1 tells the concept from
            the others without fail, about 0.5 means that there is no such concept in this space.
    """

    direction: Tensor
    separation: float


def concept_vector(
    model: nn.Module,
    concept: Inputs,
    others: Inputs,
    *,
    space: Space,
    fit: Fit = "pattern",
    channels: bool = False,
    held_out: float = 0.25,
    seed: int = 0,
) -> ConceptVector:
    """The direction of a concept in a space, from examples that show it and examples that do not.

    It is that of the model as it is now: training moves representations, so that it has to be fitted again.

    Args:
        model: read with dropout off and batch norm frozen.
        concept, others: two examples at least of each, as the model takes them.
        space: where: ``rt.spaces.Layer(...)``.
        fit: ``"pattern"``, the covariance of activations and concept (Haufe et al. 2014), which is the difference of
            the two means; or ``"classifier"``, the weights of a logistic regression (Kim et al. 2018; needs
            scikit-learn). The weights of a classifier turn away from the concept to cancel what else varies along
            with it (Pahde et al. 2022), which is why the pattern is advised.
        channels: average the activations (B, C, *places) over places first: a direction of the C channels.
        held_out: share of either set that the separation is measured on; the direction is fitted to the rest.
        seed: of the split.

    Raises:
        ArgumentError, ShapeError: an argument cannot be used.
    """
    if fit not in get_args(Fit):
        raise ArgumentError("unknown fit of a concept", expected=", ".join(get_args(Fit)), got=repr(fit))
    if not isinstance(held_out, int | float) or not 0 < held_out < 1:
        raise ArgumentError("some examples are held out, not all", expected="0 < held_out < 1", got=repr(held_out))
    draws = seeding.generator("concept", seed)
    learnt, kept = [], []
    for name, examples in (("concept", concept), ("others", others)):
        if rows(examples) < 2:
            raise ShapeError(f"too few examples of {name}", expected="at least 2", got=rows(examples))
        found = activations(model, examples, space)
        if channels:
            if found.ndim < 3:
                raise ShapeError("this space has no places", expected="(B, C, *places)", got=tuple(found.shape))
            found = found.flatten(2).mean(2)
        order = torch.randperm(len(found), generator=draws).to(found.device)
        cut = min(max(1, round(held_out * len(found))), len(found) - 1)
        kept.append(found[order[:cut]])
        learnt.append(found[order[cut:]])
    direction = _pattern(*learnt) if fit == "pattern" else _classifier(*learnt)
    length = torch.linalg.vector_norm(direction)
    if not bool(length > 0):
        raise ArgumentError(
            "the examples do not differ in this space, so that there is no direction",
            expected="concept and other examples with other activations",
            got="the same mean",
        )
    unit = direction / length
    first, second = (part.flatten(1) @ unit.flatten() for part in kept)
    return ConceptVector(unit, _area(first, second))


@torch.no_grad()
def activations(model: nn.Module, inputs: Inputs, space: Space) -> Tensor:
    """The examples' coordinates (B, *F) in a space, without a graph, in float32 at least."""
    with autodiff.reading(model, trainable=False), torch.no_grad():
        found = check_space(space).open(model, inputs).coordinates.detach()
    return found.to(torch.promote_types(found.dtype, torch.float32))


def concept_sensitivity(
    model: nn.Module,
    inputs: Inputs,
    direction: Tensor,
    labels: Tensor | None = None,
    *,
    space: Space,
    output: Output = "logit",
    target: Target = "label",
) -> Tensor:
    """How the output changes along a concept's direction, (B,): the gradient in the space times the direction.

    Args:
        direction: (*F) or (C,), as in ``ConceptVector``; over channels, more of it at every place.
        output, target: what is explained, such as the logit of one class.
    """
    slopes = Gradient(space=space, output=output, target=target)(model, inputs, labels, diagnostics=False).attributions
    if direction.shape != slopes.shape[1 : 1 + direction.ndim] or not direction.ndim:
        raise ShapeError(
            "the direction does not fit the space",
            expected=f"{tuple(slopes.shape[1:])}, or its first dimensions",
            got=tuple(direction.shape),
        )
    over_places = slopes.flatten(1 + direction.ndim).sum(-1) if slopes.ndim > 1 + direction.ndim else slopes
    return over_places.flatten(1) @ direction.to(slopes).flatten()


def _pattern(concept: Tensor, others: Tensor) -> Tensor:
    """For a concept that is there or not, the covariance with it is a multiple of the difference of means."""
    return concept.mean(0) - others.mean(0)


def _classifier(concept: Tensor, others: Tensor) -> Tensor:
    both = torch.cat([concept, others]).flatten(1)
    spread = both.std(0, correction=0).clamp_min(1e-12)
    labels = [1] * len(concept) + [0] * len(others)
    fitted = require("sklearn.linear_model").LogisticRegression(max_iter=1000)
    fitted.fit((both / spread).cpu().numpy(), labels)
    weights = torch.as_tensor(fitted.coef_[0]).to(both) / spread
    return weights.reshape(concept.shape[1:])


def _area(concept: Tensor, others: Tensor) -> float:
    """How often one of the concept projects further than one of the others, ties half."""
    apart = concept[:, None] - others
    return float(((apart > 0).double() + 0.5 * (apart == 0)).mean())
