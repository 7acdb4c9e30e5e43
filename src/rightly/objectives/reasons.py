"""Published methods that learn from annotations, under their published names; see also ``objectives.recipes``."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from rightly.attributions import GradCam, Gradient, InputXGradient
from rightly.attributions.decomposition.convention import Convention
from rightly.attributions.decomposition.convention import Name as ConventionName
from rightly.core.checks import check_number
from rightly.core.scalar import Output, Target
from rightly.core.types import Reference, Space
from rightly.objectives.contribution import ContributionTerm, Regions
from rightly.objectives.interval import Clip, IntervalTerm
from rightly.objectives.perturbed import PerturbationTerm
from rightly.objectives.robust import Bound, RobustReasons
from rightly.objectives.term import Term, Weight
from rightly.perturbations import PGD, Noise
from rightly.priors import ConceptDirection, Energy, Irrelevant, Prior, Ranking, Resized
from rightly.priors.contribution import GroupLoss
from rightly.spaces import Input, Layer


def right_for_the_right_reasons(
    weight: Weight = 1000.0,
    *,
    input_scale: float = 1.0,
    paper_divisor: float = 1.0,
    output: Output = "log_prob_sum",
    target: Target = "label",
    layer: str | None = None,
) -> Term:
    """Ross, Hughes, Doshi-Velez (2017), eq. 1: squared gradient of the sum of log-probabilities where A = 1.

    Args:
        weight: the paper's lambda_1 (its experiments: 1000). Both of its terms are sums over examples, both of ours
            are means, so the number is the same.
        input_scale: how many times larger the paper's inputs are than yours. It used raw bytes: for images in
            [0, 1] pass 255, which divides lambda by 255^2 (1000 becomes 0.0154).
        paper_divisor: what a paper's penalty is divided by where ours is a mean over examples of a sum over features:
            sum(A) / N for the published code's ``normalize=True`` (16 for swatches of 4 x 4 on every picture); 2 for
            half squares, as in its TensorFlow variant; the number of features for a mean over all elements (R4); the
            batch size for the squared gradient of a batch's mean loss (CDEP's baseline), and 1 over the batch size for
            a sum over examples beside a mean loss.
        output, target: which gradient. The thesis also tried the predicted class, ``"log_prob"`` and ``"predicted"``
            (comparable, less stable), and names single classes as an extension (``"log_prob"`` with ``"label"`` or a
            class number). Later work takes the loss (``"loss"``) and the label's score (``"logit"``, ``"label"``).
            An annotation that differs by class (``rt.Annotation(per_class=...)``) needs an output of one class.
        layer: take the gradient at this layer instead of the input. The annotation is brought to its size: see
            ``rt.priors.Resized``.
    """
    check_number("input_scale", input_scale, positive=True)
    check_number("paper_divisor", paper_divisor, positive=True)
    if not isinstance(weight, str):
        weight = weight / (input_scale**2 * paper_divisor)
    method = Gradient(space=_space(layer), output=output, target=target)
    return Term(method, _at(layer, Irrelevant()), weight, "right_reasons")


def cdep(
    regions: Regions,
    *,
    loss: GroupLoss = "softmax",
    classes: Literal["all", "label"] = "all",
    space: Space | None = None,
    convention: ConventionName | Convention | None = None,
    reference: Reference | None = None,
    target: float | Literal["annotation"] = 0.0,
    weight: Weight = 1.0,
    name: str = "cdep",
) -> ContributionTerm:
    """Rieger et al. (2020), contextual decomposition explanation penalisation, also as Singh et al. (2022) print it.

    Args:
        regions: what should not decide: bool (R, *F), ``"irrelevant"`` or ``"regions"`` of the annotation, or
            ``rt.RandomRegions``. See ``rt.ContributionTerm``.
        loss, classes: the published code takes ``"softmax"`` and ``"all"`` for images, ``"log_softmax"`` and
            ``"label"`` for text; eq. 10 of Singh et al. (2022) is ``"l1"`` and all classes.
        space, convention, reference, target: as in ``rt.ContributionTerm``.
        weight: the published lambda, where one region an example is penalised: both are means over examples and
            classes. The code sums over the regions that a batch shares (8 pixels in ColorMNIST), eq. 10 sums over
            classes: multiply by their number. The code for skin lesions means over annotated examples only, where
            here an example without annotation counts zero: multiply by the batch's size over their number.
    """
    return ContributionTerm(
        regions,
        loss,
        target,
        classes,
        space=space,
        convention=convention,
        reference=reference,
        weight=weight,
        name=name,
    )


def grad_cam_reasons(layer: str, weight: Weight = 1.0, *, output: Output = "logit", target: Target = "label") -> Term:
    """Schramowski et al. (2020), RRR with Grad-CAM: the squared map where the annotation says irrelevant.

    Trained through the map's weights as well as its activations; the published code detaches the weights.

    Args:
        layer: a convolutional block, by name. Its map is enlarged to the input's size.
        weight: of the sum over pixels; a paper's, if it means over them, divided by their number.
        output, target: what the map explains.
    """
    return Term(GradCam(Layer(layer), output=output, target=target), Irrelevant(), weight, "grad_cam_reasons")


def energy_guidance(
    weight: Weight = 1.0, *, layer: str | None = None, output: Output = "logit", target: Target = "label"
) -> Term:
    """Rao, Boehle, Parchami-Araghi, Schiele (2023): the share of positive attribution outside ``annotation.relevant``.

    Boxes do (``rt.data.box_masks``). The paper writes minus the share inside: the same gradient at the same weight.

    Args:
        layer: where; the paper's intermediate layers cost less and localise alike.
        output, target: of input times gradient; the paper's B-cos models explain themselves.
    """
    method = InputXGradient(space=_space(layer), output=output, target=target)
    return Term(method, _at(layer, Energy()), weight, "energy")


def human_importance(
    weight: Weight = 1.0, *, layer: str | None = None, output: Output = "logit", target: Target = "label"
) -> Term:
    """Selvaraju et al. (2019), HINT: what people find important should rank above what they do not.

    Args:
        weight: of the sum over all pairs in the wrong order. The paper has 36 image regions; pictures have many more
            pairs, and need less.
        layer: where; the paper takes the gradient times the features of proposals.
        output, target: what is explained; the paper: the score of the true answer.
    """
    method = InputXGradient(space=_space(layer), output=output, target=target)
    return Term(method, _at(layer, Ranking()), weight, "human_importance")


def concept_reasons(
    direction: Tensor,
    layer: str,
    weight: Weight = 1.0,
    *,
    output: Output = "logit",
    target: Target = "label",
) -> Term:
    """Dreyer et al. (2024), RR-ClArC: squared slope of the output along a concept's direction in a layer.

    Args:
        direction: (*F) of the layer or (C,) for its channels, such as a concept activation vector; a unit vector is
            made of it, as in the paper.
        layer: by name.
        weight: of the mean over examples.
        output, target: whose slope.
    """
    method = Gradient(space=Layer(layer), output=output, target=target)
    return Term(method, ConceptDirection(direction), weight, "concept_reasons")


def masked_noise(weight: Weight = 1.0, *, scale: float = 0.25, clip: Clip = None) -> PerturbationTerm:
    """Singla, Moayeri, Feizi (2022), core risk minimisation: the loss under Gaussian noise where inputs are irrelevant.

    Args:
        weight: of that loss, beside the clean one.
        scale: standard deviation, in the inputs' units.
        clip: the data's range.
    """
    noise = Noise(scale, clip=clip)
    return PerturbationTerm(noise, inside="irrelevant", weight=weight, name="masked_noise")


def masked_pgd(weight: Weight = 1.0, *, eps: float = 0.3, steps: int = 7, clip: Clip = None) -> PerturbationTerm:
    """Heo, Piratla, Wicker, Weller (2023), PGD-Ex: the loss at the worst irrelevant region that ascent finds.

    Args:
        weight: of that loss, beside the clean one.
        eps: how far each value of the region may go, in the inputs' units.
        steps: of projected ascent, from a random start.
        clip: the data's range.
    """
    ascent = PGD(eps, steps=steps, random_start=True, clip=clip)
    return PerturbationTerm(ascent, inside="irrelevant", weight=weight, name="masked_pgd")


def interval_bound(weight: Weight = 1.0, *, eps: float = 0.3, clip: Clip = None) -> IntervalTerm:
    """Heo, Piratla, Wicker, Weller (2023), IBP-Ex: the loss at the worst outputs that intervals allow the region.

    Args:
        weight: of that loss, beside the clean one. Start low, or with a schedule's ``warmup``: early bounds are loose.
        eps, clip: as in ``masked_pgd``.
    """
    return IntervalTerm(eps, clip=clip, weight=weight)


def robust_right_reasons(
    weight: Weight = 1.0,
    *,
    eps: float = 0.1,
    bound: Bound = "interval",
    paper_divisor: float = 1.0,
    output: Output = "log_prob_sum",
    clip: Clip = None,
) -> RobustReasons:
    """R4 (2025): right reasons wherever the irrelevant region may go: interval R4, Rand-R4 and PGD-R4.

    The released code of its PGD variant for images reaches the model through weight decay only; this one trains.

    Args:
        weight: of the sum over the region of the largest squared gradients.
        eps, bound, output, clip: as in ``objectives.robust.RobustReasons``.
        paper_divisor: as in ``right_for_the_right_reasons``: R4 means over all elements.
    """
    check_number("paper_divisor", paper_divisor, positive=True)
    weight = weight if isinstance(weight, str) else weight / paper_divisor
    return RobustReasons(eps, bound, output, clip=clip, weight=weight)


def _space(layer: str | None) -> Space:
    return Input() if layer is None else Layer(layer)


def _at(layer: str | None, prior: Prior) -> Prior:
    """A prior of annotations drawn on the input, at that layer."""
    return prior if layer is None else Resized(prior)
