"""Published combinations under their published names, each with the conversion of the paper's lambda into ours.

Our convention: a penalty sums over features and averages over examples, like the task loss (DESIGN section 3).
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from rightly.attributions import (
    Attribution,
    ExpectedGradients,
    Gradient,
    GradientDifferences,
    Hessian,
    HessianProducts,
)
from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError
from rightly.core.scalar import Output
from rightly.core.types import Reference
from rightly.objectives.perturbed import Inside, PerturbationTerm
from rightly.objectives.term import Term, Weight
from rightly.objectives.weights import Layers, WeightTerm, weight_count
from rightly.perturbations import FGSM, Occlude, Perturbation
from rightly.priors import L1, L2, GraphSmoothness, Sparsity, TotalVariation

GradientNorm = Literal["l1", "l2"]


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
        output: ``"log_prob_sum"``, the sum over classes of log-probabilities, is the paper's, and "L1: Grad (Ross)" of
            Erion et al. (2021); ``"logit"`` is its "L1: Grad". With the loss it is
            ``double_backpropagation(norm="l1")``, the defence of Ross (2018, figure 4.1).
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


def double_backpropagation(weight: Weight = 1.0, *, norm: GradientNorm = "l2", paper_batch: int | None = None) -> Term:
    """Drucker and Le Cun (1992); Ross (2018), eq. 3.6: squared norm of the loss' input gradient.

    Args:
        weight: of the mean squared norm; or, with ``paper_batch``, the published code's lambda at that batch size,
            which is half the squared gradient of the *batch mean* loss: lambda / (2 B) (56234 at B = 256 is 110).
        norm: ``"l1"`` sums absolute gradients instead (Ross 2018, 4.1.1), whose published lambda is the same number
            at every batch size.
        paper_batch: see ``weight``.
    """
    return _on_gradient("loss", weight, norm, _batch_mean(norm, paper_batch), "double_backpropagation")


def certainty_sensitivity(
    weight: Weight = 1.0,
    *,
    norm: GradientNorm = "l2",
    paper_batch: int | None = None,
    paper_features: int | None = None,
) -> Term:
    """Ross (2018), figure 3.9, "insensitive": norm of the gradient of the cross-entropy against 1 / K; no labels.

    Args:
        weight: of the mean squared norm (``"l1"``: the mean sum of absolute values); or, with ``paper_batch``, the
            published code's lambda at that batch size, as in ``double_backpropagation``.
        norm: ``"l2"`` or ``"l1"``.
        paper_batch, paper_features: the published ``"l1"`` is a mean over rows and features where its double
            backpropagation is a sum, and so needs both: lambda / (B D).
    """
    count = _batch_mean(norm, paper_batch)
    if norm == "l1" and paper_batch is not None:
        if paper_features is None:
            raise ArgumentError("the published penalty is a mean over features", expected="paper_features", got=None)
        count = paper_batch * check_count("paper_features", paper_features)
    return _on_gradient("loss_uniform", weight, norm, count, "certainty_sensitivity")


def adversarial_training(
    weight: Weight = 1.0, *, eps: float = 0.3, clip: tuple[float, float] | None = (0.0, 1.0)
) -> PerturbationTerm:
    """Kurakin, Goodfellow, Bengio (2017), as in Ross (2018), 3.2.2: the loss at FGSM examples of predicted labels.

    Args:
        weight: of the loss at changed inputs. The thesis takes (clean + changed) / 2: half of our total at weight 1,
            which an Adam does not notice; a penalty beside it counts twice there (see ``both_defences``).
        eps: of the step; the thesis' 0.3, for pixels in [0, 1].
        clip: the pixels' range.
    """
    return PerturbationTerm(FGSM(eps, labels="predicted", clip=clip), weight=weight, name="adversarial_training")


def both_defences(
    weight: Weight = 1.0,
    *,
    eps: float = 0.3,
    clip: tuple[float, float] | None = (0.0, 1.0),
    paper_batch: int | None = None,
) -> list[Term | PerturbationTerm]:
    """Ross (2018), figure 3.2, "both defenses": adversarial training and double backpropagation, two terms.

    Args:
        weight, paper_batch: of double backpropagation, beside the mean of clean and adversarial loss. Ours is their
            sum, so that the term gets twice that weight. Its gradient is that of the clean loss, as in the published
            code.
        eps, clip: as in ``adversarial_training``.
    """
    twice = weight if isinstance(weight, str) else 2 * weight
    return [adversarial_training(eps=eps, clip=clip), double_backpropagation(twice, paper_batch=paper_batch)]


def agreement(
    weight: Weight = 1.0, *, perturbation: Perturbation | None = None, inside: Inside | None = "irrelevant"
) -> PerturbationTerm:
    """The clean and the changed input get the same answer: Zheng et al. (2016), stability training.

    With ``perturbation=PGD(...)`` and ``inside=None`` it is TRADES (Zhang et al. 2019) but for its inner loss.

    Args:
        weight: of the divergence of the two answers, the papers' alpha and beta: they take means over examples too.
        perturbation: what changes; by default the batch's mean replaces the region.
        inside: as in ``rt.PerturbationTerm``.
    """
    return PerturbationTerm(perturbation or Occlude("mean"), "agreement", inside, weight=weight, name="agreement")


def _on_gradient(output: Output, weight: Weight, norm: GradientNorm, count: int | None, name: str) -> Term:
    if norm not in get_args(GradientNorm):
        raise ArgumentError("unknown norm", expected=", ".join(get_args(GradientNorm)), got=repr(norm))
    return Term(Gradient(output=output), L1() if norm == "l1" else L2(), _over(weight, count), name)


def _batch_mean(norm: GradientNorm, batch: int | None) -> int | None:
    """What the published lambda is divided by: half the squares of gradients of a mean over the batch."""
    return None if batch is None or norm == "l1" else 2 * check_count("paper_batch", batch)


def hessian_penalty(
    weight: Weight = 1.0,
    *,
    n_samples: int | None = None,
    step: float | None = None,
    output: Output = "log_odds",
) -> Term:
    """Bishop (1993); Rifai et al. (2011); Ross (2018, 4.1.2): squared Frobenius norm of the input Hessian.

    Curvature of a ReLU network is zero almost everywhere, so that it needs ``rt.models.smoothed``, or ``step``.

    Args:
        weight: of the mean over examples of the sum over all ordered pairs of features.
        n_samples: estimate the norm from so many random directions an example, each costing what a feature costs of
            the exact one, which is the default.
        step: estimate it from first derivatives only, as Rifai et al. do, under noise of this standard deviation
            (of ``n_samples`` draws, one by default).
        output: whose curvature; the thesis draws that of the log-odds.
    """
    method: Attribution
    if step is not None:
        method = GradientDifferences(n_samples=n_samples or 1, step=step, output=output)
    elif n_samples is not None:
        method = HessianProducts(n_samples=n_samples, output=output)
    else:
        method = Hessian(output=output)
    return Term(method, L2(), weight, "hessian")


def _over(weight: Weight, count: int | None) -> Weight:
    """The weight of a sum that is as strong as this one of a mean over ``count``; an open weight stays open."""
    if count is None or isinstance(weight, str):
        return weight
    return weight / check_count("what a mean is taken of", count)
