"""Optimizers, schedulers, early stopping, monitors, precision, callbacks, progress."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from rightly.core.errors import DoubleBackwardError, NotConnectedError
from rightly.training import DivergedError
from training.training_problems import bits, classification, linear, mlp, objective, regression, same, term

X, Y = classification()
VALID = (X[:30], Y[:30])


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("adam", lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.1)),
        ("adamw", lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1)),
        ("sgd", lambda p: torch.optim.SGD(p, lr=0.02, weight_decay=0.1)),
    ],
)
def test_an_optimizer_by_name_is_the_one_of_torch(name, make):
    named, made = objective(), objective()
    rt.fit(named, (X, Y), epochs=2, optimizer=name, lr=0.02, weight_decay=0.1)
    rt.fit(made, (X, Y), epochs=2, optimizer=make)
    assert same(bits(named), bits(made))


def test_the_optimizers_differ():
    trained = {name: objective() for name in ("adam", "adamw", "sgd")}
    for name, one in trained.items():
        rt.fit(one, (X, Y), epochs=2, optimizer=name, lr=0.02, weight_decay=0.1)
    states = [bits(one) for one in trained.values()]
    assert not same(states[0], states[1])
    assert not same(states[1], states[2])


def test_an_optimizer_of_some_parameters_trains_only_those():
    trained = objective()
    before = bits(trained.model)
    rt.fit(trained, (X, Y), epochs=2, optimizer=lambda parameters: torch.optim.SGD(parameters[:1], lr=0.1))
    changed = {name for name, value in bits(trained.model).items() if not torch.equal(value, before[name])}
    assert changed == {"1.weight"}
    assert all(parameter.grad is None for parameter in trained.parameters())


def test_a_scheduler_steps_once_an_epoch():
    rates = []

    def make(optimizer):
        made = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
        rates.append(lambda: optimizer.param_groups[0]["lr"])
        return made

    seen = []
    rt.fit(
        objective(),
        (X, Y),
        epochs=5,
        lr=1.0,
        optimizer="sgd",
        scheduler=make,
        callback=lambda e, h: seen.append(rates[0]()),
    )
    assert seen == pytest.approx([1.0, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("validation", [None, VALID])
def test_a_plateau_scheduler_watches_the_monitored_number(validation):
    made = []

    def make(optimizer):
        made.append(
            torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, patience=0, threshold=10.0, threshold_mode="abs", factor=0.5
            )
        )
        return made[0]

    run = rt.fit(objective(), (X, Y), validation, epochs=3, lr=0.01, scheduler=make)
    assert made[0].optimizer.param_groups[0]["lr"] == pytest.approx(0.0025)
    first = run.history[0]
    assert made[0].best == (first["task"] if validation is None else first["validation"])


def scripted(numbers: list[float]):
    """A monitor that says what it was told to say, epoch by epoch."""
    left = iter(numbers)
    return lambda outputs, labels: next(left)


@pytest.mark.parametrize(
    ("numbers", "patience", "best", "epochs"),
    [
        ([5, 4, 3, 3, 3, 2], 2, 2, 5),  # equal is no improvement
        ([5, 4, 3, 3, 2, 9, 9, 9], 2, 4, 7),
        ([1, 2], 1, 0, 2),
        ([3, 2, 1], 1, 2, 3),
        ([math.inf, 2.0, 3.0], 1, 1, 3),
    ],
)
@pytest.mark.parametrize("restore_best", [True, False])
def test_patience_and_the_best_epoch(numbers, patience, best, epochs, restore_best):
    trained = objective()
    states = []
    run = rt.fit(
        trained,
        (X, Y),
        VALID,
        epochs=len(numbers),
        lr=0.01,
        monitor=scripted(numbers),
        patience=patience,
        restore_best=restore_best,
        callback=lambda epoch, entry: states.append(bits(trained.model)),
    )
    assert len(run.history) == epochs
    assert [entry["validation"] for entry in run.history] == numbers[:epochs]
    assert (run.best_epoch, run.best_value) == (best, numbers[best])
    assert run.stopped == ("patience" if epochs - 1 - best >= patience else "epochs")
    assert same(bits(trained.model), states[best if restore_best else -1])


def test_the_monitor_sees_all_validation_examples_in_order():
    seen = []

    def monitor(outputs, labels):
        seen.append((outputs.clone(), labels.clone()))
        return float(len(seen))

    big = classification(1500)
    trained = objective()
    rt.fit(trained, (X, Y), big, epochs=2, monitor=monitor)
    assert [len(labels) for _, labels in seen] == [1500, 1500]
    assert torch.equal(seen[0][1], big[1])
    with torch.no_grad():
        expected = trained.model.eval()(big[0])
    assert torch.allclose(seen[0][0], expected, atol=1e-6)  # the first epoch was the best


def test_bfloat16_runs_under_autocast_and_still_learns():
    types = []

    def loss(outputs, labels):
        types.append(outputs.dtype)
        return F.cross_entropy(outputs, labels)

    trained = rt.Objective(mlp(dropout=0.0), loss, [term(0.1)])
    run = rt.fit(trained, (X, Y), VALID, epochs=30, lr=0.02, batch_size=30, precision="bfloat16")
    assert torch.bfloat16 in types
    assert {p.dtype for p in trained.parameters()} == {torch.float32}
    assert run.history[-1]["task"] < 0.6 * run.history[0]["task"]
    exact = objective(0.1, dropout=0.0)
    rt.fit(exact, (X, Y), VALID, epochs=30, lr=0.02, batch_size=30)
    assert not same(bits(exact.model), bits(trained.model))


def test_the_callback_gets_the_history_as_it_grows():
    calls = []
    run = rt.fit(objective(), (X, Y), VALID, epochs=3, callback=lambda epoch, entry: calls.append((epoch, entry)))
    assert calls == list(enumerate(run.history))
    assert set(run.history[0]) == {"epoch", "task", "terms", "validation"}
    assert [entry["epoch"] for entry in run.history] == [0, 1, 2]
    assert run.seconds > 0


def test_means_are_over_examples_not_over_batches():
    x, y = torch.ones(5, 1), torch.tensor([[0.0], [0.0], [0.0], [0.0], [10.0]])
    model = linear(1, dtype=torch.float32)
    batches = [(x[:4], y[:4]), (x[4:], y[4:])]
    run = rt.fit(rt.Objective(model, F.mse_loss), batches, epochs=1, optimizer="sgd", lr=1e-12)
    assert run.history[0]["task"] == pytest.approx(100 / 5)


def test_progress_writes_to_the_error_stream_only(capsys):
    rt.fit(objective(), (X, Y), epochs=2, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "2/2" in shown.err
    rt.fit(objective(), (X, Y), epochs=2)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("where", ["inputs", "labels", "rate", "weight"])
def test_a_loss_that_is_not_finite_is_one_clear_error(where):
    x, y = regression(dtype=torch.float32)
    settings = {"optimizer": "sgd", "lr": 0.1}
    if where == "inputs":
        x[7, 1] = torch.nan
    if where == "labels":
        y[7] = torch.nan
    if where == "rate":
        settings["lr"] = 1e30
    prior = rt.Term(rt.InputXGradient(), rt.priors.L2(), 1e30 if where == "weight" else 0.1)
    trained = rt.Objective(linear(dtype=torch.float32), F.mse_loss, [prior])
    torch.nn.init.ones_(trained.model.weight)
    with pytest.raises(DivergedError) as caught:
        rt.fit(trained, (x, y), epochs=20, **settings)
    assert "no longer a finite number in epoch" in str(caught.value)
    assert "learning rate" in caught.value.mend
    assert trained.training


def test_a_monitor_that_gives_nan_is_an_error_and_not_the_best():
    with pytest.raises(DivergedError, match="NaN"):
        rt.fit(objective(), (X, Y), VALID, monitor=lambda outputs, labels: math.nan)


def test_a_detached_loss_is_an_error():
    with pytest.raises(NotConnectedError, match="does not reach"):
        rt.fit(rt.Objective(mlp(), lambda outputs, labels: F.cross_entropy(outputs.detach(), labels)), (X, Y))


def test_a_detached_model_and_a_missing_second_derivative_are_errors():
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp()

        def forward(self, x):
            return self.inner(x) + 0 * x.detach().sum()

    rt.fit(rt.Objective(Detached(), F.cross_entropy, [term()]), (X, Y), epochs=1)  # this one is connected

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):
            return grad

    class Rounded(Detached):
        def forward(self, x):
            return self.inner(Once.apply(x))

    with pytest.raises((NotConnectedError, DoubleBackwardError, RuntimeError)):
        rt.fit(rt.Objective(Rounded(), F.cross_entropy, [term()]), (X, Y), epochs=1)
