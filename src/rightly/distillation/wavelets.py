"""Adaptive wavelet distillation: the wavelet in which a model's decisions are sparse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from rightly.core import autodiff, seeding
from rightly.core.batch import Model
from rightly.core.checks import check_count, check_number
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.progress import bar
from rightly.core.scalar import Output, Target
from rightly.distillation.cached import CHUNK, PathGradients, Paths, input_gradients, path_gradients
from rightly.distillation.lattice import angles_of, filter_of
from rightly.distillation.losses import reconstruction, sparsities, validity
from rightly.distillation.result import DistilledWavelet
from rightly.spaces.filters import Bank, bank
from rightly.spaces.wavelet import depth

Parametrisation = Literal["lattice", "penalty"]
#: the search among many starts: steps, how much faster than the training proper, examples a step, how many are kept
_SEARCH, _FASTER, _FEW, _KEPT = 60, 5.0, 16, 4


@dataclass(frozen=True)
class _Work:
    """Everything of a distillation but its strengths and where it starts."""

    signals: Tensor
    gradients: Tensor
    moves: Tensor | None
    base: Tensor
    levels: int
    dims: int
    product: bool
    parametrisation: Parametrisation
    steps: int
    batch_size: int
    lr: float
    restarts: int
    noise: float
    seed: int

    def own(self, low: Tensor) -> Tensor:
        """The parameters of a filter."""
        return angles_of(low) if self.parametrisation == "lattice" else low.clone()

    def starts(self, weights: dict[str, float]) -> Tensor:
        """Parameters (R, P): of ``base``, or of the best that a short training of many starts leads to."""
        here = self.own(self.base)[None]
        if self.restarts == 1:
            return here
        draws = seeding.generator("distil_wavelet", self.seed)
        away = torch.randn(self.restarts - 1, here.shape[1], generator=draws, dtype=here.dtype)
        many = torch.cat([here, here + self.noise * away])
        found, _ = self.train(many, weights, _SEARCH, self.lr * _FASTER, _FEW)
        with torch.no_grad():
            return found[self.totals(found, slice(0, self.batch_size), weights).argsort()[:_KEPT]]

    def low(self, parameters: Tensor) -> Tensor:
        """The filter."""
        return filter_of(parameters) if self.parametrisation == "lattice" else parameters

    def parts(self, low: Tensor, rows: Tensor | slice) -> dict[str, Tensor]:
        """Every part of the loss that is not zero by construction, unweighted."""
        signals, gradients = self.signals[rows], self.gradients[rows]
        moves = None if self.moves is None else self.moves[rows]
        l1, attributed = sparsities(low, signals, gradients, self.levels, self.dims, self.product, moves)
        found = {"coefficients": l1, "attributions": attributed}
        if self.parametrisation == "penalty":
            found |= {"reconstruction": reconstruction(low, signals, self.levels, self.dims), **validity(low)}
        return found

    def totals(self, parameters: Tensor, rows: Tensor | slice, weights: dict[str, float]) -> Tensor:
        """The loss of every filter: (R, P) -> (R,)."""

        def total(own: Tensor) -> Tensor:
            parts = self.parts(self.low(own), rows)
            return torch.stack([weights.get(name, 1.0) * value for name, value in parts.items()]).sum()

        return autodiff.over_blocks(total, parameters)

    def train(
        self, starts: Tensor, weights: dict[str, float], steps: int, lr: float, size: int
    ) -> tuple[Tensor, Tensor]:
        """Adam with a step that falls along a half cosine, all starts at once on the same batches.

        Returns:
            Parameters (R, P), and the loss of every step's batch (R, steps).
        """
        parameters = starts.clone().requires_grad_()
        optimiser = torch.optim.Adam([parameters], lr)
        order = seeding.generator("distil_wavelet batches", self.seed)
        history, rows = [], torch.empty(0, dtype=torch.long)
        for step in range(steps):
            if len(rows) < min(size, len(self.signals)):
                rows = torch.randperm(len(self.signals), generator=order)
            batch, rows = rows[:size], rows[size:]
            totals = self.totals(parameters, batch, weights)
            (parameters.grad,) = autodiff.parameter_gradient(totals.sum(), [parameters])
            optimiser.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
            optimiser.step()
            history.append(totals.detach())
        return parameters.detach(), torch.stack(history, 1)

    @torch.no_grad()
    def whole(self, low: Tensor) -> dict[str, float]:
        """Every part over all signals, those that are zero by construction included."""
        count = len(self.signals)
        sums: dict[str, float] = {}
        for start in range(0, count, CHUNK):
            rows = slice(start, min(start + CHUNK, count))
            found = self.parts(low, rows)
            found |= {"reconstruction": reconstruction(low, self.signals[rows], self.levels, self.dims)}
            for name, value in (found | validity(low)).items():
                sums[name] = sums.get(name, 0.0) + float(value) * (rows.stop - rows.start) / count
        return sums

    def distilled(self, weights: dict[str, float], starts: Tensor) -> DistilledWavelet:
        """The best of the starts by the total over all signals."""
        parameters, histories = self.train(starts, weights, self.steps, self.lr, self.batch_size)
        found = []
        for own, history in zip(parameters, histories, strict=True):
            low = self.low(own)
            losses = self.whole(low)
            losses["total"] = sum(weights.get(name, 1.0) * value for name, value in losses.items())
            found.append((low, losses, tuple(history.tolist())))
        finals = tuple(losses["total"] for _, losses, _ in found)
        low, losses, history = found[finals.index(min(finals))]
        strengths = weights["coefficients"], weights["attributions"]
        return DistilledWavelet(low, self.levels, self.dims, *strengths, losses, history, finals)


def distill_wavelet(
    model: Model | None,
    signals: Tensor,
    labels: Tensor | None = None,
    *,
    sparsity: float | Sequence[float] = 0.0,
    interpretation: float | Sequence[float] = 1.0,
    wavelet: str | Tensor = "db5",
    levels: int | None = None,
    dims: int = 1,
    parametrisation: Parametrisation = "lattice",
    attribution: Literal["gradient", "input_x_gradient"] | Paths = "gradient",
    output: Output = "logit",
    target: Target | None = None,
    gradients: Tensor | PathGradients | None = None,
    steps: int = 200,
    batch_size: int = 128,
    lr: float = 0.02,
    restarts: int = 200,
    noise: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> DistilledWavelet:
    """Adaptive wavelet distillation (Singh, Ha, Yu 2022, section 3.2): the orthogonal wavelet in which both the signals
    and the model's decisions on them are sparse.

    It minimises eq. 11 with gamma = ``interpretation`` and lambda = ``sparsity``, in the scales of the published code
    (``rightly.distillation.losses``). The model is asked once for its gradients; no step calls it.

    Args:
        model: a module or a callable. It takes the signals as they are: wrap one that wants another layout,
            ``lambda x: lstm(x[..., None])``. None where ``gradients`` are given.
        signals: (N, ..., n), or (N, ..., height, width) with ``dims=2``.
        labels: (N,), where ``output`` or ``target`` needs them.
        sparsity: weight of the L1 norm of the coefficients.
        interpretation: weight of the L1 norm of their attributions. Where one of the two is a sequence, every pair is
            distilled, each sparsity along the interpretations in their order, each from the filter before (the paper:
            from 0 upwards).
        wavelet: where the first start is, by name or as a low-pass filter (L,); it also says how long the filter is.
        levels: of the transform; by default as many as leave at least as many averages as the filter is long.
        dims: 1 for signals, 2 for images (the same filters on rows and columns).
        parametrisation: ``"lattice"``: by L / 2 - 1 rotation angles, a valid wavelet at every step, so that
            reconstruction and wavelet loss are zero; ``"penalty"``: the L numbers themselves, held near a wavelet by
            these losses, as published.
        attribution: of coefficients: the gradient, as published, coefficient times gradient, or
            ``rt.IntegratedGradients(...)``, ``rt.ExpectedGradients(...)`` without a space (with output and target of
            their own). Their paths are the same in every orthogonal transform, and so are cached as well; with
            ``"penalty"`` this is as exact as the filter is a wavelet's.
        output, target: what is explained, see ``input_gradients``.
        gradients: (N, ...) of the model at the signals, or ``rightly.distillation.path_gradients(...)``, if they are
            known already.
        steps, batch_size, lr: of Adam; the learning rate falls to zero along a half cosine.
        restarts: starts, the first ``wavelet`` itself, the others around it. All are trained roughly (60 fast steps on
            16 examples each), the best four to the end, and the best of these by the total over all signals is kept.
            1 trains from ``wavelet`` alone. A path starts so at its first pair only.
        noise: standard deviation of the starts around ``wavelet``: by default 2 radians in a lattice, which is
            anywhere, and 0.1 for the numbers of a filter, as published.
        seed: of all draws.
        progress: show a bar over pairs.

    Returns:
        The wavelet of the last pair; its ``path`` holds those of all pairs.

    Raises:
        ArgumentError, ShapeError: an argument cannot be used.
    """
    check_number("lr", lr, positive=True)
    for name, count in (("steps", steps), ("batch_size", batch_size), ("restarts", restarts)):
        check_count(name, count)
    if parametrisation not in get_args(Parametrisation):
        raise ArgumentError("unknown parametrisation", expected="'lattice' or 'penalty'", got=repr(parametrisation))
    spread = {"lattice": 2.0, "penalty": 0.1}[parametrisation] if noise is None else noise
    check_number("noise", spread, positive=False)
    if attribution not in ("gradient", "input_x_gradient") and not isinstance(attribution, Paths):
        raise ArgumentError(
            "unknown attribution of coefficients",
            expected="'gradient', 'input_x_gradient', rt.IntegratedGradients(...) or rt.ExpectedGradients(...)",
            got=repr(attribution),
        )
    base = _base(wavelet)
    if not isinstance(signals, Tensor) or not signals.is_floating_point() or signals.ndim <= dims:
        got = tuple(signals.shape) if isinstance(signals, Tensor) else type(signals).__name__
        raise ShapeError("signals are a tensor", expected=f"(N, ..., {dims} dimensions) of floats", got=got)
    if gradients is None:
        if model is None:
            raise ArgumentError("nothing is distilled", expected="a model, or its gradients", got=None)
        if isinstance(attribution, str):
            gradients = input_gradients(model, signals, labels, output=output, target=target)
        else:
            draws = seeding.generator("distil_wavelet paths", seed)
            gradients = path_gradients(attribution, model, signals, labels, generator=draws)
    elif not isinstance(attribution, str) and not isinstance(gradients, PathGradients):
        raise ArgumentError(
            "the gradients are not along paths",
            expected="path_gradients(attribution, model, signals)",
            got=f"{type(gradients).__name__} and {attribution!r}",
        )
    moves = None
    if isinstance(gradients, PathGradients):
        moves, gradients = gradients.moves.detach(), gradients.gradients
    found_for = gradients.shape if moves is None else gradients[:, 0].shape
    if found_for != signals.shape:
        raise ShapeError("a gradient for every signal", expected=tuple(signals.shape), got=tuple(found_for))
    work = _Work(
        signals.detach(),
        gradients.detach(),
        moves,
        base,
        depth(min(signals.shape[-dims:]), len(base)) if levels is None else check_count("levels", levels),
        dims,
        attribution != "gradient" or moves is not None,
        parametrisation,
        steps,
        batch_size,
        lr,
        restarts,
        spread,
        seed,
    )
    rows, columns = _strengths("sparsity", sparsity), _strengths("interpretation", interpretation)
    with bar("distil_wavelet", enabled=progress) as report:
        found = _path(work, rows, columns, report)
    return replace(found[-1], path=tuple(found))


def _base(wavelet: str | Tensor) -> Tensor:
    """The filter to begin with, in float64."""
    return (bank(wavelet).low if isinstance(wavelet, str) else Bank.orthogonal(wavelet).low).detach().double()


def _strengths(name: str, values: float | Sequence[float]) -> list[float]:
    listed = list(values) if isinstance(values, Sequence) else [values]
    if not listed:
        raise ArgumentError(f"{name} has no value", expected="a number, or a sequence of them", got=values)
    return [float(check_number(name, value, positive=False)) for value in listed]


def _path(
    work: _Work, rows: list[float], columns: list[float], report: Callable[[int, int], None] | None
) -> list[DistilledWavelet]:
    """Every pair; each row begins where the row before it began, each pair where the pair before it ended."""
    found: list[DistilledWavelet] = []
    for row, sparsity in enumerate(rows):
        for column, interpretation in enumerate(columns):
            weights = {"coefficients": sparsity, "attributions": interpretation}
            if found:
                before = found[-1] if column else found[(row - 1) * len(columns)]
                starts = work.own(before.low)[None]
            else:
                starts = work.starts(weights)
            found.append(work.distilled(weights, starts))
            if report:
                report(len(found), len(rows) * len(columns))
    return found
