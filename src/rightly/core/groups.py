"""Groups of examples: what a row belongs to (a class and a spurious attribute), numbered, and means over each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rightly.core.errors import ArgumentError, ShapeError

Groups = Tensor | Sequence[Tensor]


def group_numbers(groups: Groups, n: int) -> tuple[Tensor, Tensor]:
    """Number the groups that occur.

    Args:
        groups: integers or booleans, a column (N,), columns (N, K), or a list of K columns (N,): rows with equal
            entries in all columns are one group.
        n: rows that are expected, N.

    Returns:
        The number of each row's group (N,), counted from 0 in the order of the entries; and the entries (G, K).

    Raises:
        ArgumentError: no tensor, or not of whole numbers.
        ShapeError: no columns of N rows.
    """
    columns = list(groups) if isinstance(groups, Sequence) else [groups]
    if not columns or not all(isinstance(column, Tensor) for column in columns):
        got = [type(column).__name__ for column in columns]
        raise ArgumentError("groups cannot be read", expected="a tensor (N,) or (N, K), or a list of (N,)", got=got)
    if any(column.is_floating_point() or column.is_complex() for column in columns):
        raise ArgumentError(
            "groups are numbered by whole numbers",
            expected="integers or booleans",
            got=", ".join(str(column.dtype) for column in columns),
            mend="make classes of a continuous attribute first, such as torch.bucketize(...)",
        )
    most = 2 if len(columns) == 1 else 1
    if n == 0 or any(len(column.shape) not in range(1, most + 1) or len(column) != n for column in columns):
        shapes = [tuple(column.shape) for column in columns]
        raise ShapeError("groups do not fit the examples", expected=f"a group for each of {n} rows", got=shapes)
    table = torch.cat([column.reshape(n, -1).long() for column in columns], 1)
    entries, numbers = torch.unique(table, dim=0, return_inverse=True)
    return numbers, entries


def group_sums(values: Tensor, numbers: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sum of ``values`` (N,) over each of ``count`` groups, and rows of each: (G,), zero of a group without rows."""
    members = (numbers[:, None] == torch.arange(count, device=numbers.device)).to(values)
    return (members * values[:, None]).sum(0), members.sum(0)
