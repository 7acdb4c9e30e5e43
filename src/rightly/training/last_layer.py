"""Deep feature reweighting: a trained model's last linear layer, fitted anew on rows in which all groups are alike."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rightly.core import autodiff, seeding
from rightly.core.batch import Inputs, call, outputs_of, rows, take
from rightly.core.checks import check_count, check_number
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.groups import Groups, group_numbers, group_sums

Penalty = Literal["l1", "l2"]
Rule = Literal["worst", "average"]
#: inputs, class numbers (N,), groups
Rows = tuple[Inputs, Tensor, Groups]

#: rows a pass, and steps of the solver at most
_PASS, _STEPS = 1024, 20_000


@dataclass(frozen=True)
class Retrained:
    """A model with another last layer.

    Attributes:
        model: a copy; the one that was passed is as it was.
        strength: of the penalty, as chosen.
        validated: strength -> (worst-group accuracy, accuracy) on the validation rows; empty without them.
    """

    model: nn.Module
    strength: float
    validated: dict[float, tuple[float, float]]


def retrain_last_layer(
    model: nn.Module,
    held_out: Rows,
    validation: Rows | None = None,
    *,
    penalty: Penalty = "l1",
    strengths: Sequence[float] = (0.001, 0.003, 0.01, 0.03, 0.1),
    choose: Rule = "worst",
    subsets: int = 10,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> Retrained:
    """Kirichenko, Izmailov, Wilson (2023), deep feature reweighting (DFR).

    What enters the last layer is standardised; logistic regressions are fitted on random subsets that hold as many
    rows of every group as the smallest has; their weights are averaged and take the layer's place.

    Args:
        model: trained; its last linear layer must be what makes the outputs, (B, C) or a single logit.
        held_out: ``(inputs, labels, groups)`` that it was not trained on; groups as in ``core.groups.group_numbers``.
        validation: others, on which the strength is chosen; needed where there are several strengths.
        penalty: ``"l1"``, strength times the sum of absolute weights, or ``"l2"``, of half their squares, beside the
            mean loss; not of biases. scikit-learn's C is 1 / (strength x rows of a subset).
        strengths: to choose from.
        choose: the one with the best ``"worst"``-group accuracy or ``"average"`` accuracy on ``validation``; of equals
            the strongest.
        subsets: how many regressions are averaged.
        tolerance: they are taken for solved where no entry of the gradient (of the part beside an L1 penalty: of the
            step, in its units) is larger.
        seed: of the subsets.

    Raises:
        ArgumentError, ShapeError: an argument or the rows cannot be used, or the model does not end in a linear layer.
    """
    for name, value, known in (("penalty", penalty, Penalty), ("choose", choose, Rule)):
        if value not in get_args(known):
            raise ArgumentError(f"unknown {name}", expected=", ".join(get_args(known)), got=repr(value))
    for strength in strengths:
        check_number("strength", strength, positive=False)
    check_count("subsets", subsets)
    check_number("tolerance", tolerance, positive=True)
    if not strengths or (len(strengths) > 1 and validation is None):
        raise ArgumentError(
            "a strength is chosen on validation rows", expected="one strength, or validation=...", got=list(strengths)
        )
    copied = copy.deepcopy(model)
    layer = _last_linear(copied, held_out[0])
    features, labels, numbers = _read(copied, layer, held_out)
    middle, spread = features.mean(0), features.std(0, correction=0)
    usable = spread > 1e-12 * features.abs().amax(0)
    scaled = torch.where(usable, (features - middle) / torch.where(usable, spread, 1.0), 0.0)
    if len(labels.unique()) < 2:
        raise ArgumentError(
            "the held-out rows are all of one class", expected="rows of two classes or more",
            got=f"{len(labels)} rows of class {int(labels[0])}", mend="hold out rows of all classes",
        )  # fmt: skip
    chosen = list(_balanced(numbers, subsets, seed))
    judged = None if validation is None else _read(copied, layer, validation)
    fitted: dict[float, tuple[Tensor, Tensor]] = {}
    validated: dict[float, tuple[float, float]] = {}
    for strength in sorted(set(strengths), reverse=True):
        found = [
            logistic(scaled[index], labels[index], layer.out_features, penalty, strength, tolerance) for index in chosen
        ]
        weight, bias = (torch.stack(parts).mean(0) for parts in zip(*found, strict=True))
        weight = torch.where(usable, weight / torch.where(usable, spread, 1.0), 0.0)
        fitted[strength] = weight, bias - weight @ middle
        if judged is not None:
            validated[strength] = _judged(*judged, *fitted[strength])
    best = max(fitted, key=lambda s: validated[s][choose == "average"] if validated else 0.0)
    # parameters of its own: a weight that is shared with another layer stays what it is there
    layer.weight, layer.bias = (nn.Parameter(part.to(layer.weight)) for part in fitted[best])
    return Retrained(copied, best, validated)


def logistic(
    features: Tensor, labels: Tensor, outputs: int, penalty: Penalty, strength: float, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Weights (C, D) and biases (C,) of a penalised logistic regression: softmax, or of one output the logistic loss.

    Accelerated proximal gradient steps (Beck, Teboulle 2009) that start anew where they turn back (O'Donoghue, Candes
    2015), on the mean loss over rows. See ``retrain_last_layer`` for the penalty and the tolerance.

    Args:
        features: (N, D) float64.
        labels: (N,) class numbers.
    """
    x = torch.cat([features, features.new_ones(len(features), 1)], 1)
    single = outputs == 1
    truth = labels[:, None].to(x) if single else F.one_hot(labels, outputs).to(x)
    # the second derivative of the loss by the logits is at most a quarter, of a softmax at most a half
    curve = float(torch.linalg.matrix_norm(x, 2) ** 2) / len(x) * (0.25 if single else 0.5)
    curve += strength if penalty == "l2" else 0.0
    at = ahead = x.new_zeros(outputs, x.shape[1])
    inertia = 1.0
    for _ in range(_STEPS):
        logits = ahead @ x.T
        chance = torch.sigmoid(logits) if single else torch.softmax(logits, 0)
        slope = (chance - truth.T) @ x / len(x)
        if penalty == "l2":
            slope[:, :-1] += strength * ahead[:, :-1]
        new = ahead - slope / curve
        if penalty == "l1":
            new[:, :-1] = F.softshrink(new[:, :-1], strength / curve)
        if curve * float((new - ahead).abs().max()) < tolerance:
            at = new
            break
        if float(((ahead - new) * (new - at)).sum()) > 0:
            inertia = 1.0
        faster = (1 + math.sqrt(1 + 4 * inertia**2)) / 2
        ahead, at, inertia = new + (inertia - 1) / faster * (new - at), new, faster
    return at[:, :-1], at[:, -1]


def _balanced(numbers: Tensor, subsets: int, seed: int) -> Iterator[Tensor]:
    """Row numbers of random subsets with as many rows of every group as the smallest has."""
    members = [(numbers == group).nonzero()[:, 0] for group in range(int(numbers.max()) + 1)]
    size = min(map(len, members))
    for subset in range(subsets):
        draws = seeding.generator(seed, "balanced subset", subset)
        yield torch.cat([rows[torch.randperm(len(rows), generator=draws)[:size]] for rows in members])


def _judged(features: Tensor, labels: Tensor, numbers: Tensor, weight: Tensor, bias: Tensor) -> tuple[float, float]:
    """Worst-group accuracy and accuracy of a last layer."""
    outputs = features @ weight.T + bias
    answers = (outputs[:, 0] > 0).long() if len(weight) == 1 else outputs.argmax(1)
    right, counts = group_sums((answers == labels).double(), numbers, int(numbers.max()) + 1)
    return float((right / counts).min()), float(right.sum() / counts.sum())


def _last_linear(model: nn.Module, inputs: Inputs) -> nn.Linear:
    """The linear layer whose output is the model's."""
    made: list[tuple[nn.Linear, Tensor]] = []
    hooks = [
        part.register_forward_hook(lambda part, given, output: made.append((part, output)))
        for part in model.modules()
        if isinstance(part, nn.Linear)
    ]
    try:
        outputs = _outputs(model, take(inputs, torch.arange(min(rows(inputs), 2))))
    finally:
        for hook in hooks:
            hook.remove()
    ends = made and made[-1][1].ndim == 2 and torch.equal(made[-1][1], outputs)
    if not ends or made[-1][0].bias is None or nn.utils.parametrize.is_parametrized(made[-1][0]):
        raise ArgumentError(
            "the model does not end in a linear layer with biases",
            expected="outputs (B, C) that an nn.Linear makes, its weight not parametrised",
            got=repr(made[-1][0]) if made else "no linear layer",
            mend="torch.nn.utils.parametrize.remove_parametrizations; move what follows the layer out of the model",
        )
    return made[-1][0]


def _outputs(model: nn.Module, inputs: Inputs) -> Tensor:
    with autodiff.reading(model, trainable=False), torch.no_grad():
        return outputs_of(call(model, inputs))


def _read(model: nn.Module, layer: nn.Linear, data: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """What enters the layer (N, D) in float64, class numbers (N,) and group numbers (N,)."""
    if not isinstance(data, tuple) or len(data) != 3:
        raise ArgumentError("rows come with groups", expected="(inputs, labels, groups)", got=type(data).__name__)
    inputs, labels, groups = data
    n = rows(inputs)
    if labels.shape != (n,) or labels.is_floating_point():
        got = f"{labels.dtype} {tuple(labels.shape)}"
        raise ShapeError("labels are class numbers", expected=f"whole numbers ({n},)", got=got)
    classes = max(layer.out_features, 2)
    if bool(((labels < 0) | (labels >= classes)).any()):
        got = f"{int(labels.min())} to {int(labels.max())}"
        raise ArgumentError("labels outside the classes", expected=f"0 to {classes - 1}", got=got)
    seen: list[Tensor] = []
    found: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda part, given: seen.append(given[0].detach().double()))
    try:
        for index in torch.arange(n).split(_PASS):
            _outputs(model, take(inputs, index))
            # the last call of a pass makes the outputs
            found.append(seen[-1])
            seen.clear()
    finally:
        hook.remove()
    features = torch.cat(found)
    return features, labels.to(features.device).long(), group_numbers(groups, n)[0].to(features.device)
