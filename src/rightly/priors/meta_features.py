"""What is known about a feature should tell how much it matters; how, is learned."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rightly.core import autodiff
from rightly.core.annotation import Annotation
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.registry import register
from rightly.priors.base import Prior
from rightly.priors.norms import l1


def _example(shape: tuple[int, ...]) -> dict[str, object]:
    predictor = _nothing_yet(2)
    predictor.load_state_dict({"weight": torch.tensor([[0.3, -0.2]]), "bias": torch.tensor([0.7])})
    return {"meta": torch.linspace(-1, 1, 2 * math.prod(shape)).reshape(-1, 2).cos(), "predictor": predictor}


@register("prior", citation="weinberger2020", example=_example)
class MetaFeatures(Prior):
    """Attributions should be what a function makes of meta-features: deep attribution priors (Weinberger et al. 2020).

    The penalty is sum over features of |g(meta_i) - phi_i|. The predictor g is trained together with the model: it
    learns which kinds of features matter, and holds the model to it. The paper averages over features: its weight of
    1 is 1 / p here. The objective registers g as its own, so that optimizers, checkpoints, ``state_dict`` and ``to``
    know it. Afterwards ``expected()`` tells what g expects of the features, or of others; and g is a model
    like any other, which ``rt.attribute(prior.module, meta, ...)`` explains.

    Args:
        meta: (p, M), M numbers about each of the p features of the flattened space, such as its standard deviation
            on the training data. Put them on one scale; g sees them as they are.
        predictor: g, any module (p, M) -> (p,) or (p, 1). By default linear, as published, beginning at zero.
        absolute: compare with |phi|: how much a feature matters, whatever its direction. False is as published.
    """

    def __init__(self, meta: Tensor, predictor: nn.Module | None = None, *, absolute: bool = False) -> None:
        if not isinstance(meta, Tensor) or not meta.is_floating_point():
            got = meta.dtype if isinstance(meta, Tensor) else type(meta).__name__
            raise ArgumentError("meta-features are a tensor of numbers", expected="float (p, M)", got=got)
        if meta.ndim != 2 or meta.numel() == 0 or not bool(meta.isfinite().all()):
            raise ArgumentError(
                "meta-features are M finite numbers a feature", expected="(p, M)", got=f"{tuple(meta.shape)}, or NaN"
            )
        if predictor is not None and not isinstance(predictor, nn.Module):
            raise ArgumentError("the predictor is trained", expected="a torch.nn.Module", got=repr(predictor))
        self.meta, self.absolute = meta, absolute
        self.module: nn.Module = _nothing_yet(meta.shape[1]) if predictor is None else predictor

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """(B,)."""
        found = attributions.flatten(1)
        if found.shape[1] != len(self.meta):
            raise ShapeError(
                "the meta-features do not fit the features",
                expected=f"{len(self.meta)} features, as meta has rows",
                got=found.shape[1],
            )
        return l1((found.abs() if self.absolute else found) - self._predicted(self.meta).to(found))

    @torch.no_grad()
    def expected(self, meta: Tensor | None = None) -> Tensor:
        """What g expects of each feature, (p,): of those of the prior, or of any others with such meta-features."""
        return self._predicted(self.meta if meta is None else meta)

    def _predicted(self, meta: Tensor) -> Tensor:
        like = next(self.module.parameters(), meta)
        # who only asks changes nothing: no dropout, and statistics that stay
        asked = () if torch.is_grad_enabled() else self.module.modules()
        with autodiff.evaluating(asked):
            predicted: Tensor = self.module(meta.to(like))
        if predicted.shape not in ((len(meta),), (len(meta), 1)):
            raise ShapeError(
                "the predictor gives one number a feature",
                expected=f"({len(meta)},) or ({len(meta)}, 1)",
                got=tuple(predicted.shape),
            )
        return predicted.reshape(-1)


def _nothing_yet(width: int) -> nn.Linear:
    """A linear predictor that expects nothing of any feature; the random state is not asked."""
    made: nn.Linear = nn.utils.skip_init(nn.Linear, width, 1)
    for parameter in made.parameters():
        nn.init.zeros_(parameter)
    return made
