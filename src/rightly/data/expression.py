"""Gene expression made ready for a network, as published: FPKM, filtering, log2, standardising, batch correction.

Source: Erion et al., "Learning explainable models using attribution priors", arXiv:1906.10670v1, supplement 7.1. There
genes are chosen and standardised over all samples; here over the training rows, which the others are held to.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence

import numpy as np

from rightly.core.errors import ArgumentError, DataError, ShapeError
from rightly.core.extras import require


def fpkm(counts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Fragments per kilobase and million reads, 10^9 X_i / (N l_i): (rows, G) counts -> float64.

    Args:
        counts: reads of each transcript; N is a row's sum.
        lengths: (G,) effective lengths in bases, positive.

    Raises:
        ShapeError: they do not fit.
        ArgumentError: negative counts, a row without any, or lengths that are not positive.
    """
    counts, lengths = np.asarray(counts, np.float64), np.asarray(lengths, np.float64)
    if counts.ndim != 2 or lengths.shape != counts.shape[1:]:
        raise ShapeError(
            "every transcript needs its length",
            expected=counts.shape[1:],
            got=lengths.shape,
            mend="lengths of the same transcripts, in the same order",
        )
    _check_finite(counts)
    if (counts < 0).any() or not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ArgumentError(
            "unusable counts or lengths",
            expected="counts >= 0, lengths > 0",
            got="others",
            mend="pass raw counts, not logarithms",
        )
    reads = counts.sum(1, keepdims=True)
    if (reads == 0).any():
        raise ArgumentError(
            "a sample has no reads",
            expected="at least one",
            got=f"row {int((reads == 0).argmax())}",
            mend="drop the sample",
        )
    shares: np.ndarray = counts * 1e9 / (reads * lengths)
    return shares


class ExpressionEncoder:
    """Which genes are kept and how each is scaled: learnt from training rows, applied to any.

    Dropped are genes that are not coding, those that are zero in more than ``most_zeros`` of the training rows, and
    those that do not vary there.

    Args:
        log2: take log2(x + 1) before standardising; False for values that are logarithms already, or shares.
        most_zeros: the largest share of zeros that is tolerated.
        coding: names of the protein-coding genes; by default all are.
    """

    def __init__(self, *, log2: bool = True, most_zeros: float = 0.7, coding: Collection[str] | None = None) -> None:
        if not 0 <= most_zeros <= 1:
            raise ArgumentError(
                "most_zeros is a share",
                expected="0 to 1",
                got=most_zeros,
                mend="0.5 drops genes that are zero in more than half of the rows",
            )
        self.log2, self.most_zeros = log2, most_zeros
        self.coding = None if coding is None else frozenset(coding)
        #: the genes that are kept, in the data's order; empty before ``fit``
        self.genes: tuple[str, ...] = ()

    def fit(self, expression: np.ndarray, genes: Sequence[str]) -> ExpressionEncoder:
        """Learn from training rows (N, G).

        Raises:
            DataError: no gene is left, or logarithms of negative values were asked for.
            ShapeError, ArgumentError: names do not fit, or values are not finite.
        """
        values = self._read(expression, len(genes))
        kept = (values == 0).mean(0) <= self.most_zeros
        if self.coding is not None:
            kept &= np.array([gene in self.coding for gene in genes])
        logs = self._logs(values)
        mean, scale = logs.mean(0), logs.std(0)
        kept &= scale > 1e-8 * np.maximum(1, np.abs(mean))
        if not kept.any():
            raise DataError(
                "no gene is left",
                expected="genes that are measured and vary",
                got=f"{len(genes)} others",
                mend="allow more zeros, or look at the units",
            )
        self._of, self._kept, self._mean, self._scale = len(genes), kept, mean[kept], scale[kept]
        self.genes = tuple(str(gene) for gene, keep in zip(genes, kept, strict=True) if keep)
        return self

    def transform(self, expression: np.ndarray) -> np.ndarray:
        """(N, G) -> (N, len(genes)) float32, mean 0 and variance 1 over the training rows."""
        if not self.genes:
            raise ArgumentError(
                "nothing was learnt yet",
                expected="fit() first",
                got="transform()",
                mend="encoder.fit(training_rows, genes)",
            )
        values = self._read(expression, self._of)
        scaled: np.ndarray = (self._logs(values)[:, self._kept] - self._mean) / self._scale
        return scaled.astype(np.float32)

    def _read(self, expression: np.ndarray, genes: int) -> np.ndarray:
        values = np.asarray(expression, np.float64)
        if values.ndim != 2 or values.shape[1] != genes:
            raise ShapeError(
                "the expression does not fit the genes",
                expected=f"(N, {genes})",
                got=values.shape,
                mend="samples are rows, genes are columns",
            )
        _check_finite(values)
        return values

    def _logs(self, values: np.ndarray) -> np.ndarray:
        if not self.log2:
            return values
        if (values < 0).any():
            raise DataError(
                "negative expression has no logarithm",
                expected="values >= 0",
                got=f"{values.min():g}",
                mend="pass log2=False for values that are logarithms already",
            )
        logs: np.ndarray = np.log2(values + 1)
        return logs


def correct_batches(expression: np.ndarray, batches: Sequence[object], *, reference: object = None) -> np.ndarray:
    """Take out what is common to the samples of a batch: ComBat (Johnson, Li, Rabinovic 2007), as in R's sva.

    Needs the extra ``genomics`` (inmoose). It reads all samples, also those of a test, but no label.

    Args:
        expression: (N, G), on a logarithmic scale.
        batches: (N,), two samples a batch at least.
        reference: a batch that is left as it is, and to which the others are brought.

    Returns:
        (N, G) float64.

    Raises:
        ShapeError, ArgumentError: batches do not fit, or one is too small.
        MissingExtraError: inmoose is not installed.
    """
    values = np.asarray(expression, np.float64)
    names = [str(batch) for batch in batches]
    if values.ndim != 2 or len(names) != len(values):
        raise ShapeError(
            "every sample needs its batch", expected=(len(values),), got=(len(names),), mend="one batch name a row"
        )
    _check_finite(values)
    sizes = {name: names.count(name) for name in names}
    if small := [name for name, size in sizes.items() if size < 2]:
        raise ArgumentError(
            "a batch is too small",
            expected="at least 2 samples",
            got=", ".join(small),
            mend="drop it, or join it with another",
        )
    if reference is not None and str(reference) not in sizes:
        raise ArgumentError(
            "there is no such batch", expected=", ".join(sizes), got=str(reference), mend="name one of the batches"
        )
    if len(sizes) == 1:
        return values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own, about pandas and NumPy
        combat = require("inmoose.pycombat").pycombat_norm
        # its samples are columns
        corrected = combat(values.T, names, ref_batch=None if reference is None else str(reference))
    return np.asarray(corrected, np.float64).T


def _check_finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise ArgumentError(
            "expression must be finite",
            expected="numbers",
            got="NaN or infinity",
            mend="drop these genes, or fill them in",
        )
