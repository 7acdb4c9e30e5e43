"""Every engine gives the gradient that double backward gives, or says that it cannot."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import rightly as rt
from contracts.agreement import CLOSE, check_same
from contracts.derivatives import check_term
from contracts.engines import (
    check_differences,
    check_engine,
    check_memory,
    check_objective,
    check_refused,
    explain,
    gradients,
    trained,
)
from contracts.problems import initialised, normal
from contracts.unchanged import check_unchanged
from contracts.zoo import BENT, FITS, LABELS, SMOOTH, Case, case, piecewise, several
from rightly.core import autodiff
from rightly.core.engines import DoubleBackward, FiniteDifferences, TwoPhase
from rightly.core.errors import ArgumentError
from rightly.core.frozen import FrozenMasks, FrozenStack
from rightly.core.intercept import Unsupported

METHODS = {
    "eg1-logit": rt.ExpectedGradients(n_samples=1),
    "eg3-loss": rt.ExpectedGradients(n_samples=3, output="loss"),
    "gradient-log_prob_sum": rt.Gradient(output="log_prob_sum"),
}
OUTPUTS = {
    **{name: name for name in ("logit", "prob", "log_prob", "log_odds", "log_prob_sum", "loss", "loss_uniform")},
    "bent callable": lambda outputs, labels: outputs[:, 0] * outputs[:, 1] + labels,
    "straight callable": lambda outputs, labels: outputs @ torch.arange(3).to(outputs),
    "kinked callable": lambda outputs, labels: outputs.relu().sum(1),
}
EVERY = {
    "eg1": partial(rt.ExpectedGradients, n_samples=1),
    "eg3": partial(rt.ExpectedGradients, n_samples=3),
    "integrated": partial(rt.IntegratedGradients, n_steps=4),
    "gradient": rt.Gradient,
    "input x gradient": rt.InputXGradient,
    "smooth": partial(rt.SmoothGrad, n_samples=2, kind="square"),
}


def two_phase(case, chunk=2, inner=None):
    inner = inner or DoubleBackward()
    parameters = [p for p in case.model.parameters() if p.requires_grad]
    return TwoPhase(inner, chunk, lambda: parameters, partial(autodiff.reading, case.model, trainable=inner.twice))


def differences(case, step=1e-3):
    parameters = list(case.model.parameters())
    return FiniteDifferences(lambda: parameters, partial(autodiff.reading, case.model, trainable=False), step)


def terms(method, prior=None, weight=2.0):
    return lambda engine: [rt.Term(method, prior or rt.priors.L2(), weight, engine=engine)]


# --- the frozen-mask engine


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FITS)
def test_frozen_masks_agree_with_double_backward(name, method):
    check_engine(FrozenMasks(), case(name), METHODS[method])


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("method", EVERY)
def test_frozen_masks_agree_for_every_output_and_method(method, output):
    check_engine(FrozenMasks(), piecewise(), EVERY[method](output=OUTPUTS[output]))


@pytest.mark.parametrize("layer", ["0", "1", "2", "3"])
@pytest.mark.parametrize("output", ["logit", "loss"])
def test_frozen_masks_agree_in_the_space_of_a_layer(layer, output):
    space = rt.spaces.Layer(layer)
    for method in (rt.InputXGradient, partial(rt.ExpectedGradients, n_samples=2)):
        check_engine(FrozenMasks(), piecewise(), method(space=space, output=output))


def test_frozen_masks_agree_with_several_inputs_and_a_structured_output():
    check_engine(FrozenMasks(), several(), rt.InputXGradient(space=rt.spaces.Layer("a"), output="loss"))


def test_one_engine_serves_many_steps():
    """Nothing that it learnt in one pass is taken for granted in the next."""
    subject, engine = piecewise(), FrozenMasks()
    check_engine(engine, subject, rt.Gradient())
    check_engine(engine, subject, rt.Gradient(output="loss"))
    check_engine(engine, subject, rt.ExpectedGradients(output="loss"))
    check_engine(engine, case("mlp"), rt.Gradient())


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", ["mlp", "residual", "2-D", "image functions", "branches"])
def test_frozen_masks_agree_on_small_batches(name, batch):
    check_engine(FrozenMasks(), case(name, batch=batch), rt.Gradient(output="loss"))


def test_a_parameter_and_a_part_of_it_are_not_counted_twice():
    check_engine(FrozenMasks(), case("products"), rt.Gradient(output="loss"))


PLAIN = ["linear", "mlp", "mlp without biases", "frozen weights"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PLAIN)
def test_the_stack_agrees_with_double_backward(name, method):
    subject = case(name)
    check_engine(FrozenStack(subject.model), subject, METHODS[method])


# --- what does not fit


@pytest.mark.parametrize("name", BENT)
def test_what_does_not_fit_is_refused(name):
    check_refused(FrozenMasks(), case(name), rt.Gradient(output="loss"))


@pytest.mark.parametrize("name", BENT)
def test_auto_falls_back_and_says_why(name):
    make = partial(_frozen_dropout, name)
    chosen = check_objective(make, terms(rt.Gradient(output="loss")))["l2"]
    assert chosen.name == "double-backward"
    assert len(chosen.why) > 10


def _frozen_dropout(name):
    subject = case(name)
    subject.model.eval()
    return subject


@pytest.mark.parametrize("name", ["gelu", "square", "half recorded", "keeps an activation"])
def test_asked_for_where_it_does_not_fit(name):
    subject = case(name)
    objective = rt.Objective(subject.model, nn.functional.cross_entropy, terms(rt.Gradient())("frozen-masks"))
    with pytest.raises(ArgumentError, match="cannot use the frozen-mask engine") as found:
        objective(subject.inputs, subject.labels)
    assert found.value.got
    assert found.value.mend
    assert objective.engines.choices == {}


# --- objectives


@pytest.mark.parametrize("name", FITS)
def test_auto_gives_the_gradients_of_double_backward(name):
    method = rt.ExpectedGradients(n_samples=2, output="loss")
    chosen = check_objective(partial(case, name), terms(method))["l2"]
    assert chosen.name == "frozen-masks", chosen.why
    assert chosen.error < 1e-10


@pytest.mark.parametrize("name", ["mlp", "mlp without biases", "pools", "branches", "tied"])
@pytest.mark.parametrize("method", [rt.Gradient, rt.InputXGradient])
@pytest.mark.parametrize("output", ["logit", "log_prob_sum"])
def test_a_shared_pass_gives_the_gradients_of_double_backward(name, method, output):
    chosen = check_objective(partial(case, name), terms(method(output=output)))["l2"]
    assert chosen.shared


def test_several_terms_share_and_do_not():
    def both(engine):
        return [
            rt.Term(rt.Gradient(output="loss"), rt.priors.L2(), 0.5, engine=engine, name="a"),
            rt.Term(rt.ExpectedGradients(n_samples=2), rt.priors.Sparsity(), 2.0, engine=engine, name="b"),
            rt.Term(rt.InputXGradient(), rt.priors.L1(), 1.0, engine=engine, name="c"),
        ]

    for name in ("mlp", "branches", "residual"):
        check_objective(partial(case, name), both)


@pytest.mark.parametrize("name", ["residual", "normalised mlp"])
def test_a_pass_is_not_shared_where_the_mode_matters(name):
    chosen = check_objective(partial(_frozen_dropout, name), terms(rt.Gradient()))["l2"]
    assert chosen.shared
    subject = case(name)
    objective = rt.Objective(subject.model, nn.functional.cross_entropy, terms(rt.Gradient())("auto"))
    before = subject.model[1 if name == "residual" else 0].running_mean.clone()
    objective(subject.inputs, subject.labels)
    assert not objective.engines.choices["l2"].shared
    assert not torch.equal(before, subject.model[1 if name == "residual" else 0].running_mean)


def test_a_mode_that_changes_later_ends_the_sharing():
    subject = _frozen_dropout("residual")
    objective = rt.Objective(subject.model, nn.functional.cross_entropy, terms(rt.Gradient())("auto"))
    objective(subject.inputs, subject.labels)
    assert objective.engines.choices["l2"].shared
    subject.model.train()
    before = subject.model[1].num_batches_tracked.clone()
    objective(subject.inputs, subject.labels)
    assert subject.model[1].num_batches_tracked == before + 1


@pytest.mark.parametrize("engine", ["auto", "two-phase"])
def test_what_an_engine_trains_on_is_the_true_gradient(engine):
    """Not by comparison with another engine."""
    subject = piecewise()
    method = rt.ExpectedGradients(n_samples=2, output="loss")
    objective = rt.Objective(subject.model, nn.functional.cross_entropy, terms(method)(engine))
    check_term(objective, subject.inputs, subject.labels)


# --- two phases


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "double"])
@pytest.mark.parametrize("chunk", [1, 2, 4, 100])
@pytest.mark.parametrize("method", EVERY)
def test_two_phases_agree_with_double_backward(method, chunk, frozen):
    subject = piecewise()
    engine = two_phase(subject, chunk, FrozenMasks() if frozen else None)
    check_engine(engine, subject, EVERY[method](output="loss"))


def test_two_phases_agree_in_the_space_of_a_layer():
    subject = piecewise()
    for frozen in (FrozenMasks(), None):
        for method in (rt.InputXGradient, partial(rt.ExpectedGradients, n_samples=2)):
            engine = two_phase(subject, 2, frozen)
            check_engine(engine, subject, method(space=rt.spaces.Layer("2"), output="loss"))


@pytest.mark.parametrize("name", ["gelu", "transformer", "lstm", "residual", "frozen weights"])
def test_two_phases_give_the_totals_of_double_backward(name):
    method = rt.ExpectedGradients(n_samples=3, output="loss")
    chosen = check_objective(partial(_frozen_dropout, name), terms(method), "two-phase")["l2"]
    assert chosen.name == "two-phase"
    assert chosen.inner == ("frozen-masks" if name in FITS else "double-backward")


def _wide():
    model = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    return Case(initialised(model), normal(2, 4, seed=1), LABELS[:2])


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "double"])
def test_the_memory_of_two_phases_does_not_depend_on_the_samples(frozen):
    subject = _wide()
    check_memory(lambda: two_phase(subject, 64, FrozenMasks() if frozen else None), subject, 64, 512)


# --- differences


@pytest.mark.parametrize("output", ["logit", "loss"])
@pytest.mark.parametrize("name", SMOOTH)
def test_differences_are_near_in_float32(name, output):
    subject = case(name)
    subject = Case(subject.model.float().eval(), subject.inputs.float(), subject.labels)
    check_differences(differences(subject), subject, rt.ExpectedGradients(n_samples=2, output=output))


@pytest.mark.parametrize("name", ["mlp", "residual", "kinks", "extremes"])
def test_differences_are_refused_where_there_are_kinks(name):
    subject = case(name)
    objective = rt.Objective(subject.model, nn.functional.cross_entropy, terms(rt.Gradient())("finite-differences"))
    with pytest.raises(ArgumentError, match="the model has kinks") as found:
        objective(subject.inputs, subject.labels)
    listed = str(found.value.got)
    assert ("relu" in listed) or ("max" in listed)


@pytest.mark.parametrize("name", SMOOTH)
def test_differences_tell_their_error(name):
    subject = _frozen_dropout(name)
    objective = rt.Objective(
        subject.model, nn.functional.cross_entropy, terms(rt.ExpectedGradients())("finite-differences")
    )
    gradients(objective, subject)
    chosen = objective.engines.choices["l2"]
    assert chosen.name == "finite-differences"
    assert 0 < chosen.error < 5e-3


# --- contract 3 and 4: nothing changes, and the same bits come


ENGINES = {
    "frozen": lambda subject: FrozenMasks(),
    "two-phase": lambda subject: two_phase(subject, 2),
    "two-phase frozen": lambda subject: two_phase(subject, 2, FrozenMasks()),
    "differences": differences,
}


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_leaves_no_trace(engine):
    subject = case("residual") if engine != "differences" else case("gelu")
    for position, parameter in enumerate(subject.model.parameters()):
        parameter.grad = torch.full_like(parameter, 0.5) if position % 2 else None
    list(subject.model.modules())[2].eval()

    def call():
        phi = explain(rt.ExpectedGradients(n_samples=2, output="loss"), subject, ENGINES[engine](subject))
        torch.autograd.grad((phi**2).sum(), list(subject.model.parameters()), allow_unused=True)

    check_unchanged(call, subject.model, [subject.inputs, subject.labels])


@pytest.mark.parametrize("name", ["gate", "half recorded", "gradient reversal", "hook on gradients"])
def test_a_refusal_leaves_no_trace(name):
    subject = case(name)

    def call():
        explain(rt.Gradient(), subject, FrozenMasks())

    check_unchanged(call, subject.model, [subject.inputs, subject.labels], error=Unsupported)


@pytest.mark.parametrize("asked", ["auto", "two-phase", "frozen-masks", "finite-differences"])
@pytest.mark.parametrize("name", ["gate", "pools", "gelu"])
def test_a_choice_leaves_no_trace(name, asked):
    subject = case(name)
    objective = rt.Objective(subject.model, nn.functional.cross_entropy, terms(rt.Gradient())(asked))
    wrong = {"frozen-masks": name != "pools", "finite-differences": name != "gelu"}.get(asked, False)
    check_unchanged(
        lambda: gradients(objective, subject, 2),
        subject.model,
        [subject.inputs, subject.labels],
        error=ArgumentError if wrong else None,
    )


def test_the_same_seed_gives_the_same_bits():
    def run(engine):
        subject = piecewise()
        method = rt.ExpectedGradients(n_samples=2, output="loss")
        objective = rt.Objective(subject.model, nn.functional.cross_entropy, terms(method)(engine), seed=3)
        found = gradients(objective, subject, 3)
        return torch.cat([part.flatten() for step in found for part in step if part is not None])

    for engine in ("auto", "two-phase"):
        assert torch.equal(run(engine), run(engine))


def test_a_weight_of_zero_is_plain_training_to_the_bit():
    subject, plain = piecewise(), piecewise()
    objective = rt.Objective(subject.model, nn.functional.cross_entropy, terms(rt.Gradient(), weight=0.0)("auto"))
    found = gradients(objective, subject, 2)
    expected = gradients(rt.Objective(plain.model, nn.functional.cross_entropy, []), plain, 2)
    for step, other in zip(found, expected, strict=True):
        for left, right in zip(step, other, strict=True):
            assert torch.equal(left, right)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["mlp", "residual", "2-D", "one channel", "pool of four", "kinks", "normalised mlp"])
def test_other_precisions_train(name, dtype):
    subject = case(name)
    subject = Case(subject.model.to(dtype), subject.inputs.to(dtype), subject.labels)
    objective = rt.Objective(
        subject.model, nn.functional.cross_entropy, terms(rt.ExpectedGradients(n_samples=2))("auto")
    )
    for _, _, *grads in gradients(objective, subject, 2):
        assert all(grad.isfinite().all() and grad.dtype == dtype for grad in grads if grad is not None)
    assert objective.engines.choices["l2"].error < (1e-3 if dtype is torch.float32 else 0.1)


def test_inputs_made_in_inference_mode():
    for method in (rt.Gradient(output="loss"), rt.ExpectedGradients(n_samples=2)):
        subject = piecewise()
        with torch.inference_mode():
            made = subject.inputs.clone()
        totals = []
        for engine, inputs in (("auto", made), ("double-backward", subject.inputs)):
            objective = rt.Objective(subject.model, nn.functional.cross_entropy, terms(method)(engine))
            totals.append(objective(inputs, subject.labels, part="prior").total)
        check_same(*totals, subject.model, 1e-10)
        check_engine(FrozenMasks(), replace(subject, inputs=made), method, CLOSE * 100)


@pytest.mark.parametrize("method", [rt.Gradient(output="loss"), rt.ExpectedGradients(n_samples=2, output="loss")])
@pytest.mark.parametrize("engine", ["auto", "double-backward", "two-phase"])
def test_a_graph_can_be_kept_and_is_freed_otherwise(engine, method):
    subject = case("pools")
    objective = rt.Objective(subject.model, nn.functional.cross_entropy, terms(method)(engine))
    parameters = list(trained(subject.model).parameters())
    total = objective(subject.inputs, subject.labels).total
    first = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
    second = torch.autograd.grad(total, parameters, allow_unused=True)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True) if a is not None)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(total, parameters, allow_unused=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_changed_in_between_are_an_error(engine):
    subject = case("gelu" if engine == "differences" else "mlp")
    phi = explain(rt.ExpectedGradients(n_samples=2), subject, ENGINES[engine](subject))
    with torch.no_grad():
        subject.model[-1].weight.mul_(1.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (phi**2).sum().backward()


def test_constants_changed_in_between_are_an_error():
    """Also weights that are not trained, and factors that are no parameters."""
    frozen = case("frozen weights")
    for engine in (FrozenMasks(), FrozenStack(frozen.model)):
        phi = explain(rt.Gradient(), frozen, engine)
        with torch.no_grad():
            frozen.model[2].weight.mul_(1.5)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            (phi**2).sum().backward()
    scale = torch.ones(3, dtype=torch.float64)
    subject = case("mlp")
    scaled = Case(nn.Sequential(subject.model, _Scaled(scale)), subject.inputs, subject.labels)
    phi = explain(rt.Gradient(), scaled, FrozenMasks())
    scale.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (phi**2).sum().backward()


def test_a_mask_changed_in_between_is_an_error():
    mask = torch.tensor([True, False, False, True, False, True])
    subject = case("mlp without biases")
    masked = Case(nn.Sequential(_Masked(mask), subject.model), subject.inputs, subject.labels)
    phi = explain(rt.Gradient(), masked, FrozenMasks())
    mask.logical_not_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (phi**2).sum().backward()


class _Masked(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, x):
        return x.masked_fill(self.mask, 0.0)


class _Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return x * self.scale
