"""Published combinations under their published names, each with the conversion of the paper's lambda into ours.

Our convention: a penalty sums over features and averages over examples, like the task loss (DESIGN section 3).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from rightly.attributions import ExpectedGradients, Gradient
from rightly.core.checks import check_count, check_number
from rightly.core.errors import ArgumentError
from rightly.core.scalar import Output
from rightly.core.types import Reference
from rightly.objectives.term import Term, Weight
from rightly.priors import L2, GraphSmoothness, Irrelevant, Sparsity, TotalVariation


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
