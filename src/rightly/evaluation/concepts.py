"""Whether a class follows a concept more than it follows chance (Kim et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from rightly.attributions.concepts import Fit, concept_sensitivity, concept_vector
from rightly.core import seeding
from rightly.core.batch import Inputs, rows, take
from rightly.core.checks import check_count
from rightly.core.errors import ShapeError
from rightly.core.scalar import Output, Target
from rightly.core.types import Space
from rightly.evaluation.statistics import Comparison, Interval, among, compare, interval


@dataclass(frozen=True)
class ConceptTest:
    """What ``concept_test`` finds.

    Attributes:
        score: share of examples whose output grows along the concept, over the repeats.
        chance: the same along random concepts.
        separation: of the concept vectors, as in ``ConceptVector``; a score without it means nothing.
        slope: mean slope of the output along the concept's unit direction, over examples and repeats.
        p: how often a random concept's mean slope is as steep, either way.
        comparison: the published test, of the score against chance, paired, repeat by repeat. The concept's examples
            are the same in all repeats: even a random set of them, taken once and for all, often comes out as
            different from chance. ``p`` asks how it stands among random sets.
    """

    score: Interval
    chance: Interval
    separation: float
    slope: float
    p: float
    comparison: Comparison


def concept_test(
    model: nn.Module,
    inputs: Inputs,
    concept: Inputs,
    others: Inputs,
    *,
    space: Space,
    target: Target,
    output: Output = "logit",
    fit: Fit = "pattern",
    repeats: int = 20,
    seed: int = 0,
) -> ConceptTest:
    """TCAV: the share of examples for which a concept speaks for a class, against random concepts.

    In each repeat as many of the others as there are examples of the concept pass for a random concept; both it and
    the concept are fitted against the rest, and both are scored. A nearly linear model scores 0 or 1 along any
    direction, so that scores alone tell little of it; how steep it is along the concept does.

    Args:
        inputs: the examples that are scored, of the class that is explained.
        concept, others: as in ``rightly.attributions.concept_vector``; at least two more others than concept.
        target, output: the class whose score is followed.
        repeats: how often; p cannot fall below 1 / (1 + repeats).
        seed: of all draws.
    """
    check_count("repeats", repeats, least=2)
    size, pool = rows(concept), rows(others)
    if pool < size + 2:
        raise ShapeError("too few other examples for a random concept", expected=f"at least {size + 2}", got=pool)

    def score(examples: Inputs, rest: Inputs, repeat: int) -> tuple[float, float, float]:
        found = concept_vector(model, examples, rest, space=space, fit=fit, seed=seeding.mix(seed, repeat))
        slopes = concept_sensitivity(model, inputs, found.direction, space=space, output=output, target=target)
        return float((slopes > 0).double().mean()), float(slopes.mean()), found.separation

    own, random = [], []
    for repeat in range(repeats):
        order = torch.randperm(pool, generator=seeding.generator("random concept", seed, repeat))
        rest = take(others, order[size:])
        own.append(score(concept, rest, repeat))
        random.append(score(take(others, order[:size]), rest, repeat))
    scores, slopes, separations = zip(*own, strict=True)
    chances, steeps, _ = zip(*random, strict=True)
    slope = sum(slopes) / repeats
    return ConceptTest(
        interval(scores, (0, 1)),
        interval(chances, (0, 1)),
        sum(separations) / repeats,
        slope,
        among(abs(slope), [abs(steep) for steep in steeps]),
        compare(chances, scores),
    )
