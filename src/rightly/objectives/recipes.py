"""Published combinations under their published names, each with the conversion of the paper's lambda into ours.

Our convention: a penalty sums over features and averages over examples, like the task loss (DESIGN section 3).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from rightly.attributions import ExpectedGradients, Gradient
from rightly.core.checks import check_count, check_number
from rightly.core.errors import ArgumentError
from rightly.core.scalar import Output
from rightly.core.types import Reference
from rightly.objectives.term import Term, Weight
from rightly.objectives.weights import Layers, WeightTerm, weight_count
from rightly.priors import L1, L2, GraphSmoothness, Irrelevant, Sparsity, TotalVariation


def right_for_the_right_reasons(
    weight: Weight = 1000.0, *, input_scale: float = 1.0, output: Output = "log_prob_sum"
) -> Term:
    """Ross, Hughes, Doshi-Velez (2017), eq. 1: squared gradient of the sum of log-probabilities where A = 1.

    Args:
        weight: the paper's lambda_1 (its experiments: 1000). Both of its terms are sums over examples, both of ours
            are means, so the number is the same.
        input_scale: how many times larger the paper's inputs are than yours. It used raw bytes: for images in
            [0, 1] pass 255, which divides lambda by 255^2 (1000 becomes 0.0154).
        output: which gradient; the paper's choice by default.
    """
    check_number("input_scale", input_scale, positive=True)
    if not isinstance(weight, str):
        weight = weight / input_scale**2
    return Term(Gradient(output=output), Irrelevant(), weight, "right_reasons")


def sparse_attribution_prior(
    weight: Weight = 1.0,
    *,
    reference: Reference | None = None,
    n_samples: int = 1,
    convention: Literal["ours", "paper"] = "ours",
) -> Term:
    """Erion et al. (2021), sparse attribution prior: Gini coefficient of mean absolute expected gradients.

    Args:
        weight: of 1 - Gini (the published code's -Gini has the same gradient).
        convention: ``"paper"`` when ``weight`` multiplies the article's -2 Gini.
        reference, n_samples: the paper takes all 100 training rows: ``Sample(x_train)``, 100.
    """
    if convention not in ("ours", "paper"):
        raise ArgumentError("unknown convention", expected="'ours' or 'paper'", got=repr(convention))
    if convention == "paper" and not isinstance(weight, str):
        weight = 2 * weight
    return Term(ExpectedGradients(reference, n_samples=n_samples), Sparsity(), weight, "sparsity")


def mixed_sparse_attribution_prior(
    weight: Weight = 1.0,
    l1_weight: Weight | None = None,
    *,
    reference: Reference | None = None,
    n_samples: int = 1,
    paper_features: int | None = None,
) -> list[Term]:
    """Erion et al. (2019, supplement 8.3; 2021): the Gini coefficient and the L1 norm of expected gradients, two terms.

    Each draws its own references, so that it costs twice what one of them does.

    Args:
        weight: of 1 - Gini.
        l1_weight: of the sum of absolute attributions; by default the same, as in the published code.
        reference, n_samples: as in ``sparse_attribution_prior``.
        paper_features: as in ``l1_attribution_prior``, for ``l1_weight``.
    """
    l1_weight = weight if l1_weight is None else l1_weight
    return [
        sparse_attribution_prior(weight, reference=reference, n_samples=n_samples),
        l1_attribution_prior(l1_weight, reference=reference, n_samples=n_samples, paper_features=paper_features),
    ]


def l1_attribution_prior(
    weight: Weight = 1.0,
    *,
    reference: Reference | None = None,
    n_samples: int = 1,
    paper_features: int | None = None,
) -> Term:
    """Erion et al. (2021), "L1: EG": mean absolute expected gradients.

    Args:
        weight: of their sum over features; or, with ``paper_features``, the paper's lambda for a model of so many
            features, of which it takes the mean.
        reference, n_samples: as in ``sparse_attribution_prior``.
    """
    return Term(
        ExpectedGradients(reference, n_samples=n_samples), L1(), _over(weight, paper_features), "l1_attributions"
    )


def neural_lasso(weight: Weight = 1.0, *, output: Output = "log_prob_sum", paper_features: int | None = None) -> Term:
    """Ross, Lage, Doshi-Velez (2017), the neural lasso: absolute input gradients.

    Args:
        weight: of their sum over features; or, with ``paper_features``, the lambda of Erion et al. (2021) for a model
            of so many features, of which it takes the mean.
        output: ``"log_prob_sum"`` is "L1: Grad (Ross)" of Erion et al. (2021), ``"logit"`` its "L1: Grad".
    """
    return Term(Gradient(output=output), L1(), _over(weight, paper_features), "neural_lasso")


def sparse_gradient_prior(weight: Weight = 1.0, *, output: Output = "log_prob_sum") -> Term:
    """Erion et al. (2021), "Gini: Grad": the Gini coefficient of mean absolute input gradients.

    Args:
        weight: of 1 - Gini, as in the published code.
        output: as in ``neural_lasso``.
    """
    return Term(Gradient(output=output), Sparsity(), weight, "sparse_gradients")


def l1_weights(weight: Weight = 1.0, *, layers: Layers = "all", paper_model: nn.Module | None = None) -> WeightTerm:
    """Erion et al. (2021), "L1: all" and "L1: 1st": mean absolute weight.

    Args:
        weight: of the sum of absolute weights; or, with ``paper_model``, the paper's lambda for that model, of whose
            weights it takes the mean.
        layers: all of them, or the first.
    """
    count = None if paper_model is None else weight_count(paper_model, layers)
    return WeightTerm("l1", layers, _over(weight, count))


def sparse_group_lasso(weight: Weight = 1e-3, *, layers: Layers = "all") -> WeightTerm:
    """Scardapane et al. (2017), as in Erion et al. (2021), "SGL: all" and "SGL: 1st".

    Args:
        weight: the papers' lambda: they sum as we do. Erion et al. also penalise biases (twice their mean absolute
            value a layer); we leave them alone.
        layers: all of them, or the first.
    """
    return WeightTerm("sparse_group_lasso", layers, weight)


def pixel_attribution_prior(
    weight: Weight = 1e-3, *, reference: Reference | None = None, n_samples: int = 1, output: Output = "logit"
) -> Term:
    """Erion et al. (2021), pixel attribution prior: total variation of standardised expected-gradients maps.

    The authors' image code uses an Adam of its own for the prior, in which lambda acts only through Adam's epsilon:
    its numbers (5e-11) mean nothing in a joint loss.
    """
    return Term(
        ExpectedGradients(reference, n_samples=n_samples, output=output),
        TotalVariation(),
        weight,
        "smoothness",
    )


def graph_attribution_prior(
    adjacency: Tensor, weight: Weight = 100.0, *, reference: Reference | None = None, n_samples: int = 10
) -> Term:
    """Erion et al. (2021), graph attribution prior: v' L v with the unnormalised Laplacian, v = mean |EG|."""
    return Term(ExpectedGradients(reference, n_samples=n_samples), GraphSmoothness(adjacency), weight, "graph")


def double_backpropagation(weight: Weight = 1.0, *, paper_batch: int | None = None) -> Term:
    """Drucker and Le Cun (1992); Ross (2018), eq. 3.6: squared norm of the loss' input gradient.

    Args:
        weight: of the mean squared norm; or, with ``paper_batch``, the published code's lambda at that batch size,
            which is half the squared gradient of the *batch mean* loss: lambda / (2 B) (56234 at B = 256 is 110).
    """
    if paper_batch is not None and not isinstance(weight, str):
        weight = weight / (2 * check_count("paper_batch", paper_batch))
    return Term(Gradient(output="loss"), L2(), weight, "double_backpropagation")


def _over(weight: Weight, count: int | None) -> Weight:
    """The weight of a sum that is as strong as this one of a mean over ``count``; an open weight stays open."""
    if count is None or isinstance(weight, str):
        return weight
    return weight / check_count("what a mean is taken of", count)
