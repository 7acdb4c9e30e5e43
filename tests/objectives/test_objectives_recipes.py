"""Published methods: each paper's own loss, written out, has our term's gradient, up to the stated factor."""

import pytest
import torch
import torch.nn.functional as F

import rightly as rt
from contracts import oracles
from contracts.problems import draws, images, normal, vector_model, vectors


def _ours(term, model, inputs, labels, annotation=None, task=True):
    """Parameter gradients of the objective with dropout off."""
    whole = rt.Objective(model.eval(), F.cross_entropy, [term])
    report = whole(inputs, labels, annotation, draws(0), "both" if task else "prior")
    return torch.autograd.grad(report.total, list(model.parameters()), allow_unused=True)


def _same(found, expected, factor=1.0):
    size = max(float(e.abs().max()) for e in expected if e is not None)
    assert size > 1e-8
    for f, e in zip(found, expected, strict=True):
        f, e = (torch.zeros(()) if g is None else g for g in (f, e))
        assert float((f - factor * e).abs().max()) <= 1e-11 * size * abs(factor)


def _gradient(loss, model):
    return torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)


@pytest.mark.parametrize("weight", [1000.0, 1.0])
def test_right_for_the_right_reasons(weight):
    """Ross et al. (2017), eq. 1: sum_n sum_k -y_nk log p_nk + lambda sum_n sum_d (A_nd d/dx_nd sum_k log p_nk)^2.

    Both are sums over N examples where ours are means: the same lambda, and 1 / N of the gradient.
    """
    problem = vectors()
    marked = (normal(4, 6, seed=3) > 0).double()
    x = problem.inputs.clone().requires_grad_()
    log_p = problem.model.eval()(x).log_softmax(1)
    (g,) = torch.autograd.grad(log_p.sum(), x, create_graph=True)
    paper = -log_p[torch.arange(4), problem.labels].sum() + weight * ((marked * g) ** 2).sum()
    term = rt.recipes.right_for_the_right_reasons(weight)
    found = _ours(term, problem.model, problem.inputs, problem.labels, rt.Annotation(irrelevant=marked))
    _same(found, _gradient(paper, problem.model), 1 / 4)


def test_right_for_the_right_reasons_on_bytes():
    """The paper's network reads bytes; ours reads bytes / 255, so that its input gradient is 255 times as large."""
    problem = vectors()
    marked = (normal(4, 6, seed=3) > 0).double()
    raw = (255 * problem.inputs).requires_grad_()
    log_p = problem.model.eval()(raw / 255).log_softmax(1)
    (g,) = torch.autograd.grad(log_p.sum(), raw, create_graph=True)
    paper = 1000.0 * ((marked * g) ** 2).sum()
    term = rt.recipes.right_for_the_right_reasons(1000.0, input_scale=255.0)
    assert term.weight == pytest.approx(0.0154, abs=5e-5)
    note = rt.Annotation(irrelevant=marked)
    found = _ours(term, problem.model, problem.inputs, problem.labels, note, task=False)
    _same(found, _gradient(paper, problem.model), 1 / 4)


def _expected_gradients(model, inputs, labels, references, seed=0):
    """Equation 4, with the draws that the term makes: (B, F), one example and one sample at a time."""
    k = references.shape[1]
    rows = oracles.singles(model.eval(), inputs, labels)
    alphas = oracles.strata(torch.rand(len(inputs), k, generator=seed).double())
    return torch.stack([oracles.expected_gradients(s, list(references[b]), alphas[b]) for b, s in enumerate(rows)])


@pytest.mark.parametrize(("convention", "factor"), [("paper", -2.0), ("ours", -1.0)])
def test_sparse_attribution_prior(convention, factor):
    """Erion et al. (2021): the article's -2 G(v), and the published code's -G(v).

    G = sum_ij |v_i - v_j| / (2 p sum v), the Gini coefficient of v = mean |EG|.
    """
    problem, data = vectors(), normal(7, 6, seed=5)
    reference = rt.references.Sample(data)
    generator = draws(0)
    drawn = reference.draw(rt.spaces.Input().open(problem.model, problem.inputs), 3, generator).all(4)
    phi = _expected_gradients(problem.model, problem.inputs, problem.labels, drawn, generator)
    v = phi.abs().mean(0)
    gini = (v[:, None] - v[None]).abs().sum() / (2 * 6 * v.sum())
    paper = F.cross_entropy(problem.model(problem.inputs), problem.labels) + 0.7 * factor * gini
    term = rt.recipes.sparse_attribution_prior(0.7, reference=reference, n_samples=3, convention=convention)
    _same(_ours(term, problem.model, problem.inputs, problem.labels), _gradient(paper, problem.model))


def test_pixel_attribution_prior():
    """Erion et al. (2021): mean over images of sum_ij |phi_i+1,j - phi_ij| + |phi_i,j+1 - phi_ij|, phi standardised."""
    problem = images()
    generator = draws(0)
    drawn = torch.stack([problem.inputs.roll(-1, 0)], 1)
    phi = _expected_gradients(problem.model, problem.inputs, problem.labels, drawn, generator).sum(1)
    total = 0.0
    for picture in phi:
        spread = torch.sqrt(((picture - picture.mean()) ** 2).mean())
        picture = (picture - picture.mean()) / (spread if spread > 1 / 6 else 1 / 6)
        total = total + (picture[1:] - picture[:-1]).abs().sum() + (picture[:, 1:] - picture[:, :-1]).abs().sum()
    paper = F.cross_entropy(problem.model(problem.inputs), problem.labels) + 0.2 * total / 3
    term = rt.recipes.pixel_attribution_prior(0.2)
    _same(_ours(term, problem.model, problem.inputs, problem.labels), _gradient(paper, problem.model))


def test_graph_attribution_prior():
    """Erion et al. (2021): lambda v' L v, L = D - W, v = mean |EG|."""
    problem = vectors()
    weights = torch.rand(6, 6, generator=draws(1)).double()
    weights = weights + weights.T
    generator = draws(0)
    others = [torch.stack([problem.inputs[(b + k) % 4] for k in (1, 2)]) for b in range(4)]
    phi = _expected_gradients(problem.model, problem.inputs, problem.labels, torch.stack(others), generator)
    v = phi.abs().mean(0)
    paper = F.cross_entropy(problem.model(problem.inputs), problem.labels) + 100 * (
        v @ oracles.laplacian(weights, False) @ v
    )
    term = rt.recipes.graph_attribution_prior(weights, n_samples=2)
    _same(_ours(term, problem.model, problem.inputs, problem.labels), _gradient(paper, problem.model))


def test_double_backpropagation():
    """Ross (2018), eq. 3.6: sum_n (loss_n + lambda ||d loss_n / d x_n||^2), again with sums where ours are means."""
    problem = vectors()
    x = problem.inputs.clone().requires_grad_()
    losses = F.cross_entropy(problem.model.eval()(x), problem.labels, reduction="none")
    (g,) = torch.autograd.grad(losses.sum(), x, create_graph=True)
    paper = losses.sum() + 5.0 * (g**2).sum()
    found = _ours(rt.recipes.double_backpropagation(5.0), problem.model, problem.inputs, problem.labels)
    _same(found, _gradient(paper, problem.model), 1 / 4)


def test_double_backpropagation_as_the_code_has_it():
    """lambda * tf.nn.l2_loss(gradient of the batch-mean loss): half the sum of squares, B inside the square."""
    model, inputs, labels = vector_model(), normal(8, 6, seed=2), torch.arange(8) % 3
    x = inputs.clone().requires_grad_()
    mean = F.cross_entropy(model.eval()(x), labels)
    (g,) = torch.autograd.grad(mean, x, create_graph=True)
    paper = mean + 300.0 * (g**2).sum() / 2
    found = _ours(rt.recipes.double_backpropagation(300.0, paper_batch=8), model, inputs, labels)
    _same(found, _gradient(paper, model))
    assert rt.recipes.double_backpropagation(56234.0, paper_batch=256).weight == pytest.approx(110, abs=0.5)


@pytest.mark.parametrize(
    "make",
    [
        rt.recipes.right_for_the_right_reasons,
        rt.recipes.sparse_attribution_prior,
        rt.recipes.pixel_attribution_prior,
        lambda weight: rt.recipes.graph_attribution_prior(torch.ones(6, 6), weight),
        rt.recipes.double_backpropagation,
    ],
)
def test_open_weights_pass_through(make):
    for weight in ("balance", "auto"):
        assert make(weight).weight == weight
    assert len({make(1.0).name, make("auto").name}) == 1


def test_every_recipe_is_a_term_with_its_citation():
    for name in rt.recipes.__all__:
        recipe = getattr(rt.recipes, name)
        assert "(19" in recipe.__doc__ or "(20" in recipe.__doc__
        term = recipe(torch.ones(3, 3)) if "graph" in name else recipe()
        assert isinstance(term, rt.Term)
