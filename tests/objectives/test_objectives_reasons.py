"""Methods that learn from annotations: each paper's own loss, written out, has our term's gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts.problems import draws, images, initialised, normal, vector_model, vectors

MARKED = (normal(4, 6, seed=3) > 0).double()
NOTE = rt.Annotation(irrelevant=MARKED, relevant=1 - MARKED)


def _prior(term, model, inputs, labels, annotation, seed=0):
    """Parameter gradients of the term alone, with dropout off."""
    whole = rt.Objective(model.eval(), F.cross_entropy, [term])
    return _of(whole(inputs, labels, annotation, draws(seed), "prior").total, model)


def _of(loss, model):
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(model.parameters(), found, strict=True)]


def _same(found, expected, factor=1.0):
    size = max(float(e.abs().max()) for e in expected)
    assert size > 1e-9
    for f, e in zip(found, expected, strict=True):
        assert float((f - factor * e).abs().max()) <= 1e-10 * size * abs(factor)


def _input_gradient(model, inputs, read):
    """(B, F), with its graph; ``read`` takes the outputs to one number an example."""
    x = inputs.clone().requires_grad_()
    (found,) = torch.autograd.grad(read(model.eval()(x)).sum(), x, create_graph=True)
    return found


VARIANTS = {
    "predicted class": (("log_prob", "predicted"), lambda o, y: o.log_softmax(1).amax(1)),
    "label's log-probability": (("log_prob", "label"), lambda o, y: -F.cross_entropy(o, y, reduction="none")),
    "cross-entropy": (("loss", "label"), lambda o, y: F.cross_entropy(o, y, reduction="none")),
    "label's score": (("logit", "label"), lambda o, y: o.gather(1, y[:, None])[:, 0]),
    "one score": (("logit", 2), lambda o, y: o[:, 2]),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_published_variants_of_right_reasons(name):
    (output, target), read = VARIANTS[name]
    problem = vectors()
    g = _input_gradient(problem.model, problem.inputs, lambda o: read(o, problem.labels))
    paper = 3.0 * ((MARKED * g) ** 2).sum() / 4
    term = rt.recipes.right_for_the_right_reasons(3.0, output=output, target=target)
    _same(_prior(term, problem.model, problem.inputs, problem.labels, NOTE), _of(paper, problem.model))


def test_published_lambdas():
    """Each paper's own reduction beside ours, with the divisor that the recipe asks for."""
    problem = vectors()
    model, x, y = problem.model, problem.inputs, problem.labels
    squares = (MARKED * _input_gradient(model, x, lambda o: o.log_softmax(1).sum(1))) ** 2
    mean_loss = 4 * _input_gradient(model, x, lambda o: F.cross_entropy(o, y, reduction="none")) / 4
    whole = {
        # normalize=True: cross-entropy over N, penalty over the sum of A
        "normalize": (7.0 * squares.sum() / MARKED.sum(), float(MARKED.sum()) / 4, "log_prob_sum"),
        # the TensorFlow variant: half squares of sums over examples, where the task is a sum too
        "half squares": (7.0 * squares.sum() / 2 / 4, 2, "log_prob_sum"),
        # R4: a mean over all elements
        "mean": (7.0 * squares.mean(), 6, "log_prob_sum"),
        # CDEP's baseline: the squared gradient of the batch's mean loss, summed
        "batch mean": (7.0 * ((MARKED * mean_loss / 4) ** 2).sum(), 4, "loss"),
        # a sum over examples beside a mean loss
        "sum": (7.0 * squares.sum(), 1 / 4, "log_prob_sum"),
    }
    for paper, divisor, output in whole.values():
        term = rt.recipes.right_for_the_right_reasons(7.0, paper_divisor=divisor, output=output)
        _same(_prior(term, model, x, y, NOTE), _of(paper, model))
    assert rt.recipes.right_for_the_right_reasons("auto", paper_divisor=3.0).weight == "auto"
    with pytest.raises(ValueError, match="paper_divisor"):
        rt.recipes.right_for_the_right_reasons(paper_divisor=0.0)


def test_right_reasons_at_a_layer():
    problem = images()
    marked = (torch.rand(3, 1, 6, 6, generator=draws(1)) < 0.3).double()
    model = problem.model.eval()
    hidden = model[:3](problem.inputs)
    (g,) = torch.autograd.grad(model[3:](hidden).log_softmax(1).sum(), hidden, create_graph=True)
    paper = 2.0 * ((marked * g) ** 2).sum() / 3
    term = rt.recipes.right_for_the_right_reasons(2.0, layer="2")
    found = _prior(term, model, problem.inputs, problem.labels, rt.Annotation(irrelevant=marked))
    _same(found, _of(paper, model))


def test_grad_cam_reasons_train_through_the_weights_of_the_map():
    """relu(sum over channels of (mean gradient) * activation), enlarged, squared where irrelevant; nothing detached."""
    model = initialised(
        nn.Sequential(
            nn.Conv2d(2, 3, 3, 2, 1), nn.Softplus(), nn.Conv2d(3, 3, 1), nn.Tanh(), nn.Flatten(), nn.Linear(27, 3)
        )
    )
    problem = images()
    marked = (torch.rand(3, 1, 6, 6, generator=draws(1)) < 0.5).double()
    hidden = model[:2](problem.inputs)
    score = model[2:](hidden).gather(1, problem.labels[:, None]).sum()
    (g,) = torch.autograd.grad(score, hidden, create_graph=True)
    cam = torch.relu((g.mean((2, 3), keepdim=True) * hidden).sum(1, keepdim=True))
    cam = F.interpolate(cam, (6, 6), mode="bilinear", align_corners=False)
    assert cam.any()
    term = rt.recipes.grad_cam_reasons("1", 2.0)
    found = _prior(term, model, problem.inputs, problem.labels, rt.Annotation(irrelevant=marked))
    paper = _of(2.0 * ((marked * cam) ** 2).sum() / 3, model)
    _same(found, paper)
    detached = (g.detach().mean((2, 3), keepdim=True) * hidden).sum(1, keepdim=True)
    cam = F.interpolate(torch.relu(detached), (6, 6), mode="bilinear", align_corners=False)
    wrong = _of(2.0 * ((marked * cam) ** 2).sum() / 3, model)
    assert max(float((f - w).abs().max()) for f, w in zip(found, wrong, strict=True)) > 1e-3


def test_energy_guidance():
    """Rao et al. (2023), eq. 5: minus the share of positive input times gradient inside the region."""
    problem = vectors()
    x, y = problem.inputs, problem.labels
    phi = torch.relu(x * _input_gradient(problem.model, x, lambda o: o.gather(1, y[:, None])[:, 0]))
    paper = -3.0 * (((1 - MARKED) * phi).sum(1) / phi.sum(1)).mean()
    _same(_prior(rt.recipes.energy_guidance(3.0), problem.model, x, y, NOTE), _of(paper, problem.model))


def test_human_importance():
    """Selvaraju et al. (2019): sum over pairs that people and the model order differently of the difference."""
    problem = vectors()
    x, y = problem.inputs, problem.labels
    phi = x * _input_gradient(problem.model, x, lambda o: o.gather(1, y[:, None])[:, 0])
    pairs = [
        phi[b, j] - phi[b, i]
        for b in range(4)
        for i in range(6)
        for j in range(6)
        if not MARKED[b, i] and MARKED[b, j] and phi[b, j] > phi[b, i]
    ]
    found = _prior(rt.recipes.human_importance(3.0), problem.model, x, y, NOTE)
    _same(found, _of(3.0 * sum(pairs) / 4, problem.model))


def test_concept_reasons():
    """Dreyer et al. (2024): (gradient in the layer . h)^2, a mean over examples."""
    problem = images()
    way = normal(3, seed=3)
    hidden = problem.model.eval()[:3](problem.inputs)
    score = problem.model[3:](hidden).gather(1, problem.labels[:, None]).sum()
    (g,) = torch.autograd.grad(score, hidden, create_graph=True)
    paper = 2.0 * torch.einsum("bchw,c->b", g, way / way.norm()).square().mean()
    term = rt.recipes.concept_reasons(way, "2", 2.0)
    _same(_prior(term, problem.model, problem.inputs, problem.labels, None), _of(paper, problem.model))


@pytest.mark.parametrize("recipe", [rt.recipes.masked_noise, rt.recipes.masked_pgd])
def test_the_loss_is_taken_where_only_the_irrelevant_has_changed(recipe):
    problem = vectors()
    model, x, y = problem.model.eval(), problem.inputs.sigmoid(), problem.labels
    term = recipe(0.7, clip=(0.0, 1.0))
    found = _prior(term, model, x, y, NOTE)
    changed = term.perturbation(model, x, y, inside=MARKED, generator=draws(0))
    assert torch.equal(torch.where(MARKED > 0, x, changed), x)
    assert bool((changed != x).any() & (changed >= 0).all() & (changed <= 1).all())
    _same(found, _of(0.7 * F.cross_entropy(model(changed), y), model))


def test_interval_bound_is_the_loss_at_the_worst_outputs():
    """One hidden layer, written out with positive and negative weights."""
    model = initialised(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    x, y = normal(4, 6, seed=1), torch.tensor([0, 1, 2, 0])
    low, high = x - 0.2 * MARKED, x + 0.2 * MARKED
    for layer in (model[0], model[2]):
        positive, negative = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
        low, high = low @ positive.T + high @ negative.T + layer.bias, high @ positive.T + low @ negative.T + layer.bias
        if layer is model[0]:
            low, high = low.relu(), high.relu()
    worst = torch.where(F.one_hot(y, 3).bool(), low, high)
    found = _prior(rt.recipes.interval_bound(0.4, eps=0.2), model, x, y, NOTE)
    _same(found, _of(0.4 * F.cross_entropy(worst, y), model))


def test_robust_right_reasons_by_intervals_written_out():
    """Two layers: the slope of each unit lies between 0 and 1 where its sign is not certain."""
    model = initialised(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    x, y = normal(4, 6, seed=1), torch.tensor([0, 1, 2, 0])
    w, v = model[0].weight, model[2].weight[y]
    middle, half = model[0](x), 0.3 * MARKED @ w.abs().T
    sure, maybe = (middle - half > 0).double(), (middle + half > 0).double()
    each = v[:, :, None] * w  # (B, hidden, F)
    open_units = (maybe - sure)[:, :, None]
    high = (sure[:, :, None] * each + open_units * each.clamp(min=0)).sum(1)
    low = (sure[:, :, None] * each + open_units * each.clamp(max=0)).sum(1)
    assert bool(((maybe - sure) > 0).any())
    found = _prior(rt.recipes.robust_right_reasons(2.0, eps=0.3, output="logit", paper_divisor=4.0), model, x, y, NOTE)
    # interval arithmetic has nothing to lose here but what comes from bounding v and the slope by their middles
    exact = (MARKED * torch.maximum(low.abs(), high.abs())) ** 2
    term = rt.recipes.robust_right_reasons(2.0, eps=0.3, output="logit")
    value = rt.Objective(model, F.cross_entropy, [term])(x, y, NOTE, part="prior").total
    assert value.item() >= (2.0 * exact.sum() / 4).item() - 1e-12
    _same(found, _of(2.0 / 4.0 * exact.sum() / 4, model))


def test_every_method_moves_a_model_off_what_is_irrelevant():
    """Two features tell the label equally well; the marked one has to matter less, or (HINT) only not more."""
    x = normal(200, 2, seed=1).float()
    x[:, 1] = x[:, 0] + 0.05 * x[:, 1]
    y = (x[:, 0] > 0).long()
    note = rt.Annotation(irrelevant=torch.tensor([[0.0, 1.0]]), relevant=torch.tensor([[1.0, 0.0]]))

    def relied(*terms):
        model = rt.models.mlp(2, (16,), 2, seed=0)
        rt.fit(rt.Objective(model, F.cross_entropy, terms), (x, y, note), epochs=15, batch_size=50, lr=0.01)
        phi = rt.attribute(model, x, "gradient", labels=y).attributions.abs().mean(0)
        return float(phi[1] / phi.sum())

    plain = relied()
    recipes = rt.recipes
    for term in (
        recipes.right_for_the_right_reasons(1.0),
        recipes.right_for_the_right_reasons(10.0, output="loss"),
        recipes.energy_guidance(3.0),
        recipes.masked_noise(3.0, scale=1.0),
        recipes.masked_pgd(1.0, eps=1.0),
        recipes.interval_bound(1.0, eps=0.5),
        recipes.robust_right_reasons(1.0, eps=0.3),
        recipes.robust_right_reasons(1.0, eps=1.0, bound="sampled"),
        recipes.robust_right_reasons(1.0, eps=1.0, bound="pgd"),
        recipes.agreement(3.0),
    ):
        assert relied(term) < 0.6 * plain, term.name
    assert relied(recipes.human_importance(3.0)) < 0.85 * plain


def test_models_with_batch_norm_and_dropout_take_every_method():
    model, x = vector_model(), normal(4, 6, seed=2)
    y = torch.tensor([0, 2, 1, 1])
    model[2] = nn.ReLU()
    terms = [rt.recipes.interval_bound(), rt.recipes.robust_right_reasons(), rt.recipes.masked_pgd()]
    report = rt.Objective(model, F.cross_entropy, terms)(x, y, NOTE)
    report.total.backward()
    assert all(p.grad is not None for p in model.parameters())
