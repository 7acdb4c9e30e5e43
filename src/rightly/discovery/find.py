"""Find another explanation: one model after the other, or several at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from torch import nn

from rightly.attributions.bulk import described
from rightly.core.checks import check_count, check_number
from rightly.core.errors import ArgumentError
from rightly.core.scalar import Output, Target
from rightly.core.types import Space
from rightly.discovery.question import Question, Score
from rightly.discovery.result import Discovery
from rightly.discovery.sequential import one_after_another
from rightly.discovery.simultaneous import all_at_once
from rightly.objectives.objective import Loss
from rightly.objectives.term import Weight, check_weight
from rightly.training.batches import Data

Method = Literal["sequential", "simultaneous"]

#: models at most in a sequence, and models trained at once, unless told
_MODELS = {"sequential": 5, "simultaneous": 2}


def find_another_explanation(
    model_factory: Callable[[int], nn.Module],
    loss: Loss,
    train: Data,
    *,
    validation: Data | None = None,
    method: Method = "sequential",
    models: int | None = None,
    weight: Weight | Sequence[Weight] = "balance",
    space: Space | None = None,
    output: Output | None = None,
    cutoff: float = 0.67,
    mask_output: Output = "log_odds",
    mask_target: Target = "predicted",
    eps: float = 1e-6,
    tolerance: float = 0.05,
    repeated: float = 0.9,
    alike: float = 0.5,
    score: Score | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    **training: Any,
) -> Discovery:
    """Train models that are accurate for different reasons, without any annotation.

    ``"sequential"`` (Ross, Hughes, Doshi-Velez 2017; Ross 2018, 2.2.2) trains a plain model, marks each example's
    largest gradients, and trains the next one from scratch with right-reasons on all that was marked so far; it stops
    when the models run out of reasons. ``"simultaneous"`` (Ross 2018, appendix 2.C) trains several at once and keeps
    their gradients at right angles to each other, which also tells reasons apart that a first model would use
    together. The first model of a sequence is what ``rt.fit`` gives with that seed.

    Args:
        model_factory: seed -> an untrained model, called with a random state of its own.
        loss: (outputs, labels) -> scalar, a mean over the batch.
        train, validation: ``(inputs, labels)`` in memory.
        method: ``"sequential"`` or ``"simultaneous"``.
        models: of a sequence the most that are trained (5), or how many are trained at once (2).
        weight: of the penalty. A sequence takes one, or one for each model from the second on, of which the last is
            kept; ``"balance"`` makes it as large as the task loss, anew for each model.
        space: where gradients are taken: the inputs, a layer, ``rt.spaces.Latent(encoder, decoder)``.
        output: whose gradient is penalised. By default, in a sequence, the sum of log-probabilities, as published
            (a regression needs another); at once, the log-odds of the label, which is local independence.
        cutoff, mask_output, mask_target: what is marked: components larger than ``cutoff`` times the example's
            largest, of the gradient of this output. The published one is the largest probability, for which
            ``"log_odds"`` of the predicted class gives the same mask where that one underflows.
        eps: of the squared cosine (see ``rt.priors.Independence``).
        tolerance: how much lower than the first model's a score may be before a sequence stops.
        repeated: a sequence stops when this share of what a model marks was marked before: explanations do not
            change any more.
        alike: mean absolute cosine from which two models are said to have the same reasons; a sequence stops there
            too.
        score: (outputs, labels) -> number, high is good. By default the accuracy of class numbers, (N,), and of float
            one-hot labels, (N, K), and the share of explained variance (R2) of values, a mean over columns. Other
            labels, such as several classes at once, need it.
        seed: of the first model; those of the others are derived from it.
        folder: where to keep a checkpoint of each model, written after every epoch.
        resume: go on with what is in the folder, to the same bits.
        progress: show a bar for each training.
        **training: further arguments of ``rt.fit``, such as ``epochs``, ``batch_size`` and ``lr``.

    Raises:
        ArgumentError, ShapeError: an argument or the data cannot be used.
        NotConnectedError, DoubleBackwardError: the loss or the penalty cannot train.
        CheckpointError: the folder holds another discovery, or is damaged.
    """
    if method not in get_args(Method):
        raise ArgumentError("unknown method", expected=", ".join(get_args(Method)), got=repr(method))
    count = _MODELS[method] if models is None else check_count("models", models, least=2)
    weights: tuple[Weight, ...] = (weight,) if isinstance(weight, str | int | float) else tuple(weight)
    _check_weights(weights, method)
    check_number("repeated", repeated, positive=False)
    question = Question(
        model_factory=model_factory,
        loss=loss,
        train=train,
        validation=validation,
        space=space,
        cutoff=cutoff,
        mask_output=mask_output,
        mask_target=mask_target,
        tolerance=tolerance,
        alike=alike,
        score=score,
        seed=seed,
        folder=None if folder is None else Path(folder),
        resume=resume,
        progress=progress,
        training=training,
    )
    question.identify(
        {
            "method": method,
            "weights": list(weights),
            # a sequence may be made longer
            "models": None if method == "sequential" else count,
            "output": described(output),
            "eps": eps,
        }
    )
    if method == "sequential":
        return one_after_another(question, count, weights, output or "log_prob_sum", repeated)
    return all_at_once(question, count, weights[0], output or "log_odds", eps)


def _check_weights(weights: tuple[Weight, ...], method: Method) -> None:
    if not weights or (method == "simultaneous" and len(weights) > 1):
        expected = "a weight, or a list of them" if method == "sequential" else "one weight for all pairs"
        raise ArgumentError("unusable weights", expected=expected, got=list(weights))
    for value in weights:
        check_weight(value)
