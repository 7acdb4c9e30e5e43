"""The prior on a table's columns: the estimator's ``prior``, ``attribution``, ``reference`` and ``annotation``.

A column that is encoded by several features (a category, a number with missing entries) counts as one: a prior sees
the sum of their attributions. Only marks, ``irrelevant`` and ``relevant``, hold for every feature of their column,
because gradients of the levels of a category could cancel in a sum while the model still uses it.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rightly.attributions import Attribution
from rightly.attributions.attribute import build
from rightly.attributions.base import check_reference
from rightly.core import registry
from rightly.core.annotation import Annotation
from rightly.core.errors import AnnotationError, ArgumentError
from rightly.core.types import Reference
from rightly.objectives import Term
from rightly.objectives.term import Weight
from rightly.priors import Prior
from rightly.references import InBatch

_MARKS = ("irrelevant", "relevant")


class OfColumns(Prior):
    """Another prior on the attributions of original columns.

    Args:
        prior: sees (B, columns).
        groups: (F,) the column that each encoded feature belongs to.
        columns: how many there are.
    """

    def __init__(self, prior: Prior, groups: Tensor, columns: int) -> None:
        self.prior, self.groups, self.columns = prior, groups, columns
        self.level = prior.level

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """(B,) or (), as the inner prior gives it."""
        return self.prior(sum_columns(attributions, self.groups, self.columns), annotation, target)


def sum_columns(attributions: Tensor, groups: Tensor, columns: int) -> Tensor:
    """(B, F) encoded features -> (B, columns), summed within each column."""
    zeros = attributions.new_zeros(len(attributions), columns)
    return zeros.index_add(1, groups.to(attributions.device), attributions)


def read_prior(prior: Any) -> Prior | None:
    """The prior that ``prior`` names or is; None for plain training.

    Raises:
        ArgumentError: there is none of that name, or it needs arguments.
    """
    if prior is None or isinstance(prior, Prior):
        return prior
    if not isinstance(prior, str):
        raise ArgumentError(
            "unusable prior", expected="a name, one of rt.priors such as Sparsity(), or None", got=repr(prior)
        )
    cls = registry.find("prior", prior).cls
    if missing := _required(cls):
        raise ArgumentError(
            f"the prior {prior!r} needs arguments",
            expected=f"prior=rt.priors.{cls.__name__}({', '.join(f'{name}=...' for name in missing)})",
            got="its name",
        )
    return cls()  # type: ignore[no-any-return]


def make_term(
    estimator: Any, prior: Prior, weight: Weight, n_samples: int, rows: Tensor, groups: Tensor, columns: int
) -> Term:
    """The term that trains with ``prior``.

    Args:
        estimator: for its ``attribution`` and ``reference``.
        prior, weight, n_samples: as read.
        rows: (N, F) encoded training rows, to draw references from.
        groups: (F,) the column of each feature.
        columns: how many there are.

    Raises:
        ArgumentError: the attribution or the reference cannot be used.
    """
    attribution = _attribution(estimator.attribution, _reference(estimator.reference, rows), n_samples)
    name = registry.name_of(prior)
    of_features = any(field in prior.needs for field in _MARKS) or len(groups) == columns
    return Term(attribution, prior if of_features else OfColumns(prior, groups, columns), weight, name)


def read_annotation(annotation: Any, prior: Prior | None, rows: int, groups: Tensor, columns: int) -> Annotation | None:
    """What is known about the rows, in the shape that the prior of ``make_term`` reads.

    Args:
        annotation: an ``rt.Annotation`` whose last dimension counts the original columns, or an array
            (N or 1, columns) of marks: 1 or True irrelevant, 0 or False not, NaN unknown. For a prior that reads
            ``relevant`` the marks are inverted; for one that reads ``targets`` the array holds those.
        prior: which fields are needed.
        rows: N.
        groups, columns: as in ``make_term``.

    Raises:
        AnnotationError: it does not fit, it is needed and absent, or it would not be read.
    """
    needs = () if prior is None else prior.needs
    if annotation is None:
        if needs:
            raise AnnotationError(
                f"the prior {registry.name_of(prior)!r} needs an annotation",
                expected=f"fit(X, y, annotation=...) with {', '.join(needs)}",
                got=None,
                mend="pass an array (rows or 1, columns), True where a column must not matter",
            )
        return None
    if not needs:
        raise AnnotationError(
            f"the prior {'None' if prior is None else registry.name_of(prior)!r} would not read the annotation",
            expected="a prior that does, such as prior='irrelevant'",
            got="an annotation",
        )
    read = annotation if isinstance(annotation, Annotation) else _from_array(annotation, needs[0])
    for field, value in read.given().items():
        if value.shape[-1] != columns or len(value) not in (1, rows):
            raise AnnotationError(
                f"annotation.{field} does not fit the table",
                expected=f"({rows} or 1, {columns} columns)",
                got=tuple(value.shape),
            )
    if any(field in needs for field in _MARKS):
        return replace(read, **{field: value[..., groups] for field, value in read.given().items()})
    return read


def _from_array(values: Any, field: str) -> Annotation:
    try:
        array = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise AnnotationError(
            "the annotation is no array of numbers", expected="True, False or NaN in every entry", got=str(error)
        ) from error
    if array.ndim != 2:
        raise AnnotationError("an annotation has two dimensions", expected="(rows or 1, columns)", got=array.shape)
    tensor = torch.tensor(array)
    if field in _MARKS and not bool(((tensor == 0) | (tensor == 1) | tensor.isnan()).all()):
        raise AnnotationError("marks are yes or no", expected="True, False or NaN", got="other numbers")
    return Annotation(**{field: 1 - tensor if field == "relevant" else tensor})


def _reference(reference: Any, rows: Tensor) -> Reference:
    """By default the other rows of the batch: it is shuffled, so they are a sample of the table at no cost."""
    if reference is None:
        return InBatch()
    if not isinstance(reference, str):
        return check_reference(reference)
    cls = registry.find("reference", reference).cls
    found: Reference = cls(rows) if _required(cls) == ["data"] else cls()
    return found


def _attribution(attribution: Any, reference: Reference, n_samples: int) -> Attribution:
    if isinstance(attribution, Attribution):
        return attribution
    if not isinstance(attribution, str):
        raise ArgumentError(
            "unusable attribution", expected="a name or an attribution such as rt.Gradient()", got=repr(attribution)
        )
    known = inspect.signature(registry.find("attribution", attribution).cls).parameters
    offered = {"reference": reference, "n_samples": n_samples}
    return build(attribution, {name: value for name, value in offered.items() if name in known})


def _required(cls: type[Any]) -> list[str]:
    parameters = inspect.signature(cls).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
