"""Planted defects: components that are wrong in one way each, and would pass if nobody looked."""

from __future__ import annotations

import random
from types import SimpleNamespace

import torch
from torch import nn

import rightly as rt
from rightly.attributions.base import Attribution, Explanation
from rightly.attributions.interactions import nested_quadrature
from rightly.core import autodiff
from rightly.priors import Prior


def _method(explain):
    """An attribution from a function (problem, generator) -> attributions."""

    class Planted(Attribution):
        def __init__(self, space=None) -> None:
            super().__init__(space or rt.spaces.Input(), "logit", "label")

        def _explain(self, problem, generator, diagnostics):
            return Explanation(explain(problem, generator))

    Planted.__name__ = explain.__name__
    return Planted


def _penalty(level="example", needs=()):
    """A prior from a function (attributions, annotation) -> penalty."""

    def make(penalty):
        class Planted(Prior):
            def penalty(self, attributions, annotation, target):
                return penalty(attributions, annotation)

        Planted.level, Planted.needs, Planted.__name__ = level, needs, penalty.__name__
        return Planted

    return make


def _at(problem, weigh):
    def step(rows, samples):
        x = problem.view.coordinates[rows]
        return x, lambda gradient: weigh(gradient, x)

    return problem.average(step, 1)


# --- attributions ---


@_method
def nothing(problem, generator):
    """Connected, but with a gradient of zero."""
    return 0 * _at(problem, lambda gradient, x: gradient)


@_method
def half_detached(problem, generator):
    """Input times gradient whose input carries no graph: right values, half of the gradient in a layer's space."""
    return _at(problem, lambda gradient, x: gradient * x.detach())


@_method
def detached_weights(problem, generator):
    """Grad-CAM as the published training losses have it."""
    spatial = tuple(range(2, problem.view.coordinates.ndim))
    return _at(problem, lambda g, x: torch.relu((g.mean(spatial, keepdim=True).detach() * x).sum(1, keepdim=True)))


@_method
def summed_weights(problem, generator):
    """Grad-CAM that sums where it should average."""
    spatial = tuple(range(2, problem.view.coordinates.ndim))
    return _at(problem, lambda g, x: torch.relu((g.sum(spatial, keepdim=True) * x).sum(1, keepdim=True)))


@_method
def detached_range(problem, generator):
    """SmoothGrad whose noise forgets that a layer's range depends on the parameters."""
    x = problem.view.coordinates
    flat = x.detach().flatten(1)
    scale = 0.2 * (flat.amax(1) - flat.amin(1)).reshape(-1, 1, *(1,) * len(problem.shape))
    noise = scale * torch.randn(len(x), 3, *problem.shape, generator=generator).to(x)
    return problem.average(lambda rows, s: (x[rows] + noise[rows, s], lambda g: g), 3)


@_method
def absolute_before_mean(problem, generator):
    """SmoothGrad of absolute gradients."""
    x = problem.view.coordinates
    flat = x.flatten(1)
    scale = 0.2 * (flat.amax(1) - flat.amin(1)).reshape(-1, 1, *(1,) * len(problem.shape))
    noise = scale * torch.randn(len(x), 3, *problem.shape, generator=generator).to(x)
    return problem.average(lambda rows, s: (x[rows] + noise[rows, s], lambda g: g.abs()), 3)


def _expected(problem, alphas, reference=-0.2):
    x, ones = problem.view.coordinates, (1,) * len(problem.shape)

    def step(rows, s):
        delta = x[rows] - reference
        return x[rows] - (1 - alphas[rows, s].reshape(-1, *ones)) * delta, lambda g: delta * g

    return problem.average(step, alphas.shape[1])


@_method
def one_position_for_all(problem, generator):
    """Expected gradients whose examples share their positions on the path."""
    alphas = torch.rand(1, 4, generator=generator).double().expand(problem.batch, -1)
    return _expected(problem, alphas)


@_method
def positions_from_the_other_end(problem, generator):
    """Expected gradients, but at 1 - alpha."""
    return _expected(problem, 1 - torch.rand(problem.batch, 4, generator=generator).double())


@_method
def scaled_by_its_chunk(problem, generator):
    """Gradients divided by the largest of the pass that they happened to be in."""
    return _at(problem, lambda gradient, x: gradient / gradient.abs().max())


@_method
def centred_on_the_batch(problem, generator):
    """Gradients minus the batch's mean gradient."""
    found = _at(problem, lambda gradient, x: gradient)
    return found - found.mean(0)


@_method
def by_position(problem, generator):
    """Gradients that count later features for more."""
    found = _at(problem, lambda gradient, x: gradient)
    return found * torch.arange(1.0, 1 + found.shape[1], dtype=found.dtype)


@_method
def left_sum(problem, generator):
    """Integrated gradients by ten left rectangles, against 0.1."""
    steps = 10
    alphas = (torch.arange(steps, dtype=torch.float64) / steps).expand(problem.batch, -1)
    return _expected(problem, alphas, 0.1)


def _pairs(weigh):
    """Interactions at the nested positions against 0.1, from (delta, positions, slopes, hessian) at vectors."""

    def explain(problem, generator):
        nodes, weights = nested_quadrature(24)

        def step(rows, s):
            delta, here = problem.view.coordinates[rows] - 0.1, nodes[s][:, None]
            points = 0.1 + here * delta

            def found(slopes, hessian):
                mass = 24 * weights[s][:, None, None]
                return mass * weigh(delta, here[:, :, None], slopes, hessian(range(delta.shape[1])))

            return points, found

        return problem.average(step, 24, curved=True)

    explain.__name__ = weigh.__name__
    return _method(explain)


@_pairs
def without_the_product_rule(delta, here, slopes, hessian):
    """The diagonal lacks the gradient."""
    return delta[:, :, None] * delta[:, None] * here * hessian


@_pairs
def without_the_inner_position(delta, here, slopes, hessian):
    """The second path's start is forgotten: no factor of how far the first one has come."""
    return delta[:, :, None] * delta[:, None] * hessian + torch.diag_embed(delta * slopes)


@_pairs
def one_side_counts(delta, here, slopes, hessian):
    """Every pair is put down to its first feature, so that rows add up and the order matters."""
    found = delta[:, :, None] * delta[:, None] * here * hessian
    return torch.diag_embed(found.sum(2) + delta * slopes) + found.triu(1) - torch.diag_embed(found.triu(1).sum(2))


@_pairs
def pairs_by_position(delta, here, slopes, hessian):
    """Later features count for more, on both sides."""
    size = torch.arange(1.0, 1 + delta.shape[1], dtype=delta.dtype)
    found = delta[:, :, None] * delta[:, None] * here * hessian + torch.diag_embed(delta * slopes)
    return found * size[:, None] * size


@_pairs
def neighbours_share(delta, here, slopes, hessian):
    """A feature's row is spread to the next column, whether the model reads that feature or not."""
    found = delta[:, :, None] * delta[:, None] * here * hessian + torch.diag_embed(delta * slopes)
    return (found + found.roll(1, 2)) / 2


def by_its_first_weights(model, inputs, labels, **arguments):
    """Input times the summed size of the first layer's weights: it depends on how the model is written."""
    sizes = next(model.parameters()).abs().sum(0)
    return SimpleNamespace(attributions=inputs * sizes.detach())


# --- methods that leave traces ---


def leaves_eval_mode(model, inputs, labels):
    model.eval()
    return rt.Gradient()(model, inputs, labels)


def restores_everything_to_training(model, inputs, labels):
    found = rt.Gradient()(model, inputs, labels)
    model.train()
    return found


def leaks_a_hook(model, inputs, labels):
    next(model.children()).register_forward_hook(lambda module, args, output: None)
    return rt.Gradient()(model, inputs, labels)


def leaks_a_hook_when_it_fails(model, inputs, labels):
    handle = next(model.children()).register_forward_hook(lambda module, args, output: None)
    found = rt.Gradient()(model, inputs, labels)
    handle.remove()
    return found


def draws_from_the_global_state(model, inputs, labels):
    return rt.Gradient()(model, inputs + 0 * torch.randn(inputs.shape), labels)


def draws_from_python(model, inputs, labels):
    return rt.Gradient()(model, inputs + 0 * random.random(), labels)


def moves_the_statistics(model, inputs, labels):
    with torch.random.fork_rng():
        model(inputs)


def requires_a_gradient(model, inputs, labels):
    return model(inputs.requires_grad_())[0, 0].detach() * 0


def accumulates(model, inputs, labels):
    with autodiff.reading(model, trainable=False):
        model(inputs).sum().backward()


def nudges_a_parameter_and_puts_it_back(model, inputs, labels):
    with torch.no_grad():
        first = next(model.parameters())
        before = first.clone()
        first.add_(1.0)
        first.copy_(before)


def freezes(model, inputs, labels):
    next(model.parameters()).requires_grad_(False)


def writes_to_the_inputs(model, inputs, labels):
    inputs.clamp_(max=0)


def turns_gradients_off(model, inputs, labels):
    torch.set_grad_enabled(False)


def remembers_on_the_module(model, inputs, labels):
    model.last_inputs = inputs


# --- priors ---


@_penalty()
def constant_denominator(attributions, annotation):
    """The share of the first half, with a total that carries no graph."""
    sizes = attributions.abs().flatten(1)
    return sizes[:, ::2].sum(1) / sizes.sum(1).detach()


@_penalty()
def mean_over_features(attributions, annotation):
    return attributions.square().flatten(1).mean(1)


@_penalty("batch")
def sum_over_examples(attributions, annotation):
    return attributions.square().sum()


@_penalty()
def scaled_by_the_batch(attributions, annotation):
    return attributions.abs().flatten(1).sum(1) / attributions.abs().max()


@_penalty("batch")
def local_gini(attributions, annotation):
    """Gini of the importances of this process' examples only."""
    return 1 - rt.functional.gini(attributions.abs().mean(0).flatten())


@_penalty("batch")
def summed_by_hand(attributions, annotation):
    """An all-reduce whose sum carries no graph back."""
    total = attributions.abs().mean(0).flatten()
    if torch.distributed.is_initialized():
        other = total.detach().clone()
        torch.distributed.all_reduce(other)
        total = total + (other - total.detach())
    return 1 - rt.functional.gini(total)


@_penalty()
def divided_by_the_spread(attributions, annotation):
    """Total variation of maps that are divided by a standard deviation with no floor."""
    maps = attributions.flatten(1)
    return (maps / maps.std(1, keepdim=True)).diff(dim=1).abs().sum(1)


@_penalty("batch")
def gini_of_anything(attributions, annotation):
    """Gini without a guard for nothing at all."""
    values = attributions.abs().mean(0).flatten()
    pairs = (values[:, None] - values).abs().sum()
    return 1 - pairs / (2 * len(values) * values.sum())


@_penalty()
def length(attributions, annotation):
    """The Euclidean norm: its slope at zero is NaN."""
    return attributions.square().flatten(1).sum(1).sqrt()


@_penalty()
def noisy(attributions, annotation):
    """Draws from PyTorch's global state."""
    return attributions.square().flatten(1).sum(1) * torch.rand(len(attributions)).to(attributions)


@_penalty()
def unrepeatable(attributions, annotation):
    """Draws from the machine."""
    return attributions.square().flatten(1).sum(1) * random.SystemRandom().random()


class Bomb(nn.Module):
    """Breaks every pass."""

    def forward(self, x):
        raise KeyError("the model broke")
