"""Does the ranking hold: the 18 ablation metrics, which keep or remove the features that an explanation ranks first.

Source: Lundberg et al. (2020), From local explanations to global understanding with explainable AI for trees (the SHAP
package's benchmark), as used by Erion et al. (2019, table 1; 2021, table 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rightly.core import autodiff, seeding
from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, ShapeError
from rightly.evaluation.metrics import METRICS, check_classes
from rightly.evaluation.replacing import Predict, Replacing

#: action, direction and replacement: of the paper's KPM, KPR, KPI, KNM, ..., RAI, in that order
ABLATION_METRICS = tuple(
    "_".join(parts)
    for parts in product(("keep", "remove"), ("positive", "negative", "absolute"), ("mask", "resample", "impute"))
)

Score = Literal["r2", "auc", "accuracy"]

#: how many features are kept or removed, at most: so many numbers between none and all, denser at the few
_COUNTS = 11
#: the published code: rows drawn, seed of the noise that breaks ties, and its size
_DRAWS, _TIE_SEED, _TIE_SIZE = 100, 23980, 1e-6


@dataclass(frozen=True)
class AblationCurve:
    """A score by the share of features that is kept or removed; signed so that higher is better.

    Attributes:
        fractions: of all features, rising from 0 to 1.
        scores: one each.
    """

    fractions: tuple[float, ...]
    scores: tuple[float, ...]

    @property
    def area(self) -> float:
        """Under the curve, by the trapezoid rule: the number in the papers' tables."""
        scores, fractions = (torch.tensor(part, dtype=torch.float64) for part in (self.scores, self.fractions))
        return float(torch.trapezoid(scores, fractions))


def ablation(
    predict: Predict,
    inputs: Tensor | np.ndarray,
    attributions: Tensor | np.ndarray,
    background: Tensor | np.ndarray,
    labels: Tensor | np.ndarray | None = None,
    *,
    target: Tensor | np.ndarray | None = None,
    metrics: Sequence[str] = ABLATION_METRICS,
    score: Score | None = None,
    seed: int = 0,
    chunk_size: int = 2**11,
    published: bool = False,
) -> dict[str, AblationCurve]:
    """Curves of the ablation metrics of one method's explanations.

    A metric is ``{keep, remove}_{positive, negative, absolute}_{mask, resample, impute}``. Features are ranked by their
    attribution (``positive``), its negative or its size. Of the first n, where n grows from 0 to F, but at most as many
    as an example has on that side of zero (zero included), ``remove`` replaces all, and ``keep`` replaces the others:
    by the background's mean (``mask``), by 100 background rows whose outputs are averaged (``resample``), or by their
    expectation given the features that stay, as if the background were Gaussian (``impute``). The score is the mean
    output, turned round for ``keep_negative`` and ``remove_positive``; for ``absolute`` it is how well outputs predict
    the labels, and 1 less that for ``remove``.

    The papers' models have a single output. Of a classifier the output is that of each example's class ``target``, the
    same class whatever is replaced: give the model's logits, and it is the logit of that class, or its probabilities.

    Args:
        predict: rows (M, F), a tensor like ``inputs`` -> outputs (M,) or (M, 1), or with ``target`` (M, C), tensor or
            array. A module is read with dropout off; scikit-learn's ``predict`` takes tensors as they are.
        inputs: (N, F), the examples explained.
        attributions: (N, F).
        background: (T, F), training rows.
        labels: (N,), for the ``absolute`` metrics.
        target: (N,) whole numbers from 0 to C - 1, the class that was explained, where ``predict`` gives several.
        metrics: which; all 18 by default.
        score: of the ``absolute`` metrics: ``"r2"`` of values (the default), or ``"auc"`` (area under the ROC curve) of
            scores against labels 0 and 1; of several outputs ``"accuracy"``, the share of examples whose label has the
            largest one.
        seed: of the background rows drawn (the same ones for every example) and of the order among equal attributions.
        chunk_size: rows a pass; memory only.
        published: reproduce the published code where that changes numbers: background rows are drawn from the first N
            only, with its random stream (the number of the split being its seed); attributions that differ by less than
            1e-6 are ranked by noise.

    Returns:
        For each metric its curve; ``curve.area`` is what the papers tabulate.

    Raises:
        ArgumentError: an unknown metric or score, labels that are missing, attributions that are not finite.
        ShapeError: sizes that do not fit.
    """
    wanted = [_parts(metric) for metric in metrics]
    allowed: tuple[Score, ...] = ("r2", "auc") if target is None else ("accuracy",)
    if score is not None and score not in allowed:
        raise ArgumentError(
            f"the outputs of {'one number' if target is None else 'several classes'} cannot be scored so",
            expected=" or ".join(map(repr, allowed)),
            got=repr(score),
        )
    scored: Score = score or allowed[0]
    check_count("chunk_size", chunk_size)
    x, phi, rows = (torch.as_tensor(part).detach() for part in (inputs, attributions, background))
    _check(x, phi, rows)
    truth = _truth(labels, len(x), needed=any(direction == "absolute" for _, direction, _ in wanted))
    chosen = None if target is None else _chosen(target, len(x))
    phi, device = phi.to(x.device, torch.float64), x.device
    drawn, tie = (_published_draws if published else _draws)(len(x), len(rows), x.shape[1], seed)
    replacing = Replacing(predict, x, rows.to(x), drawn.to(device), chunk_size)
    counts = counted(x.shape[1])
    fractions = tuple(count / counts[-1] for count in counts)

    def curve(action: str, direction: str, how: str) -> AblationCurve:
        signed = {"positive": phi, "negative": -phi, "absolute": phi.abs()}[direction]
        places = _places(signed, tie.to(device), published)
        most = (signed >= 0).sum(1)
        scores = []
        for count in counts:
            first = places < most.clamp_max(count)[:, None]
            outputs = replacing(how, first if action == "remove" else ~first)
            _check_columns(outputs, chosen)
            if direction != "absolute":
                raised = (action == "keep") == (direction == "positive")
                followed = outputs if chosen is None else outputs.gather(1, chosen.to(device)[:, None])
                scores.append(float(followed.mean()) * (1 if raised else -1))
            else:
                found = _agreement(scored, truth, outputs.cpu().numpy())
                scores.append(found if action == "keep" else 1 - found)
        return AblationCurve(fractions, tuple(scores))

    with autodiff.reading(predict, trainable=False), torch.no_grad():
        return {metric: curve(*parts) for metric, parts in zip(metrics, wanted, strict=True)}


def counted(features: int) -> list[int]:
    """The numbers of features at which a curve is measured, as published: denser where few are taken."""
    steps = (np.logspace(0, 1, _COUNTS) - 1) / 9
    return [int(count) for count in np.unique(np.round(features * steps))]


def _parts(metric: str) -> tuple[str, str, str]:
    if metric not in ABLATION_METRICS:
        raise ArgumentError("unknown ablation metric", expected=", ".join(ABLATION_METRICS), got=repr(metric))
    action, direction, how = metric.split("_")
    return action, direction, how


def _places(signed: Tensor, tie: Tensor, published: bool) -> Tensor:
    """(N, F), each feature's place in the ranking from 0, the largest first."""
    if published:
        order = (-signed + _TIE_SIZE * tie).argsort(1)
    else:
        # equal ones come as ``tie`` has them, so that their place in the table says nothing
        order = tie.argsort()
        order = order[(-signed[:, order]).argsort(dim=1, stable=True)]
    return order.argsort(1)


def _draws(n: int, n_background: int, features: int, seed: int) -> tuple[Tensor, Tensor]:
    """Numbers of background rows, (100,), and a number each feature is ordered by among equals, (F,)."""
    generator = seeding.generator("ablation", seed)
    drawn = torch.randint(n_background, (_DRAWS,), generator=generator)
    return drawn, torch.rand(features, generator=generator, dtype=torch.float64)


def _published_draws(n: int, n_background: int, features: int, seed: int) -> tuple[Tensor, Tensor]:
    """The same from the published random streams; rows are numbered by the examples, which are fewer."""
    if n > n_background:
        raise ArgumentError(
            "the published code draws as many background rows as there are examples",
            expected=f"at least {n} background rows",
            got=n_background,
            mend="published=False",
        )
    drawn = np.random.RandomState(seed).randint(0, n, size=_DRAWS)
    tie = np.random.RandomState(_TIE_SEED).rand(features)
    return torch.from_numpy(drawn), torch.from_numpy(tie)


def _agreement(score: Score, labels: np.ndarray, outputs: np.ndarray) -> float:
    """Of outputs (N, C): R2 or the area under the ROC curve, which reads two columns, of one; accuracy of several."""
    if score == "r2":
        return METRICS["r2"].measure(labels, outputs[:, 0])
    if score == "auc":
        outputs = np.concatenate([-outputs, outputs], 1)
    check_classes(labels, outputs.shape[1])
    return METRICS[score].measure(labels, outputs)


def _check_columns(outputs: Tensor, chosen: Tensor | None) -> None:
    if chosen is None and outputs.shape[1] != 1:
        raise ShapeError(
            "one number an example is ablated",
            expected="(M,) or (M, 1)",
            got=f"(M, {outputs.shape[1]})",
            mend="say which class: target=labels, or predict=lambda rows: model(rows)[:, 1]",
        )
    if chosen is not None and not 0 <= int(chosen.min()) <= int(chosen.max()) < outputs.shape[1]:
        raise ArgumentError(
            "target names a class that there is no output of",
            expected=f"0 to {outputs.shape[1] - 1}",
            got=f"{int(chosen.min())} to {int(chosen.max())}",
        )


def _chosen(target: Tensor | np.ndarray, n: int) -> Tensor:
    found = torch.as_tensor(target).detach()
    if found.shape != (n,) or found.is_floating_point():
        raise ShapeError(
            "every example has a class that is followed",
            expected=f"whole numbers ({n},)",
            got=f"{found.dtype} {tuple(found.shape)}",
        )
    return found.long()


def _check(x: Tensor, phi: Tensor, rows: Tensor) -> None:
    if x.ndim != 2 or 0 in x.shape or phi.shape != x.shape or rows.ndim != 2 or rows.shape[1:] != x.shape[1:]:
        raise ShapeError(
            "features are ablated from tables",
            expected="inputs (N, F), attributions (N, F), background (T, F)",
            got=f"{tuple(x.shape)}, {tuple(phi.shape)}, {tuple(rows.shape)}",
            mend="flatten what has several dimensions, and give the background its own rows",
        )
    if len(rows) < 2:
        raise ShapeError("the background is a sample", expected="at least 2 rows", got=len(rows))
    if not x.is_floating_point() or not all(bool(part.isfinite().all()) for part in (x, phi, rows)):
        raise ArgumentError(
            "inputs, attributions and background must be finite", expected="finite floating numbers", got=str(x.dtype)
        )


def _truth(labels: Tensor | np.ndarray | None, n: int, needed: bool) -> np.ndarray:
    if labels is None and needed:
        raise ArgumentError(
            "the absolute metrics compare outputs with labels",
            expected="labels (N,)",
            got=None,
            mend="pass labels, or metrics= without the absolute ones",
        )
    if labels is None:
        return np.zeros(n)
    found = torch.as_tensor(labels).detach().cpu().double().numpy()
    if found.shape != (n,):
        raise ShapeError("every example needs a label", expected=(n,), got=found.shape)
    return found
