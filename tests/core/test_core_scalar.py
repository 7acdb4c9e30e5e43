"""Which number is explained."""

import pytest
import torch
import torch.nn.functional as F

from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.scalar import explained, needs_target, resolve_target, single

SCORES = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([2, 0, 1, 1])
CLASSES = torch.tensor([0, 0, 2, 1])
LOGIT = SCORES[:, 0]
TRUTH = torch.tensor([0.0, 1.0, 1.0, 0.25], dtype=torch.float64)


def _picked(table):
    return torch.stack([row[c] for row, c in zip(table, CLASSES, strict=True)])


MANY = {
    "logit": _picked(SCORES),
    "prob": _picked(SCORES.softmax(1)),
    "log_prob": _picked(SCORES.softmax(1).log()),
    "log_odds": _picked((SCORES.softmax(1) / (1 - SCORES.softmax(1))).log()),
    "log_prob_sum": SCORES.softmax(1).log().sum(1),
    "loss": F.cross_entropy(SCORES, LABELS, reduction="none"),
    "loss_uniform": F.cross_entropy(SCORES, torch.full((4, 3), 1 / 3, dtype=torch.float64), reduction="none"),
}
P = torch.sigmoid(LOGIT)
ONE = {
    "logit": LOGIT,
    "prob": P,
    "log_prob": P.log(),
    "log_odds": (P / (1 - P)).log(),
    "log_prob_sum": P.log() + (1 - P).log(),
    "loss": F.binary_cross_entropy(P, TRUTH, reduction="none"),
    "loss_uniform": F.binary_cross_entropy(P, torch.full((4,), 0.5).double(), reduction="none"),
}


@pytest.mark.parametrize("output", MANY)
def test_of_several_classes(output):
    found = explained(SCORES, LABELS, CLASSES, output)
    assert torch.allclose(found, MANY[output], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
@pytest.mark.parametrize("output", ONE)
def test_of_a_single_output(output, shape):
    found = explained(LOGIT.reshape(shape), TRUTH, None, output)
    assert found.shape == (4,)
    assert torch.allclose(found, ONE[output], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("output", ["log_prob", "log_odds", "log_prob_sum", "loss", "loss_uniform"])
def test_confident_outputs_stay_finite(output):
    for scores, labels in (
        (torch.tensor([[1e4, 0.0]]), torch.tensor([1])),
        (torch.tensor([-1e4]), torch.tensor([1.0])),
    ):
        assert explained(scores, labels, torch.tensor([1]), output).isfinite().all()


def test_which_outputs_single_out_a_class():
    assert [needs_target(output, SCORES) for output in MANY] == [True, True, True, True, False, False, False]
    assert not any(needs_target(output, LOGIT[:, None]) for output in MANY)
    assert not needs_target(lambda outputs, labels: outputs[:, 0], SCORES)
    assert [single(torch.zeros(s)) for s in [(4,), (4, 1), (4, 2), (4, 1, 1)]] == [True, True, False, False]


def test_a_callable_sees_outputs_and_labels():
    assert torch.equal(explained(SCORES, LABELS, None, lambda o, y: o[:, 0] - y), SCORES[:, 0] - LABELS)
    with pytest.raises(ShapeError, match="one number an example"):
        explained(SCORES, LABELS, None, lambda o, y: o)


def test_targets():
    assert resolve_target("label", LABELS, 4, 3).tolist() == LABELS.tolist()
    assert resolve_target(1, None, 4, 3).tolist() == [1, 1, 1, 1]
    assert resolve_target(LABELS.to(torch.uint8), None, 4, 3).dtype == torch.int64
    for target in (3, -1, torch.tensor([0, 0, 0, 3])):
        with pytest.raises(ArgumentError, match="does not have"):
            resolve_target(target, None, 4, 3)
    with pytest.raises(ShapeError):
        resolve_target(torch.tensor([0]), None, 4, 3)
    with pytest.raises(ArgumentError, match="labels are needed"):
        resolve_target("label", None, 4, 3)


def test_a_regression_has_no_binary_loss():
    with pytest.raises(ArgumentError, match="between 0 and 1"):
        explained(LOGIT, TRUTH * 3, None, "loss")
