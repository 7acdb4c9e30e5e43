"""What all transforms share: a space in other coordinates, with what they do not hold kept as it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

from torch import Tensor

from rightly.core.batch import Inputs, Model
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.types import Space, View


class Transform(ABC):
    """Transformation importance (Singh, Ha, Yu 2022, section 2.3): f' = f(T^-1(s) + residual), s = T(x).

    The residual x - T^-1(T x) stays with its example, so that the model sees the example itself at the example's own
    coordinates, also where T loses something.

    Attributes:
        of: the space that is transformed: the input, or a layer's output.
    """

    of: Space

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """T: points (M, *X) of the space underneath -> coordinates (M, *F)."""

    @abstractmethod
    def decode(self, coordinates: Tensor, shape: tuple[int, ...]) -> Tensor:
        """T^-1: coordinates (M, *F) -> points (M, *shape)."""

    @final
    def open(self, model: Model, inputs: Inputs) -> View:
        """See ``Space.open``."""
        view = self.of.open(model, inputs)
        x = view.coordinates
        shape = tuple(x.shape[1:])
        found = self.encode(x)
        residual = x - self.decode(found, shape)
        # a node of its own: what is differentiated with respect to the coordinates leaves the residual alone, while
        # the residual still follows what x and T depend on (a layer's parameters, a trained filter)
        coordinates = found.clone()

        def encode(inputs: Inputs) -> Tensor:
            return self.encode(view.encode(inputs))

        def rest(points: Tensor, index: Tensor) -> Tensor:
            return view.rest(self.decode(points, shape) + residual[index], index)

        return View(inputs, coordinates, encode, rest)


def check_dims(x: Tensor, dims: int) -> None:
    """Raise ``ShapeError`` unless ``x`` (M, *X) has ``dims`` trailing dimensions to transform."""
    if x.ndim <= dims or 0 in x.shape:
        raise ShapeError(
            "the examples have too few dimensions for this transform",
            expected=f"(..., {dims} dimensions that are transformed)",
            got=tuple(x.shape[1:]),
            mend="dims=1 for signals, dims=2 for images",
        )


def check_transform(of: object, dims: int) -> None:
    """Raise ``ArgumentError`` unless ``of`` is a space and ``dims`` is 1 or 2."""
    if not callable(getattr(of, "open", None)) or isinstance(of, type):
        raise ArgumentError("only a space can be transformed", expected="Input() or Layer(...)", got=repr(of))
    if dims not in (1, 2):
        raise ArgumentError("signals have 1 dimension, images 2", expected="1 or 2", got=repr(dims))
