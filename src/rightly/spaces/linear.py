"""The space of coefficients in a dictionary: principal components, topics, learned parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.registry import register
from rightly.core.types import Space
from rightly.spaces.input import Input
from rightly.spaces.transform import Transform, check_transform

Coefficients = Callable[[Tensor], Tensor]


def _example(shape: tuple[int, ...]) -> dict[str, Any]:
    size = int(np.prod(shape))
    ramp = torch.arange(4 * size, dtype=torch.float64).reshape(4, size)
    return {"dictionary": torch.sin(ramp + 0.1 * ramp**1.5) / size**0.5, "mean": torch.full((size,), 0.1)}


@register("space", citation="singh2022", traits=("vectors",), example=_example)
@dataclass(frozen=True, eq=False)
class Linear(Transform):
    """Coefficients (K,) of an example in a dictionary: x = mean + sum_k s_k dictionary_k + residual.

    The residual, what the dictionary cannot say, stays with its example. ``Linear.fitted`` takes a transformer of
    scikit-learn: PCA, NMF, ICA, SVD, a dictionary, a topic model.

    Args:
        dictionary: (K, *X), an atom a row, shaped like an example or flat.
        mean: (*X) or flat, what the coefficients start from; zero by default.
        coefficients: points (M, *X) -> (M, K), where they are not those of least squares (topic shares, non-negative
            ones). They are taken as given: nothing is differentiated through them, so that ``of`` must not depend on
            parameters.
        of: the space that is transformed.
    """

    dictionary: Tensor = field(repr=False)
    mean: Tensor | None = field(default=None, repr=False)
    coefficients: Coefficients | None = None
    of: Space = field(default_factory=Input)
    _inverse: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_transform(self.of, 1)
        atoms = self.dictionary
        if not isinstance(atoms, Tensor) or atoms.ndim < 2 or not atoms.is_floating_point() or not len(atoms):
            got = tuple(atoms.shape) if isinstance(atoms, Tensor) else type(atoms).__name__
            raise ShapeError("a dictionary is a tensor of atoms", expected="(K, *X) floats", got=got)
        if self.mean is not None and self.mean.numel() != atoms[0].numel():
            raise ShapeError(
                "the mean does not fit the dictionary", expected=tuple(atoms.shape[1:]), got=tuple(self.mean.shape)
            )
        if self.coefficients is not None and not callable(self.coefficients):
            raise ArgumentError(
                "coefficients are a function", expected="points (M, *X) -> (M, K)", got=repr(self.coefficients)
            )
        object.__setattr__(self, "_inverse", torch.linalg.pinv(atoms.detach().double().flatten(1)))

    @classmethod
    def fitted(
        cls,
        transformer: Any,
        *,
        coefficients: Literal["least-squares", "transform"] = "least-squares",
        of: Space | None = None,
    ) -> Linear:
        """From a fitted transformer of scikit-learn.

        Args:
            transformer: with ``inverse_transform`` (PCA, NMF, FastICA, TruncatedSVD) or at least ``components_``
                (latent Dirichlet allocation: each topic's row is divided by its sum).
            coefficients: of least squares, or what its ``transform`` gives (for examples that are flat).
            of: the space that is transformed.
        """
        atoms = getattr(transformer, "components_", None)
        if atoms is None or not callable(getattr(transformer, "transform", None)):
            raise ArgumentError(
                "this is no fitted transformer with components",
                expected="such as sklearn.decomposition.PCA(5).fit(x)",
                got=type(transformer).__name__,
            )
        if coefficients not in ("least-squares", "transform"):
            raise ArgumentError("unknown coefficients", expected="'least-squares' or 'transform'", got=coefficients)
        if hasattr(transformer, "inverse_transform"):
            # affine in the coefficients: its rows are what each coefficient adds
            whole = transformer.inverse_transform(np.concatenate([np.zeros((1, len(atoms))), np.eye(len(atoms))]))
            mean, atoms = torch.from_numpy(whole[0]), torch.from_numpy(whole[1:] - whole[0])
        else:
            mean, atoms = None, torch.from_numpy(atoms / atoms.sum(1, keepdims=True))
        given = _transform(transformer) if coefficients == "transform" else None
        return cls(atoms, mean, given, of or Input())

    def encode(self, x: Tensor) -> Tensor:
        """See ``Transform.encode``. Raises ``ShapeError`` for examples that do not fit the dictionary."""
        if x[0].numel() != self.dictionary[0].numel():
            raise ShapeError(
                "the examples do not fit the dictionary",
                expected=f"{self.dictionary[0].numel()} numbers an example",
                got=tuple(x.shape[1:]),
            )
        if self.coefficients is not None:
            return self._given(self.coefficients, x)
        flat = x.flatten(1)
        if self.mean is not None:
            flat = flat - self.mean.to(x).flatten()
        return flat @ self._inverse.to(x)

    def _given(self, coefficients: Coefficients, x: Tensor) -> Tensor:
        if x.grad_fn is not None:
            raise ArgumentError(
                "given coefficients do not follow what they are made of",
                expected="a space that depends on no parameter, such as Input()",
                got=repr(self.of),
                mend="leave out coefficients= for those of least squares",
            )
        found = coefficients(x.detach())
        if not isinstance(found, Tensor) or found.shape != (len(x), len(self.dictionary)):
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ShapeError("the coefficients do not fit", expected=(len(x), len(self.dictionary)), got=got)
        return found.to(x).detach()

    def decode(self, coordinates: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See ``Transform.decode``."""
        flat = coordinates @ self.dictionary.to(coordinates).flatten(1)
        if self.mean is not None:
            flat = flat + self.mean.to(coordinates).flatten()
        return flat.reshape(-1, *shape)


def _transform(transformer: Any) -> Coefficients:
    def given(x: Tensor) -> Tensor:
        return torch.as_tensor(np.asarray(transformer.transform(x.flatten(1).cpu().numpy())), device=x.device)

    return given
