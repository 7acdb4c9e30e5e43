"""Whatever cannot be used is refused by name, before anything is trained or written."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

import rightly as rt
from rightly.core.errors import AnnotationError, ArgumentError, RightlyError, ShapeError
from training.training_problems import Items, bits, classification, linear, mlp, objective, same, term

X, Y = classification()
VALID = (X[:30], Y[:30])
ADAM = torch.optim.Adam(torch.nn.Linear(1, 1).parameters())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, ["epochs", "at least 1", "0"]),
        ({"epochs": 2.5}, ["epochs", "whole number", "2.5"]),
        ({"epochs": True}, ["epochs", "True"]),
        ({"batch_size": 0}, ["batch_size", "at least 1"]),
        ({"batch_size": 8.0}, ["batch_size", "8.0"]),
        ({"optimizer": "adagrad"}, ["optimizer", "adam, adamw, sgd", "adagrad"]),
        ({"optimizer": ADAM}, ["optimizer", "function", "Adam"]),
        ({"optimizer": None}, ["optimizer", "NoneType"]),
        ({"optimizer": lambda parameters: None}, ["no optimizer", "NoneType"]),
        ({"lr": 0.0}, ["lr", "> 0"]),
        ({"lr": -1.0}, ["lr", "-1.0"]),
        ({"lr": float("nan")}, ["lr", "nan"]),
        ({"lr": "0.1"}, ["lr", "'0.1'"]),
        ({"weight_decay": -0.1}, ["weight_decay", ">= 0"]),
        ({"weight_decay": float("inf")}, ["weight_decay", "inf"]),
        ({"scheduler": torch.optim.lr_scheduler.ConstantLR(ADAM)}, ["scheduler", "function"]),
        ({"scheduler": "cosine"}, ["scheduler", "'cosine'"]),
        ({"schedule": "both"}, ["schedule", "joint, alternate", "'both'"]),
        ({"prior_optimizer": "adam"}, ["schedule='alternate'", "'joint'"]),
        ({"prior_optimizer": "sdg", "schedule": "alternate"}, ["optimizer", "sdg"]),
        ({"monitor": "loss", "validation": VALID}, ["monitor", "function"]),
        ({"monitor": lambda outputs, labels: 0.0}, ["monitor", "validation"]),
        ({"patience": 2}, ["patience", "validation"]),
        ({"patience": 0, "validation": VALID}, ["patience", "at least 1"]),
        ({"patience": 1.5, "validation": VALID}, ["patience", "1.5"]),
        ({"precision": "float16"}, ["precision", "float32, bfloat16", "'float16'"]),
        ({"device": "gpu"}, ["device", "'gpu'"]),
        ({"device": "cuda:77"}, ["device", "cuda:77"]),
        ({"seed": None}, ["seed", "None"]),
        ({"seed": 1.0}, ["seed", "1.0"]),
        ({"resume": True}, ["resume", "checkpoint"]),
        ({"callback": 3}, ["callback", "3"]),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_bad_arguments(settings, words):
    trained = objective()
    before = bits(trained)
    with pytest.raises(ArgumentError) as caught:
        rt.fit(trained, (X, Y), **settings)
    for word in words:
        assert word in str(caught.value)
    assert same(bits(trained), before)


def test_a_checkpoint_that_is_a_file_is_refused_at_once(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ArgumentError, match="folder"):
        rt.fit(objective(), (X, Y), checkpoint=file)
    assert file.read_text() == "mine"


def test_only_objectives_are_trained():
    with pytest.raises(ArgumentError, match="Sequential"):
        rt.fit(mlp(), (X, Y))


def test_nothing_to_train():
    trained = objective()
    trained.requires_grad_(False)
    with pytest.raises(ArgumentError, match="nothing to train"):
        rt.fit(trained, (X, Y))
    with pytest.raises(ArgumentError, match="nothing to train"):
        rt.fit(rt.Objective(torch.nn.ReLU(), F.cross_entropy), (X, Y))


class Endless:
    """Ends at once."""

    def __iter__(self):
        return iter(())


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (iter([(X, Y)]), ArgumentError, ["iterator", "once", "list_iterator"]),
        (((x, y) for x, y in [(X, Y)]), ArgumentError, ["iterator", "generator"]),
        (zip([X], [Y], strict=True), ArgumentError, ["iterator", "zip"]),
        (None, ArgumentError, ["data", "NoneType"]),
        (3, ArgumentError, ["data", "int"]),
        (X, ArgumentError, ["batch", "Tensor"]),
        ((X,), ArgumentError, ["(inputs, labels)", "tuple of 1"]),
        ((X, Y, None, None), ArgumentError, ["tuple of 4"]),
        ((X, Y.tolist()), ArgumentError, ["labels a tensor"]),
        ((X.numpy(), Y), ArgumentError, ["inputs", "ndarray"]),
        ({"x": X, "y": Y}, ArgumentError, ["batch", "str"]),
        ([], ArgumentError, ["nothing to train on"]),
        (Endless(), ArgumentError, ["nothing to train on"]),
        (Items([]), ArgumentError, ["nothing to train on"]),
        (DataLoader(TensorDataset(X, Y), 100, drop_last=True), ArgumentError, ["nothing to train on"]),
        ((X[:0], Y[:0]), ShapeError, ["empty"]),
        ((X, Y[:-1]), ShapeError, ["labels", "90", "89"]),
        ((X, Y[0]), ShapeError, ["labels", "90", "()"]),
        ([(X, Y), (X, Y[:5])], ShapeError, ["labels", "5"]),
        (((X, X[:5]), Y), ShapeError, ["agree"]),
        ((X, Y, X > 0), ArgumentError, ["annotation", "Tensor"]),
        ((X, Y, rt.Annotation(irrelevant=X[:7] > 0)), ShapeError, ["annotations", "90", "7"]),
        ((X, Y, {"irrelevant": X[:7] > 0}), ShapeError, ["annotations", "7"]),
        (Items([X[0], X[1]]), ArgumentError, ["batch"]),
    ],
    ids=str,
)
def test_bad_data(data, error, words):
    trained = objective(None)
    with pytest.raises(error) as caught:
        rt.fit(trained, data, epochs=1)
    assert isinstance(caught.value, RightlyError)
    for word in words:
        assert word in str(caught.value)
    assert trained.training


@pytest.mark.parametrize("data", [iter([(X, Y)]), (X, Y[:5]), [], 3])
def test_bad_validation_data(data):
    with pytest.raises(RightlyError):
        rt.fit(objective(), (X, Y), data, epochs=1)


def test_a_prior_without_its_annotation():
    prior = rt.Term(rt.Gradient(), rt.priors.Irrelevant(), 1.0)
    with pytest.raises(AnnotationError, match="irrelevant"):
        rt.fit(rt.Objective(mlp(), F.cross_entropy, [prior]), (X, Y))
    data = (X, Y, rt.Annotation(irrelevant=torch.ones(90, 7)))
    with pytest.raises(AnnotationError, match="does not fit"):
        rt.fit(rt.Objective(mlp(), F.cross_entropy, [prior]), data)


def test_a_loss_that_is_not_one_number():
    with pytest.raises(ShapeError, match="one number"):
        rt.fit(rt.Objective(mlp(), lambda o, y: F.cross_entropy(o, y, reduction="none")), (X, Y))


def test_a_frozen_part_that_a_term_needs_is_an_error():
    class Constant(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fixed, self.free = linear(6, dtype=torch.float32), torch.nn.Parameter(torch.zeros(1))
            self.fixed.requires_grad_(False)

        def forward(self, x):
            return self.fixed(x) + self.free

    # the gradient of the output does not depend on the only trainable parameter
    with pytest.raises(rt.core.errors.NotConnectedError, match="does not reach the parameters"):
        rt.fit(rt.Objective(Constant(), F.mse_loss, [term()]), (X, Y[:, None].float()))
