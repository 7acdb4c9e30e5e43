"""Terms over a whole box of inputs: worst loss by intervals, largest gradient by intervals, samples and ascent."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts.derivatives import check_term
from contracts.problems import Problem, draws, initialised, kinked_model, normal, objective
from contracts.unchanged import check_unchanged
from rightly.core.errors import AnnotationError, ArgumentError, NotConnectedError, ShapeError
from rightly.objectives import Batch, IntervalTerm, RobustReasons
from rightly.objectives.interval import worst_loss
from rightly.objectives.robust import output_slope

OUTPUTS = ["logit", "log_prob", "log_prob_sum", "loss", "loss_uniform"]


def smooth(classes=3):
    layers = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Softplus(), nn.Dropout(0.5), nn.Linear(8, 8), nn.Tanh()]
    return initialised(nn.Sequential(*layers, nn.Linear(8, classes)), 0)


def problem(model=None, batch=4):
    labels = torch.tensor([0, 2, 1, 1])[:batch]
    return Problem("vectors", model or smooth(), normal(batch, 6, seed=10), labels, rt.spaces.Input(), False)


def pictures():
    return Problem("images", kinked_model(), normal(3, 1, 6, 6, seed=5), torch.arange(3), rt.spaces.Input(), True)


def annotated(inputs):
    """A part of each example is irrelevant; of the last one nothing is known."""
    marked = (torch.rand(inputs.shape, generator=draws(3)) < 0.4).double()
    marked.flatten(1)[:, 1] = 1
    marked[-1] = math.nan
    return rt.Annotation(irrelevant=marked, relevant=1 - marked)


def inside(case, eps, clip=None, count=400, seed=0):
    """Inputs of the box, random ones and corners; with a range, of inputs within it."""
    marked = annotated(case.inputs).irrelevant.nan_to_num(0)
    for n in range(count):
        share = 2 * torch.rand(case.inputs.shape, generator=draws(seed + n)).double() - 1
        moved = case.inputs + eps * marked * (share.sign() if n % 2 else share)
        yield moved if clip is None else torch.where(marked > 0, moved.clamp(*clip), moved)


TERMS = {
    "interval": IntervalTerm(0.3),
    "interval-clipped": IntervalTerm(0.3, "not_relevant", (-0.5, 0.4)),
    **{f"robust-{output}": RobustReasons(0.2, output=output) for output in OUTPUTS},
    **{f"robust-{target}": RobustReasons(0.2, output="log_prob", target=target) for target in ("predicted", 1)},
    "robust-sampled": RobustReasons(0.4, "sampled", n_samples=3),
    "robust-pgd": RobustReasons(0.4, "pgd", steps=3, output="loss"),
}


@pytest.mark.parametrize("make", [problem, pictures])
@pytest.mark.parametrize("name", TERMS)
def test_parameter_gradients(make, name):
    case = make()
    check_term(objective(case, TERMS[name].with_weight(0.7)), case.inputs, case.labels, annotated(case.inputs))


@pytest.mark.parametrize("make", [problem, pictures])
@pytest.mark.parametrize("clip", [None, (-0.5, 0.4)])
def test_no_input_of_the_box_has_a_larger_loss(make, clip):
    case = make()
    if clip is not None:
        case = replace(case, inputs=case.inputs.clamp(*clip))
    model = case.model.eval()
    batch = Batch(case.inputs, case.labels, annotated(case.inputs))
    found = IntervalTerm(0.3, clip=clip).of(model, batch)
    assert found[-1] == 0  # nothing is known of it
    worst = torch.stack(
        [F.cross_entropy(model(x), case.labels, reduction="none") for x in inside(case, 0.3, clip)]
    ).amax(0)
    assert bool((worst[:-1] <= found[:-1] + 1e-12).all())
    assert bool((worst[:-1] > F.cross_entropy(model(case.inputs), case.labels, reduction="none")[:-1]).all())


def test_of_two_classes_the_bound_on_a_linear_model_is_attained():
    """The worst corner is w's own sign: loss = softplus(-(margin - eps sum |w_d|)); the two scores are -z and z."""
    w = normal(6, seed=1)
    model = nn.Linear(6, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(w[None])
    x, y = normal(4, 6, seed=2), torch.tensor([0.0, 1.0, 1.0, 0.0]).double()
    marked = torch.tensor([[1.0, 0, 1, 0, 0, 1]]).expand(4, 6)
    found = IntervalTerm(0.3).of(model, Batch(x, y[:, None], rt.Annotation(irrelevant=marked)))
    margin = (2 * y - 1) * (x @ w) - 0.3 * (marked[0].double() * w.abs()).sum()
    assert torch.allclose(found, F.softplus(-margin))


def test_without_width_it_is_the_loss_itself():
    case = problem()
    term = IntervalTerm(0.0)
    found = term.of(case.model.eval(), Batch(case.inputs, case.labels, annotated(case.inputs)))
    expected = F.cross_entropy(case.model(case.inputs), case.labels, reduction="none")
    assert torch.allclose(found[:-1], expected[:-1])


@pytest.mark.parametrize("bound", ["interval", "sampled", "pgd"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_without_width_robust_reasons_are_right_reasons(output, bound):
    """Value and parameter gradient, whatever finds the worst place."""
    case = problem()
    note = annotated(case.inputs)
    term = RobustReasons(0.0, bound, output=output, steps=1, n_samples=1)
    plain = rt.recipes.right_for_the_right_reasons(1.0, output=output)
    totals = [objective(case, t)(case.inputs, case.labels, note, part="prior").total for t in (term, plain)]
    assert torch.allclose(*totals)
    for f, e in zip(
        *(torch.autograd.grad(t, list(case.model.parameters()), allow_unused=True) for t in totals), strict=True
    ):
        assert (f is None or not f.any()) if e is None else torch.allclose(f, e, atol=1e-12)


def _right_reasons(case, points, output, note):
    term = rt.recipes.right_for_the_right_reasons(1.0, output=output)
    found = term.attribution(case.model, points, case.labels, diagnostics=False).attributions
    return rt.priors.Irrelevant()(found, note)


@pytest.mark.parametrize("make", [problem, pictures])
@pytest.mark.parametrize("output", OUTPUTS)
def test_no_input_of_the_box_has_a_larger_gradient(make, output):
    """Intervals are above every sample; samples are below the largest that many draws find, and above the example."""
    case, note = make(), annotated(make().inputs)
    batch = Batch(case.inputs, case.labels, note)
    above = RobustReasons(0.3, output=output).of(case.model, batch)
    met = torch.stack([_right_reasons(case, x, output, note) for x in inside(case, 0.3)]).amax(0)
    assert bool((met <= above + 1e-12).all())
    assert above[-1] == 0
    here = _right_reasons(case, case.inputs, output, note)
    sampled = RobustReasons(0.3, "sampled", output, n_samples=20).of(case.model, batch)
    assert bool((here <= sampled + 1e-12).all() & (sampled <= above + 1e-12).all())


def test_linear_models_have_exact_bounds():
    model = initialised(nn.Linear(6, 3))
    batch = Batch(normal(4, 6, seed=1), torch.tensor([0, 1, 2, 0]), rt.Annotation(irrelevant=torch.ones(1, 6)))
    found = RobustReasons(5.0, output="logit").of(model, batch)
    assert torch.allclose(found, model.weight[batch.labels].square().sum(1))


def test_ascent_finds_more_than_as_many_samples():
    case = problem()
    batch = Batch(case.inputs, case.labels, annotated(case.inputs))
    sampled, climbed = (
        RobustReasons(1.0, bound, n_samples=10, steps=10).of(case.model, batch).detach() for bound in ("sampled", "pgd")
    )
    assert float(climbed.sum()) > float(sampled.sum())


@pytest.mark.parametrize("output", ["log_prob_sum", "loss"])
def test_a_saturated_batch_of_one_does_not_stop_training(output):
    """So sure that the probabilities are 0 and 1: the gradient is there, and the same all around."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1000.0, 0], [-1000, 3]]))
    batch = Batch(torch.tensor([[1.0, 1]]), torch.tensor([1]), rt.Annotation(irrelevant=torch.ones(1, 2)))
    found = RobustReasons(0.1, "pgd", output).of(model, batch)
    assert float(found.detach()) > 0
    assert torch.allclose(found, RobustReasons(0.0, "sampled", output).of(model, batch))


def test_ascent_stays_in_the_box():
    case = problem()
    marked = annotated(case.inputs).irrelevant.nan_to_num(0)
    seen = []
    model = case.model
    handle = model[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    RobustReasons(0.7, "pgd", clip=(-1.0, 1.0)).of(model, Batch(case.inputs, case.labels, annotated(case.inputs)))
    handle.remove()
    assert len(seen) > 10
    for points in seen:
        change = points - case.inputs
        assert bool((change.abs() <= 0.7 * marked + 1e-12).all())
        beyond = (points.abs() > 1) & (points.abs() > case.inputs.abs() + 1e-12)
        assert not bool(beyond.any())


@pytest.mark.parametrize("classes", [1, 2, 4])
@pytest.mark.parametrize("output", OUTPUTS)
def test_slopes_of_outputs_lie_within_their_bounds(output, classes):
    """Against the gradient of the explained number itself."""
    middle, half = normal(5, classes, seed=1), normal(5, classes, seed=2).abs()
    labels = torch.tensor([0, 1, 1, 0, 1]) % max(classes, 2)
    told = labels if classes > 1 or output == "loss" else None
    low, high = output_slope(middle - half, middle + half, output, None if "sum" in output or "uni" in output else told)
    for n in range(300):
        share = 2 * torch.rand(5, classes, generator=draws(n)).double() - 1
        scores = (middle + half * (share.sign() if n % 2 else share)).requires_grad_()
        value = rt.core.scalar.explained(scores, labels, labels, output)
        (slope,) = torch.autograd.grad(value.sum(), scores)
        assert bool((slope >= low - 1e-12).all() & (slope <= high + 1e-12).all())
    exact = output_slope(middle, middle, output, None if "sum" in output or "uni" in output else told)
    scores = middle.clone().requires_grad_()
    (slope,) = torch.autograd.grad(rt.core.scalar.explained(scores, labels, labels, output).sum(), scores)
    for bound in exact:
        assert torch.allclose(bound, slope)


def test_worst_losses_are_over_all_corners():
    low, high = normal(3, 3, seed=1), normal(3, 3, seed=1) + normal(3, 3, seed=2).abs()
    labels = torch.tensor([2, 0, 1])
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3).double()
    worst = torch.stack([F.cross_entropy(low + (high - low) * c, labels, reduction="none") for c in corners]).amax(0)
    assert torch.allclose(worst_loss(low, high, labels), worst)


@pytest.mark.parametrize("name", TERMS)
def test_nothing_of_the_model_changes(name):
    case = problem()
    note = annotated(case.inputs)
    batch = Batch(case.inputs, case.labels, note, None)
    check_unchanged(lambda: TERMS[name].of(case.model, batch), case.model, [case.inputs, case.labels])


@pytest.mark.parametrize("name", TERMS)
def test_without_gradients_the_value_is_the_same(name):
    case = problem()
    batch = Batch(case.inputs, case.labels, annotated(case.inputs), None)
    first = TERMS[name].of(case.model, batch)
    with torch.no_grad():
        second = TERMS[name].of(case.model, batch)
    assert first.requires_grad
    assert not second.requires_grad
    assert torch.equal(first.detach(), second)


def test_training_with_either_lowers_it():
    for term in (IntervalTerm(0.5), RobustReasons(0.5), RobustReasons(0.5, "sampled"), RobustReasons(0.5, "pgd")):
        case = problem()
        note = annotated(case.inputs)
        whole = objective(case, term.with_weight("balance"))
        before = float(whole.penalty(term, case.inputs, case.labels, note).detach())
        rt.fit(whole, (case.inputs, case.labels, note), epochs=30, batch_size=4, lr=0.02)
        assert float(whole.penalty(term, case.inputs, case.labels, note).detach()) < before / 2


MISTAKES = {
    "a width below zero": lambda: IntervalTerm(-0.1),
    "an endless width": lambda: RobustReasons(math.inf),
    "an unknown region": lambda: IntervalTerm(0.1, "relevant"),
    "a range the wrong way round": lambda: IntervalTerm(0.1, clip=(1.0, 0.0)),
    "an unknown bound": lambda: RobustReasons(0.1, "certified"),
    "an output without bounds": lambda: RobustReasons(0.1, output="prob"),
    "no samples": lambda: RobustReasons(0.1, "sampled", n_samples=0),
    "no steps": lambda: RobustReasons(0.1, "pgd", steps=0),
    "a negative weight": lambda: RobustReasons(0.1, weight=-1.0),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    with pytest.raises(ArgumentError, match="expected"):
        MISTAKES[name]()


@pytest.mark.parametrize("term", [IntervalTerm(0.1), RobustReasons(0.1)], ids=["outputs", "gradient"])
def test_a_model_without_bounds_is_refused_by_the_name_of_its_operation(term):
    model = initialised(nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 3)))
    case = problem(model)
    with pytest.raises(ArgumentError, match="no rule for gelu"):
        objective(case, term)(case.inputs, case.labels, annotated(case.inputs))


def test_calls_that_cannot_be_answered():
    case, note = problem(), annotated(problem().inputs)
    with pytest.raises(AnnotationError, match="irrelevant"):
        IntervalTerm(0.1).of(case.model, Batch(case.inputs, case.labels))
    with pytest.raises(ArgumentError, match="labels"):
        IntervalTerm(0.1).of(case.model, Batch(case.inputs, None, note))
    with pytest.raises(ArgumentError, match=r"one tensor|real numbers"):
        IntervalTerm(0.1).of(case.model, Batch((case.inputs,), case.labels, note))
    flat = problem(initialised(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))))
    with pytest.raises(ArgumentError, match="nothing to climb"):
        RobustReasons(0.1, "pgd", "logit").of(flat.model, Batch(case.inputs, case.labels, note))
    frozen = problem(smooth().requires_grad_(False))
    with pytest.raises(NotConnectedError, match="does not reach the parameters"):
        objective(frozen, IntervalTerm(0.1))(case.inputs, case.labels, note)


BAD_LABELS = {
    "none": None, "float": torch.ones(4), "too large": torch.full((4,), 5), "negative": torch.full((4,), -100),
    "one-hot": F.one_hot(torch.tensor([0, 2, 1, 1]), 3).double(), "short": torch.tensor([0, 2, 1]),
}  # fmt: skip
BAD_LABELS_OF_ONE = {"none": None, "too large": torch.full((4,), 5), "short": torch.ones(3), "wide": torch.ones(4, 2)}


@pytest.mark.parametrize("classes", [3, 1])
@pytest.mark.parametrize("asked", ["interval term", "interval", "bounds", "noise", "fgsm"])
def test_labels_that_a_loss_cannot_read_are_named(asked, classes):
    x, model = normal(4, 6, seed=10), smooth(classes)
    term = {
        "interval term": IntervalTerm(0.1),
        "interval": RobustReasons(0.1, output="loss"),
        "noise": rt.PerturbationTerm(rt.perturbations.Noise(0.1)),
        "fgsm": rt.PerturbationTerm(rt.perturbations.FGSM(0.1)),
    }.get(asked)
    for labels in (BAD_LABELS if classes == 3 else BAD_LABELS_OF_ONE).values():
        batch = Batch(x, labels, annotated(x))
        with pytest.raises((ArgumentError, ShapeError)):
            worst_loss(model(x), model(x) + 1, labels) if term is None else term.of(model, batch)


@pytest.mark.parametrize("classes", [3, 1])
def test_labels_in_a_column_are_read_like_those_in_a_row(classes):
    x, model = normal(4, 6, seed=10), smooth(classes)
    labels = torch.tensor([0, 2, 1, 1]) if classes == 3 else torch.tensor([0.0, 1.0, 1.0, 0.25])
    for term in (
        IntervalTerm(0.1), RobustReasons(0.1, output="loss"), rt.PerturbationTerm(rt.perturbations.Noise(0.0))
    ):  # fmt: skip
        row, column = (term.of(model, Batch(x, y, annotated(x))) for y in (labels, labels[:, None]))
        assert torch.equal(row, column), term.name
        assert row.any(), term.name


def test_the_predicted_class_of_a_model_with_named_outputs():
    class Named(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return {"logits": self.model(x)}

    x, model = normal(4, 6, seed=10), smooth()
    term = RobustReasons(0.1, output="log_prob", target="predicted")
    batch = Batch(x, None, annotated(x))
    assert torch.equal(term.of(Named(model), batch), term.of(model, batch))


@pytest.mark.parametrize("bound", ["interval", "sampled"])
@pytest.mark.parametrize("size", [1e-4, 1e3])
def test_squares_of_half_precision_neither_overflow_nor_vanish(bound, size):
    model = nn.Linear(6, 3).half()
    with torch.no_grad():
        model.weight.fill_(size)
    x = normal(2, 6, seed=1).half()
    batch = Batch(x, torch.tensor([0, 1]), rt.Annotation(irrelevant=torch.ones_like(x)))
    found = RobustReasons(0.01, bound, output="logit").of(model, batch)
    assert torch.allclose(found.double(), 6 * model.weight[0, 0].double().square().expand(2), rtol=1e-3)
