"""Published methods: each paper's own loss, written out, has our term's gradient, up to the stated factor."""

import pytest
import torch
import torch.nn.functional as F

import rightly as rt
from contracts import oracles
from contracts.problems import draws, images, normal, vector_model, vectors
from rightly.objectives import ModelTerm


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
        v @ oracles.laplacian(weights, "unnormalized") @ v
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


def _code_gradient(model, inputs, loss):
    """Gradient of a mean over the batch, as the published code takes it."""
    x = inputs.clone().requires_grad_()
    return torch.autograd.grad(loss(model.eval()(x)), x, create_graph=True)[0]


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("name", ["double_backpropagation", "certainty_sensitivity"])
def test_gradient_regularisation_as_the_code_has_it(name, norm):
    """tf.nn.l2_loss or reduce_sum |.| (the certainty's: reduce_mean) of the gradient of a batch mean, times lambda."""
    model, inputs, labels = vector_model(), normal(8, 6, seed=2), torch.arange(8) % 3
    against = labels if name == "double_backpropagation" else torch.full((8, 3), 1 / 3, dtype=torch.float64)
    g = _code_gradient(model, inputs, lambda outputs: F.cross_entropy(outputs, against))
    mean = norm == "l1" and name == "certainty_sensitivity"
    paper = 300.0 * ((g**2).sum() / 2 if norm == "l2" else g.abs().mean() if mean else g.abs().sum())
    arguments = {"paper_features": 6} if mean else {}
    term = getattr(rt.recipes, name)(300.0, norm=norm, paper_batch=8, **arguments)
    _same(_ours(term, model, inputs, labels, task=False), _gradient(paper, model))
    if mean:
        with pytest.raises(ValueError, match="paper_features"):
            rt.recipes.certainty_sensitivity(300.0, norm="l1", paper_batch=8)
    with pytest.raises(ValueError, match="l1, l2"):
        getattr(rt.recipes, name)(norm="l3")


@pytest.mark.parametrize("weight", [0.0, 5.0])
def test_adversarial_training(weight):
    """Ross (2018), 3.2.2: (H(y, f(x)) + H(y, f(x_FGSM))) / 2, x_FGSM of the predictions, within [0, 1], a constant.

    With a penalty beside it ("both defenses"), half of our total still.
    """
    problem = vectors()
    model, inputs = problem.model.eval(), problem.inputs.sigmoid()
    x = inputs.clone().requires_grad_()
    outputs = model(x)
    guessed = F.cross_entropy(outputs, outputs.argmax(1), reduction="sum")
    (slope,) = torch.autograd.grad(guessed, x, retain_graph=True)
    changed = (inputs + 0.3 * slope.sign()).clamp(0, 1)
    assert (outputs.argmax(1) != problem.labels).any()
    paper = (F.cross_entropy(outputs, problem.labels) + F.cross_entropy(model(changed), problem.labels)) / 2
    g = 4 * _code_gradient(model, inputs, lambda out: F.cross_entropy(out, problem.labels))
    paper = paper + weight * (g**2).sum(1).mean()
    terms = rt.recipes.both_defences(weight) if weight else [rt.recipes.adversarial_training()]
    total = rt.Objective(model, F.cross_entropy, terms)(inputs, problem.labels).total
    _same(_gradient(total, model), _gradient(paper, model), 2)


def test_agreement():
    """KL of the answers at the batch's mean from the clean ones, a mean over examples."""
    problem = vectors()
    model, x = problem.model.eval(), problem.inputs
    marked = torch.tensor([[1, 0, 0, 1, 0, 0]])
    clean, changed = (model(z).log_softmax(1) for z in (x, torch.where(marked > 0, x.mean(0), x)))
    paper = 0.3 * F.kl_div(changed, clean, log_target=True, reduction="batchmean")
    term = rt.recipes.agreement(0.3)
    found = _ours(term, model, x, problem.labels, rt.Annotation(irrelevant=marked), task=False)
    _same(found, _gradient(paper, model))


def _attributions(problem, reference, k):
    generator = draws(0)
    drawn = reference.draw(rt.spaces.Input().open(problem.model, problem.inputs), k, generator).all(4)
    return _expected_gradients(problem.model, problem.inputs, problem.labels, drawn, generator)


def test_l1_attribution_prior():
    """The published code: lambda times the mean over rows and features of |EG|."""
    problem, reference = vectors(), rt.references.Sample(normal(7, 6, seed=5))
    task = F.cross_entropy(problem.model.eval()(problem.inputs), problem.labels)
    paper = task + 5.0 * _attributions(problem, reference, 3).abs().mean()
    term = rt.recipes.l1_attribution_prior(5.0, reference=reference, n_samples=3, paper_features=6)
    _same(_ours(term, problem.model, problem.inputs, problem.labels), _gradient(paper, problem.model))


def test_mixed_sparse_attribution_prior():
    """The published code: lambda times (mean |EG| - Gini), one lambda for both; each of our terms draws for itself."""
    problem, reference = vectors(), rt.references.Sample(normal(7, 6, seed=5))
    gini, l1 = rt.recipes.mixed_sparse_attribution_prior(0.7, reference=reference, n_samples=3, paper_features=6)
    assert (gini.weight, l1.weight) == (0.7, pytest.approx(0.7 / 6))
    for term, alone in (
        (gini, rt.recipes.sparse_attribution_prior(0.7, reference=reference, n_samples=3)),
        (l1, rt.recipes.l1_attribution_prior(0.7, reference=reference, n_samples=3, paper_features=6)),
    ):
        found, expected = (_ours(t, problem.model, problem.inputs, problem.labels) for t in (term, alone))
        _same(found, expected)
    assert [t.weight for t in rt.recipes.mixed_sparse_attribution_prior(0.7, "auto")] == [0.7, "auto"]


class _OneLogit(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)[:, :1]


#: what the published code differentiates; its log p + log(1 - p) is 2 log sigmoid(z) - z
_EXPLAINED = {"log_prob_sum": lambda z: 2 * F.logsigmoid(z) - z, "logit": lambda z: z}


@pytest.mark.parametrize("output", _EXPLAINED)
@pytest.mark.parametrize("name", ["neural_lasso", "sparse_gradient_prior"])
def test_penalties_on_gradients(name, output):
    """The published code: mean |g| and -Gini of the mean |g| over rows."""
    problem = vectors()
    model = _OneLogit(problem.model.eval())
    x = problem.inputs.clone().requires_grad_()
    (g,) = torch.autograd.grad(_EXPLAINED[output](model(x)).sum(), x, create_graph=True)
    v = g.abs().mean(0)
    gini = (v[:, None] - v[None]).abs().sum() / (2 * 6 * v.sum())
    paper = 0.7 * (v.mean() if name == "neural_lasso" else -gini)
    arguments = {"output": output} | ({"paper_features": 6} if name == "neural_lasso" else {})
    objective = rt.Objective(model, F.mse_loss, [getattr(rt.recipes, name)(0.7, **arguments)]).eval()
    total = objective(problem.inputs, problem.labels, part="prior").total
    _same(_gradient(total, problem.model), _gradient(paper, problem.model))


@pytest.mark.parametrize("layers", ["all", "first"])
def test_penalties_on_weights(layers):
    """The published code: the mean of |W|; and sum |W| + sqrt(rows) sum of the norms of columns, layer by layer."""
    problem = vectors()
    weights = [p for p in problem.model.parameters() if p.ndim == 2][: 1 if layers == "first" else None]
    mean = torch.cat([w.flatten() for w in weights]).abs().mean()
    lasso = sum(w.abs().sum() + w.norm(dim=0).sum() * w.shape[0] ** 0.5 for w in weights)
    for term, paper in (
        (rt.recipes.l1_weights(316.0, layers=layers, paper_model=problem.model), 316.0 * mean),
        (rt.recipes.sparse_group_lasso(1e-3, layers=layers), 1e-3 * lasso),
    ):
        found = _ours(term, problem.model, problem.inputs, problem.labels, task=False)
        _same(found, _gradient(paper, problem.model))


@pytest.mark.parametrize(
    "make",
    [
        rt.recipes.l1_attribution_prior,
        rt.recipes.neural_lasso,
        rt.recipes.sparse_gradient_prior,
        rt.recipes.l1_weights,
        rt.recipes.sparse_group_lasso,
        rt.recipes.right_for_the_right_reasons,
        rt.recipes.sparse_attribution_prior,
        rt.recipes.pixel_attribution_prior,
        lambda weight: rt.recipes.graph_attribution_prior(torch.ones(6, 6), weight),
        rt.recipes.double_backpropagation,
        rt.recipes.certainty_sensitivity,
        rt.recipes.adversarial_training,
        rt.recipes.agreement,
        rt.recipes.energy_guidance,
        rt.recipes.human_importance,
        rt.recipes.interval_bound,
        rt.recipes.masked_noise,
        rt.recipes.masked_pgd,
        rt.recipes.robust_right_reasons,
        lambda weight: rt.recipes.cdep("irrelevant", weight=weight),
        lambda weight: rt.recipes.grad_cam_reasons("0", weight),
        lambda weight: rt.recipes.concept_reasons(torch.ones(3), "0", weight),
    ],
)
def test_open_weights_pass_through(make):
    for weight in ("balance", "auto"):
        assert make(weight).weight == weight
    assert len({make(1.0).name, make("auto").name}) == 1


#: what has no default
_NEEDED = {
    "cdep": ("irrelevant",),
    "graph_attribution_prior": (torch.ones(3, 3),),
    "grad_cam_reasons": ("0",),
    "concept_reasons": (torch.ones(3), "0"),
}


def test_every_recipe_is_a_term_with_its_citation():
    for name in rt.recipes.__all__:
        recipe = getattr(rt.recipes, name)
        assert "(19" in recipe.__doc__ or "(20" in recipe.__doc__
        made = recipe(*_NEEDED.get(name, ()))
        for term in made if isinstance(made, list) else [made]:
            assert isinstance(term, rt.Term | ModelTerm)
