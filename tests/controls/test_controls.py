"""Every shared check meets a defect that it must find; a check without one is not allowed."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import contracts
import rightly as rt
from contracts import (
    agreement,
    axioms,
    derivatives,
    finiteness,
    identity,
    messages,
    oracles,
    processes,
    unchanged,
)
from contracts.problems import draws, images, normal, objective, vectors
from controls import decomposition, defects, engines
from rightly.core.errors import ArgumentError

LAYER = rt.spaces.Layer("0")


@dataclass(frozen=True)
class Control:
    """A check on something that is wrong, the same check on something that is right, and what it should say."""

    check: Callable[..., Any]
    wrong: Callable[[], Any]
    right: Callable[[], Any]
    match: str


def _gradient(method, prior=None, picture=False, space=None):
    problem = images(space=space) if picture else vectors(space=space)
    whole = objective(problem, rt.Term(method, prior or rt.priors.L2()))
    return lambda: derivatives.check_term(whole, problem.inputs, problem.labels)


def _value(function):
    weight = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    return lambda: derivatives.check_gradient(lambda: function(weight), [weight])


def _oracle(method, oracle, problem=None):
    problem = problem or vectors()

    def slow():
        split = 1 if isinstance(method.space, rt.spaces.Layer) else 0
        rows = oracles.singles(problem.model, problem.inputs, problem.labels, split)
        return [oracle(row, b) for b, row in enumerate(rows)]

    return lambda: agreement.check_oracle(method, problem, slow)


BASELINE = -0.2 * torch.ones(6, dtype=torch.float64)
ALPHAS = torch.rand(4, 4, generator=draws(5)).double().tolist()
STRATA = oracles.strata(torch.rand(4, 4, generator=draws(5)).double())
NOISE = torch.randn(4, 3, 6, generator=draws(5)).double()


def _same(found, expected):
    problem = vectors()

    def run():
        values = [
            method(problem.model, problem.inputs, problem.labels, create_graph=True) for method in (found, expected)
        ]
        agreement.check_same(*(value.attributions for value in values), problem.model)

    return run


def _trace(call, model=None, error=None):
    def run():
        problem = vectors()
        network = model(problem) if model else problem.model
        network[3].eval()
        unchanged.check_unchanged(
            lambda: call(network, problem.inputs, problem.labels),
            network,
            [problem.inputs, problem.labels],
            error=error,
        )

    return run


def _restoring(run):
    """Some defects change the state of the test's own process: put it back."""

    def guarded():
        try:
            with torch.random.fork_rng():
                run()
        finally:
            torch.set_grad_enabled(True)

    return guarded


def _rows(prior):
    return lambda: agreement.check_prior_rows(prior, normal(4, 6, seed=1), rt.Annotation())


def _finite(prior, edge):
    phi = finiteness.edges((6,), torch.float32)[edge]
    return lambda: finiteness.check_finite(prior, phi, rt.Annotation())


def _silent(prior):
    def run():
        problem = vectors()
        with torch.no_grad():
            problem.model[-1].weight.zero_()
        whole = objective(problem, rt.Term(rt.Gradient(), prior))
        finiteness.check_finite_training(whole, problem.inputs, problem.labels)

    return run


def _processes(prior):
    term = rt.Term(rt.Gradient(), prior, 2.0)
    problem = vectors(4)
    batch = (problem.inputs, problem.labels, None)
    shards = [torch.tensor([0]), torch.tensor([1, 2, 3])]

    def make():
        return rt.Objective(vectors(4).model.eval(), F.cross_entropy, [term])

    def run():
        answers = processes.in_two_processes(lambda rank: processes.together(make, batch, shards, False, rank))
        processes.check_agreement(processes.alone(make, batch), answers)

    return run


def _closed_form(prior):
    phi = normal(4, 6, seed=1)
    return lambda: identity.check_value(prior(phi).mean(), (phi**2).sum(1).mean(), "L2")


def _raises(error):
    def call():
        raise error

    return call


def _terms(prior, weight):
    return [rt.Term(rt.Gradient(), prior, weight)]


_TENTH = rt.references.Constant(0.1)


def _alone():
    return rt.IntegratedGradients(_TENTH)


GRADIENT = lambda row, b: oracles.gradient(row)  # noqa: E731
CONTROLS = {
    # 1: gradients
    "a detached weight in Grad-CAM": Control(
        derivatives.check_term,
        _gradient(defects.detached_weights(LAYER), picture=True),
        _gradient(rt.GradCam(LAYER, resize=False), picture=True),
        "gradient is off",
    ),
    "a detached input": Control(
        derivatives.check_term,
        _gradient(defects.half_detached(LAYER)),
        _gradient(rt.InputXGradient(space=LAYER)),
        "gradient is off",
    ),
    "a detached range": Control(
        derivatives.check_term,
        _gradient(defects.detached_range(LAYER)),
        _gradient(rt.SmoothGrad(n_samples=3, sigma=0.2, space=LAYER)),
        "gradient is off",
    ),
    "a detached denominator": Control(
        derivatives.check_term,
        _gradient(rt.Gradient(), defects.constant_denominator()),
        _gradient(rt.Gradient(), rt.priors.Sparsity()),
        "gradient is off",
    ),
    "a gradient of zero": Control(
        derivatives.check_term,
        _gradient(defects.nothing()),
        _gradient(rt.Gradient()),
        "nothing would be checked",
    ),
    "a part without a gradient": Control(
        derivatives.check_gradient,
        _value(lambda w: w[0] ** 3 + (w[1].detach()) ** 3),
        _value(lambda w: w[0] ** 3 + w[1] ** 3),
        "gradient is off",
    ),
    # 2: vectorised
    "absolute before mean": Control(
        agreement.check_oracle,
        _oracle(defects.absolute_before_mean(), lambda row, b: oracles.smooth_grad(row, NOISE[b], 0.2)),
        _oracle(rt.SmoothGrad(n_samples=3, sigma=0.2), lambda row, b: oracles.smooth_grad(row, NOISE[b], 0.2)),
        "attributions differ",
    ),
    "one position for all examples": Control(
        agreement.check_oracle,
        _oracle(
            defects.one_position_for_all(), lambda row, b: oracles.expected_gradients(row, [BASELINE] * 4, ALPHAS[b])
        ),
        _oracle(
            rt.ExpectedGradients(rt.references.Constant(-0.2), n_samples=4, design="independent"),
            lambda row, b: oracles.expected_gradients(row, [BASELINE] * 4, ALPHAS[b]),
        ),
        "attributions differ",
    ),
    "positions anywhere on the path": Control(
        agreement.check_oracle,
        _oracle(
            rt.ExpectedGradients(rt.references.Constant(-0.2), n_samples=4, design="independent"),
            lambda row, b: oracles.expected_gradients(row, [BASELINE] * 4, STRATA[b]),
        ),
        _oracle(
            rt.ExpectedGradients(rt.references.Constant(-0.2), n_samples=4),
            lambda row, b: oracles.expected_gradients(row, [BASELINE] * 4, STRATA[b]),
        ),
        "attributions differ",
    ),
    "positions from the other end": Control(
        agreement.check_oracle,
        _oracle(
            defects.positions_from_the_other_end(),
            lambda row, b: oracles.expected_gradients(row, [BASELINE] * 4, ALPHAS[b]),
        ),
        _oracle(rt.Gradient(), GRADIENT),
        "attributions differ",
    ),
    "a sum for a mean in Grad-CAM": Control(
        agreement.check_oracle,
        _oracle(defects.summed_weights(LAYER), lambda row, b: oracles.grad_cam(row, (6, 6)), images()),
        _oracle(rt.GradCam(LAYER), lambda row, b: oracles.grad_cam(row, (6, 6)), images()),
        "attributions differ",
    ),
    "right values, half of the gradient": Control(
        agreement.check_oracle,
        _oracle(defects.half_detached(LAYER), lambda row, b: oracles.input_x_gradient(row)),
        _oracle(rt.InputXGradient(space=LAYER), lambda row, b: oracles.input_x_gradient(row)),
        "parameter gradients differ",
    ),
    "values that depend on the chunk": Control(
        agreement.check_chunks,
        lambda: agreement.check_chunks(defects.scaled_by_its_chunk(), vectors()),
        lambda: agreement.check_chunks(rt.Gradient(), vectors()),
        "attributions differ",
    ),
    "examples that see each other": Control(
        agreement.check_rows,
        lambda: agreement.check_rows(defects.centred_on_the_batch(), vectors()),
        lambda: agreement.check_rows(rt.Gradient(), vectors()),
        "attributions differ",
    ),
    "two methods": Control(
        agreement.check_same, _same(rt.Gradient(), rt.InputXGradient()), _same(rt.Gradient(), rt.Gradient()), "differ"
    ),
    "another shape": Control(
        agreement.check_close,
        lambda: agreement.check_close(torch.zeros(2), torch.zeros(1)),
        lambda: agreement.check_close(torch.zeros(2), torch.zeros(2)),
        "shape",
    ),
    "a difference in the last digits": Control(
        agreement.check_close,
        lambda: agreement.check_close(torch.tensor([1.0 + 1e-11], dtype=torch.float64), torch.ones(1).double()),
        lambda: agreement.check_close(torch.ones(1).double(), torch.ones(1).double()),
        "differ by",
    ),
    "a penalty scaled by its batch": Control(
        agreement.check_prior_rows, _rows(defects.scaled_by_the_batch()), _rows(rt.priors.L1()), "penalties differ"
    ),
    # 3: nothing changes
    **{
        f"a method that {call.__name__}": Control(
            unchanged.check_unchanged, _restoring(_trace(call)), _trace(rt.Gradient()), match
        )
        for call, match in {
            defects.leaves_eval_mode: "mode of",
            defects.restores_everything_to_training: "mode of '3'",
            defects.leaks_a_hook: "_forward_hooks of '0'",
            defects.draws_from_the_global_state: "torch random state",
            defects.draws_from_python: "python random state",
            defects.moves_the_statistics: "running_mean",
            defects.requires_a_gradient: "requires_grad",
            defects.accumulates: "grad",
            defects.nudges_a_parameter_and_puts_it_back: "version",
            defects.freezes: "requires_grad",
            defects.writes_to_the_inputs: "argument 0.bits",
            defects.turns_gradients_off: "grad mode",
            defects.remembers_on_the_module: "attributes of",
        }.items()
    },
    "a hook that is left when the model breaks": Control(
        unchanged.check_unchanged,
        _trace(defects.leaks_a_hook_when_it_fails, lambda p: nn.Sequential(*p.model, defects.Bomb()), KeyError),
        _trace(rt.Gradient(), lambda p: nn.Sequential(*p.model, defects.Bomb()), KeyError),
        "_forward_hooks",
    ),
    "an error that never comes": Control(
        unchanged.check_unchanged,
        _trace(rt.Gradient(), error=KeyError),
        _trace(rt.Gradient()),
        "was not raised",
    ),
    # 4: identity
    "a weight that is nearly zero": Control(
        identity.check_plain,
        lambda: identity.check_plain(vectors, _terms(rt.priors.L2(), 1e-3)),
        lambda: identity.check_plain(vectors, _terms(rt.priors.L2(), 0.0)),
        "differs from plain training",
    ),
    "a weight that does nothing": Control(
        identity.check_matters,
        lambda: identity.check_matters(vectors, _terms(rt.priors.L2(), 0.0)),
        lambda: identity.check_matters(vectors, _terms(rt.priors.L2(), 0.1)),
        "is plain training",
    ),
    "a prior that draws from the global state": Control(
        identity.check_matters,
        lambda: identity.check_matters(vectors, _terms(defects.noisy(), 0.1)),
        lambda: identity.check_matters(vectors, _terms(rt.priors.L2(), 0.1)),
        "global random state",
    ),
    "a prior that never repeats": Control(
        identity.check_repeatable,
        lambda: identity.check_repeatable(vectors, _terms(defects.unrepeatable(), 1.0)),
        lambda: identity.check_repeatable(vectors, _terms(rt.priors.L2(), 1.0)),
        "two runs with one seed differ",
    ),
    "a mean over features": Control(
        identity.check_value, _closed_form(defects.mean_over_features()), _closed_form(rt.priors.L2()), "off by"
    ),
    "a sum over examples": Control(
        identity.check_value, _closed_form(defects.sum_over_examples()), _closed_form(rt.priors.L2()), "off by"
    ),
    # 5: axioms
    "a left sum for an integral": Control(
        axioms.check_completeness,
        lambda: axioms.check_completeness(defects.left_sum(), vectors(), 0.1),
        lambda: axioms.check_completeness(
            rt.IntegratedGradients(rt.references.Constant(0.1), n_steps=30), vectors(), 0.1
        ),
        "miss what they explain",
    ),
    "another reference than was said": Control(
        axioms.check_completeness,
        lambda: axioms.check_completeness(rt.IntegratedGradients(n_steps=30), vectors(), 0.1),
        lambda: axioms.check_completeness(rt.IntegratedGradients(n_steps=30), vectors(), 0.0),
        "miss what they explain",
    ),
    "attributions by weights": Control(
        axioms.check_implementation_invariance,
        lambda: axioms.check_implementation_invariance(defects.by_its_first_weights, vectors()),
        lambda: axioms.check_implementation_invariance(rt.Gradient(), vectors()),
        "equal functions differ",
    ),
    "a window over ignored features": Control(
        axioms.check_sensitivity,
        lambda: axioms.check_sensitivity(rt.Occlusion(window=(2,)), vectors()),
        lambda: axioms.check_sensitivity(rt.Occlusion(), vectors()),
        "ignores gets attribution",
    ),
    "nothing for anybody": Control(
        axioms.check_sensitivity,
        lambda: axioms.check_sensitivity(defects.nothing(), vectors()),
        lambda: axioms.check_sensitivity(rt.InputXGradient(), vectors()),
        "reads gets none",
    ),
    "squares of gradients": Control(
        axioms.check_linearity,
        lambda: axioms.check_linearity(rt.SmoothGrad(kind="square"), vectors(), axioms.another(vectors().model)),
        lambda: axioms.check_linearity(rt.Gradient(), vectors(), axioms.another(vectors().model)),
        "not the sum of the attributions",
    ),
    "features told apart by their place": Control(
        axioms.check_symmetry,
        lambda: axioms.check_symmetry(defects.by_position(), vectors()),
        lambda: axioms.check_symmetry(rt.Gradient(), vectors()),
        "told apart",
    ),
    "pairs told apart by their place": Control(
        axioms.check_symmetry,
        lambda: axioms.check_symmetry(defects.pairs_by_position(), vectors()),
        lambda: axioms.check_symmetry(rt.IntegratedHessians(n_steps=5), vectors()),
        "told apart",
    ),
    "pairs with ignored features": Control(
        axioms.check_sensitivity,
        lambda: axioms.check_sensitivity(defects.neighbours_share(), vectors()),
        lambda: axioms.check_sensitivity(rt.IntegratedHessians(n_steps=5), vectors()),
        "ignores gets attribution",
    ),
    "pairs without the product rule": Control(
        axioms.check_pairs,
        lambda: axioms.check_pairs(defects.without_the_product_rule(), vectors(), _alone()),
        lambda: axioms.check_pairs(rt.IntegratedHessians(_TENTH, n_steps=24), vectors(), _alone()),
        "miss the attributions",
    ),
    "pairs on a single path": Control(
        axioms.check_pairs,
        lambda: axioms.check_pairs(defects.without_the_inner_position(), vectors(), _alone()),
        lambda: axioms.check_pairs(rt.IntegratedHessians(_TENTH, n_steps=24), vectors(), _alone()),
        "miss the attributions",
    ),
    "pairs that are one feature's": Control(
        axioms.check_pairs,
        lambda: axioms.check_pairs(defects.one_side_counts(), vectors(), _alone()),
        lambda: axioms.check_pairs(rt.IntegratedHessians(_TENTH, n_steps=24), vectors(), _alone()),
        "depend on the order",
    ),
    "attributions for pairs": Control(
        axioms.check_pairs,
        lambda: axioms.check_pairs(_alone(), vectors(), _alone()),
        lambda: axioms.check_pairs(rt.IntegratedHessians(_TENTH, n_steps=24), vectors(), _alone()),
        "interactions are",
    ),
    # 6: finite
    "a spread of zero": Control(
        finiteness.check_finite,
        _finite(defects.divided_by_the_spread(), "constant"),
        _finite(rt.priors.TotalVariation(1), "constant"),
        "penalty is nan",
    ),
    "a Gini of nothing": Control(
        finiteness.check_finite,
        _finite(defects.gini_of_anything(), "zeros"),
        _finite(rt.priors.Sparsity(), "zeros"),
        "penalty is nan",
    ),
    "the slope of a length": Control(
        finiteness.check_finite,
        _finite(defects.length(), "zeros"),
        _finite(rt.priors.L2(), "zeros"),
        "not finite",
    ),
    "a length of attributions that vanish": Control(
        finiteness.check_finite_training,
        _silent(defects.length()),
        _silent(rt.priors.L2()),
        "is not finite",
    ),
    # 7: processes
    "a Gini of one process": Control(
        processes.check_agreement, _processes(defects.local_gini()), _processes(rt.priors.Sparsity()), "is off by"
    ),
    "a sum that carries no graph back": Control(
        processes.check_agreement, _processes(defects.summed_by_hand()), _processes(rt.priors.L2()), "is off by"
    ),
    "a sum over the examples of one process": Control(
        processes.check_agreement, _processes(defects.sum_over_examples()), _processes(rt.priors.L1()), "is off by"
    ),
    # 8: arguments, and discovery
    "an error of PyTorch": Control(
        messages.check_named,
        lambda: messages.check_named(lambda: torch.ones(2) @ torch.ones(3)),
        lambda: messages.check_named(lambda: rt.Gradient(output="x")),
        "not a named error but RuntimeError",
    ),
    "an error that says little": Control(
        messages.check_named,
        lambda: messages.check_named(_raises(ArgumentError("no"))),
        lambda: messages.check_named(_raises(ArgumentError("no", expected=1, got=2))),
        "what was expected",
    ),
    "an error that never came": Control(
        messages.check_named,
        lambda: messages.check_named(lambda: None),
        lambda: messages.check_named(_raises(ArgumentError("no", expected=1, got=2))),
        "nothing was raised",
    ),
    "a room that is empty": Control(
        messages.check_discovery,
        lambda: messages.check_discovery(SimpleNamespace(__all__=[]), (), [], 1),
        lambda: messages.check_discovery(SimpleNamespace(__all__=["x"], x=int), (), [SimpleNamespace(cls=int)], 1),
        "0 components",
    ),
    "a component that is not registered": Control(
        messages.check_discovery,
        lambda: messages.check_discovery(SimpleNamespace(__all__=["x"], x=int), (), [], 0),
        lambda: messages.check_discovery(SimpleNamespace(__all__=["x"], x=int), (), [SimpleNamespace(cls=int)], 1),
        "only public",
    ),
}


CONTROLS |= {name: Control(*parts) for name, parts in (engines.CONTROLS | decomposition.CONTROLS).items()}


@pytest.mark.parametrize("name", CONTROLS)
def test_a_planted_defect_is_found(name):
    with pytest.raises(AssertionError, match=CONTROLS[name].match):
        CONTROLS[name].wrong()


@pytest.mark.parametrize("name", CONTROLS)
def test_what_is_right_passes(name):
    """The same check on the honest neighbour: it does not fail whatever comes."""
    CONTROLS[name].right()


def test_every_check_has_a_control():
    folder = Path(next(iter(contracts.__path__)))
    modules = [importlib.import_module(f"contracts.{path.stem}") for path in folder.glob("[!t]*.py")]
    checks = {
        value
        for module in modules
        for name, value in vars(module).items()
        if name.startswith("check_") and inspect.isfunction(value)
    }
    assert len(checks) >= 22
    assert {check.__name__ for check in checks} - {control.check.__name__ for control in CONTROLS.values()} == set()
