"""CDEP: what contextual decomposition gives to regions, penalised; held against definitions, one pass at a time."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts.agreement import check_close
from contracts.derivatives import check_term
from contracts.problems import Problem, Recurrent, draws, initialised, normal, objective
from contracts.unchanged import check_unchanged
from rightly.attributions.decomposition import CONVENTIONS
from rightly.core.errors import AnnotationError, ArgumentError, ShapeError
from rightly.objectives import Batch

R = rt.recipes
Y = torch.tensor([0, 2, 1, 1])


def linear(classes=3):
    return initialised(nn.Linear(6, classes), 1)


def pictures(batch=4):
    """A convolution with pooling, batch norm and dropout: kinks, and layers that behave otherwise in training."""
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5), nn.Flatten()]
    model = initialised(nn.Sequential(*layers, nn.Linear(16, 3)), 2)
    return Problem("images", model, normal(batch, 3, 6, 6, seed=5), Y[:batch], rt.spaces.Input(), True)


def unchanging():
    """A convolution that is the same in training."""
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)]
    return initialised(nn.Sequential(*layers), 2)


def words(batch=4):
    model = initialised(Recurrent(), 3)
    return Problem("tokens", model, torch.randint(11, (batch, 4), generator=draws(12)), Y[:batch] % 3, None, False)


def squares(batch=4, count=2):
    """Regions (B, R, 1, 6, 6), another for each example; the last example has none, the first one lacks its second."""
    chosen = torch.rand(batch, count, 1, 6, 6, generator=draws(7)) < 0.3
    chosen[-1], chosen[0, 1:] = False, False
    return chosen


def oracle(loss, relevant, irrelevant, target=0.0):
    """Of one part and the rest."""
    if loss == "l1":
        return abs(relevant - target)
    shares = torch.softmax(torch.tensor([relevant, irrelevant], dtype=torch.float64), 0)
    return float(shares[0]) if loss == "softmax" else -math.log(float(shares[1]))


def slow(model, x, masks, loss, convention="first", target=0.0, classes=None, space=None):
    """(B,) by the definition: every example, region and class on its own; ``masks`` (B, R, *F)."""
    found = []
    for i, regions in enumerate(masks):
        values = []
        for region in regions:
            if not region.any():
                continue
            parts = rt.contextual_decomposition(model, x[i : i + 1], region[None], convention=convention, space=space)
            relevant, irrelevant = parts.relevant[0, 0], parts.irrelevant[0, 0]
            chosen = range(len(relevant)) if classes is None else [int(classes[i])]
            values += [oracle(loss, float(relevant[c]), float(irrelevant[c]), target) for c in chosen]
        found.append(sum(values) / max(len(values), 1))
    return torch.tensor(found, dtype=torch.float64)


# ---- values


@pytest.mark.parametrize("loss", ["softmax", "log_softmax", "l1"])
def test_of_a_linear_model_it_has_a_closed_form(loss):
    """The part of a region is W (mask * x), and its share of the bias by absolute size."""
    model, x = linear(), normal(4, 6, seed=4)
    region = torch.tensor([[True, True, False, False, False, True]])
    own, rest = (x * region) @ model.weight.T, (x * ~region) @ model.weight.T
    relevant = own + own.abs() / (own.abs() + rest.abs()) * model.bias
    irrelevant = own + rest + model.bias - relevant
    expected = {
        "softmax": torch.sigmoid(relevant - irrelevant),
        "log_softmax": F.softplus(relevant - irrelevant),
        "l1": (relevant - 0.3).abs(),
    }[loss].mean(1)
    convention = rt.attributions.decomposition.Convention(soft=0.0)
    term = R.cdep(region, loss=loss, target=0.3 if loss == "l1" else 0.0, convention=convention)
    check_close(term.of(model, Batch(x)), expected)


@pytest.mark.parametrize("convention", ["first", "shapley"])
@pytest.mark.parametrize("loss", ["softmax", "log_softmax", "l1"])
@pytest.mark.parametrize("classes", ["all", "label"])
def test_it_equals_the_definition(loss, classes, convention):
    case, masks = pictures(), squares()
    note = rt.Annotation(regions=masks)
    target = -0.4 if loss == "l1" else 0.0
    term = R.cdep("regions", loss=loss, classes=classes, convention=convention, target=target)
    expected = slow(
        case.model, case.inputs, masks, loss, convention, target, case.labels if classes == "label" else None
    )
    found = term.of(case.model, Batch(case.inputs, case.labels, note))
    check_close(found, expected)
    assert found[-1] == 0  # nothing is known of it
    assert (found[:-1] > 0).all()


def test_other_classes_can_be_asked_for():
    case, masks = pictures(), squares()
    batch = Batch(case.inputs, case.labels, rt.Annotation(regions=masks))
    with torch.no_grad():
        predicted = case.model.eval()(case.inputs).argmax(1)
    for classes, expected in {"predicted": predicted, 2: torch.full((4,), 2)}.items():
        found = rt.ContributionTerm("regions", classes=classes).of(case.model, batch)
        check_close(found, slow(case.model, case.inputs, masks, "softmax", classes=expected))
    given = rt.ContributionTerm("regions", classes=torch.tensor([1, 0, 2, 1])).of(case.model, batch)
    check_close(given, slow(case.model, case.inputs, masks, "softmax", classes=[1, 0, 2, 1]))


def test_annotated_regions_are_those_given_as_a_tensor():
    case = pictures()
    region = torch.rand(1, 1, 6, 6, generator=draws(8)) < 0.4
    expected = R.cdep(region).of(case.model, Batch(case.inputs))
    wide = region.expand(1, 3, 6, 6)
    for name, note in {
        "irrelevant": rt.Annotation(irrelevant=region),
        "regions": rt.Annotation(regions=region[None]),
    }.items():
        check_close(R.cdep(name).of(case.model, Batch(case.inputs, None, note)), expected)
    real = rt.Annotation(irrelevant=[*wide.double().expand(3, 3, 6, 6).unbind(), None])
    found = R.cdep("irrelevant").of(case.model, Batch(case.inputs, None, real))
    check_close(found[:-1], expected[:-1])
    assert found[-1] == 0


def test_words_are_regions_too():
    case = words()
    chosen = torch.rand(4, 2, 4, generator=draws(9)) < 0.5
    chosen[-1] = False
    found = R.cdep("regions", loss="log_softmax", classes="label").of(
        case.model, Batch(case.inputs, case.labels, rt.Annotation(regions=chosen))
    )
    check_close(found, slow(case.model, case.inputs, chosen, "log_softmax", classes=case.labels))
    marked = rt.Annotation(irrelevant=[*chosen[:3, 0].double().unbind(), None])
    alone = R.cdep("irrelevant").of(case.model, Batch(case.inputs, None, marked))
    check_close(alone, slow(case.model, case.inputs, chosen[:, :1], "softmax"))


def test_the_colour_of_a_picture_is_a_region_of_its_parts():
    case, space = pictures(), rt.spaces.Parts(rt.spaces.grey_and_colour)
    found = R.cdep(torch.tensor([[False, True]]), loss="l1", space=space, convention="shapley").of(
        case.model, Batch(case.inputs)
    )
    colour = rt.spaces.grey_and_colour(case.inputs)[:, 1]
    parts = rt.attributions.decomposition.decompose(case.model, case.inputs, colour[None], convention="shapley")
    check_close(found, parts.relevant[:, 0].abs().mean(1), tolerance=1e-6)
    assert (found > 0.01).all()


@pytest.mark.parametrize("flat", [True, False])
def test_single_outputs_have_one_class(flat):
    model = nn.Sequential(linear(1), nn.Flatten(0)) if flat else linear(1)
    x, region = normal(4, 6, seed=4), torch.tensor([[True, True, False, False, False, True]])
    terms = [R.cdep(region, classes=classes).of(model, Batch(x, Y.double())) for classes in ("all", "label")]
    check_close(terms[0], terms[1])
    parts = rt.contextual_decomposition(model, x, region)
    expected = torch.sigmoid(parts.relevant - parts.irrelevant).flatten()
    check_close(terms[0], expected)


def test_several_inputs_the_first_of_which_is_decomposed():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = linear(), linear()

        def forward(self, x, z):
            return F.relu(self.one(x)) + self.two(z)

    model, x, z = initialised(Two(), 5), normal(4, 6, seed=1), normal(4, 6, seed=2)
    region = torch.tensor([[True, False, True, False, False, True]])
    parts = rt.contextual_decomposition(model, (x, z), region)
    expected = torch.sigmoid(parts.relevant - parts.irrelevant)[:, 0].mean(1)
    for inputs in ((x, z), {"x": x, "z": z}):
        check_close(R.cdep(region).of(model, Batch(inputs)), expected)


@pytest.mark.parametrize("loss", ["softmax", "l1"])
def test_interactions_are_what_two_regions_do_together(loss):
    case, masks = pictures(), squares(count=3)
    masks[:, 1] &= ~masks[:, 0]
    masks[:, 2] &= ~(masks[:, 0] | masks[:, 1])
    note = rt.Annotation(regions=masks)
    found = rt.ContributionTerm("regions", loss, interactions=True).of(case.model, Batch(case.inputs, None, note))
    expected = []
    for i in range(4):
        values = []
        for a, b in itertools.combinations(masks[i], 2):
            if a.any() and b.any():
                three = torch.stack([a, b, a | b])
                parts = rt.contextual_decomposition(case.model, case.inputs[i : i + 1], three)
                one, two, both = parts.relevant[0]
                together = both - one - two
                rest = parts.outputs[0] - together
                values += [oracle(loss, float(t), float(r)) for t, r in zip(together, rest, strict=True)]
        expected.append(sum(values) / max(len(values), 1))
    check_close(found, torch.tensor(expected, dtype=torch.float64))
    assert (found[1:3] > 1e-4).all()


def test_annotated_targets_are_met_region_by_region():
    case, masks = pictures(), squares()
    parts = rt.contextual_decomposition(case.model, case.inputs, masks)
    wanted = normal(4, 2, seed=11)
    wanted[1, 0] = math.nan
    term = R.cdep("regions", loss="l1", target="annotation")
    found = term.of(case.model, Batch(case.inputs, None, rt.Annotation(regions=masks, targets=wanted)))
    there = masks.flatten(2).any(2) & ~wanted.isnan()
    distance = (parts.relevant - wanted.nan_to_num(0)[..., None]).abs().mean(2)
    check_close(found, (distance * there).sum(1) / there.sum(1).clamp_min(1))
    each = parts.relevant.transpose(1, 2)  # of every class: met exactly
    found = term.of(case.model, Batch(case.inputs, None, rt.Annotation(regions=masks, targets=each.detach())))
    check_close(found, torch.zeros(4, dtype=torch.float64))


# ---- random regions


def test_random_regions_are_squares_inside_the_picture():
    drawn = rt.RandomRegions(count=3, size=2, dims=2).draw(torch.zeros(200, 3, 5, 4), draws(0))
    assert drawn.shape == (200, 3, 1, 5, 4)
    assert (drawn.flatten(2).sum(2) == 4).all()
    rows, columns = drawn.any(-1)[:, :, 0], drawn.any(-2)[:, :, 0]
    assert (rows.sum(-1) == 2).all()
    assert (columns.sum(-1) == 2).all()
    assert all(len({region.numpy().tobytes() for region in regions}) == 3 for regions in drawn)
    assert drawn.flatten(0, 1).any(0).all()  # every pixel is met
    alone = rt.RandomRegions(count=4).draw(torch.zeros(50, 2, 3), draws(0))
    assert alone.shape == (50, 4, 2, 3)
    assert (alone.flatten(2).sum(2) == 1).all()
    assert (alone.flatten(2).sum(1) <= 1).all()


def test_places_are_drawn_as_often_as_their_weights_say():
    weights = torch.tensor([[0.0, 1.0, 2.0], [5.0, 0.0, 2.0]])
    drawn = rt.RandomRegions(dims=2, weights=weights).draw(torch.zeros(20_000, 3, 2, 3), draws(1))
    shares = drawn.double().mean(0)[0, 0]
    assert torch.allclose(shares, weights.double() / 10, atol=0.015)
    assert (shares[weights == 0] == 0).all()


def test_draws_come_from_the_seed_and_change_from_step_to_step():
    case, term = pictures(), R.cdep(rt.RandomRegions(dims=2))

    def steps(seed):
        whole = rt.Objective(unchanging(), F.cross_entropy, [term], seed=seed)
        return [float(whole(case.inputs, case.labels).terms["cdep"].penalty) for _ in range(3)]

    first = steps(0)
    assert first == steps(0)
    assert len({*first, *steps(1)}) == 6
    alone = [float(term.of(case.model, Batch(case.inputs)).sum().detach()) for _ in range(2)]
    assert alone[0] == alone[1]  # without a generator, the same draws


# ---- training

TERMS = {
    "irrelevant": R.cdep("irrelevant"),
    "colour": R.cdep(
        torch.tensor([[False, True]]),
        loss="l1",
        space=rt.spaces.Parts(rt.spaces.grey_and_colour),
        convention="shapley",
    ),
    "random": R.cdep(rt.RandomRegions(2, 2, 2), loss="log_softmax", classes="label"),
    "interactions": rt.ContributionTerm("regions", "l1", 0.5, interactions=True),
    "layer": R.cdep(torch.arange(16).reshape(1, 4, 2, 2) < 5, space=rt.spaces.Layer("3")),
}


@pytest.mark.parametrize("name", TERMS)
def test_parameter_gradients(name):
    case = pictures()
    note = rt.Annotation(irrelevant=squares()[:, 0], regions=squares())
    check_term(objective(case, TERMS[name].with_weight(0.7)), case.inputs, case.labels, note)


@pytest.mark.parametrize("classes", ["all", "label"])
def test_parameter_gradients_of_an_lstm(classes):
    case = words()
    note = rt.Annotation(irrelevant=torch.rand(4, 4, generator=draws(9)) < 0.5)
    term = R.cdep("irrelevant", loss="log_softmax", classes=classes)
    check_term(objective(case, term), case.inputs, case.labels, note)


def test_the_task_takes_its_outputs_from_the_same_pass():
    """With the same total and gradient as with a pass of its own, and only where the mode makes no difference."""
    case = pictures()
    for model, mode, expected in ((unchanging(), True, 1), (case.model, True, 2), (case.model, False, 1)):
        model.train(mode)
        whole = rt.Objective(model, F.cross_entropy, [TERMS["colour"]])
        whole(case.inputs, case.labels)
        calls = []
        with model.register_forward_hook(lambda *_, calls=calls: calls.append(1)):
            report = whole(case.inputs, case.labels)
        assert len(calls) == expected
        if expected == 1:
            task, prior = (whole(case.inputs, case.labels, part=part).total for part in ("task", "prior"))
            check_close(report.outputs, model(case.inputs))
            parameters = list(model.parameters())
            found = torch.autograd.grad(report.total, parameters)
            for own, other in zip(found, torch.autograd.grad(task + prior, parameters), strict=True):
                check_close(own, other)


def test_nothing_of_the_model_is_changed():
    case = pictures()
    case.model.train()
    term = R.cdep(rt.RandomRegions(dims=2))
    check_unchanged(lambda: term.of(case.model, Batch(case.inputs)), case.model, [case.inputs])


@pytest.mark.parametrize("weight", [3.0, "balance"])
def test_it_trains(weight):
    """A shortcut in the first feature, which the penalty takes away."""
    x = normal(256, 6, seed=0).float()
    y = (x[:, 0] > 0).long()
    x[:, 1] = x[:, 0]
    region = torch.arange(6)[None] == 0

    def share(terms):
        model = rt.models.mlp(6, (16,), 2, seed=0)
        rt.fit(rt.Objective(model, F.cross_entropy, terms), (x, y), epochs=20, batch_size=64, lr=1e-2)
        one, other = (
            rt.contextual_decomposition(model, x, torch.arange(6)[None] == k).relevant.abs().mean() for k in (0, 1)
        )
        assert ((model(x).argmax(1) == y).double().mean()) > 0.9
        return float(one / other)

    assert share([]) > 0.5
    assert share([R.cdep(region, loss="l1", weight=weight)]) < 0.2


def test_the_preflight_passes():
    case = pictures()
    note = rt.Annotation(irrelevant=squares()[:, 0])
    case.model.eval()
    report = rt.check(objective(case, R.cdep("irrelevant")), case.inputs, case.labels, note)
    assert report.ok, report


@pytest.mark.parametrize("loss", ["softmax", "log_softmax", "l1"])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_blank_pictures_have_finite_gradients(convention, loss):
    model = unchanging().float()
    for x in (torch.zeros(4, 3, 6, 6), 1e-20 * torch.ones(4, 3, 6, 6)):
        term = R.cdep(rt.RandomRegions(dims=2), loss=loss, convention=convention, weight=1e4)
        whole = rt.Objective(model, F.cross_entropy, [term])
        whole(x, Y).total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_half_precision_is_measured_in_float32():
    model = nn.Linear(6, 3).bfloat16()
    found = R.cdep(torch.arange(6)[None] < 2).of(model, Batch(torch.randn(4, 6, generator=draws(0)).bfloat16()))
    assert found.dtype == torch.float32


# ---- the prior


def test_the_published_losses():
    phi = torch.tensor([[[1.0, 3.0], [2.0, -1.0]]], dtype=torch.float64)  # (B, R, 2)
    assert float(rt.functional.group_contribution(phi)) == pytest.approx(
        (math.e / (math.e + math.e**3) + 1 / (1 + math.exp(-3))) / 2
    )
    assert float(rt.functional.group_contribution(phi, "log_softmax")) == pytest.approx(
        (math.log1p(math.exp(-2)) + math.log1p(math.exp(3))) / 2
    )
    assert float(rt.functional.group_contribution(phi, "l1", 0.5)) == pytest.approx(1.0)
    known = torch.tensor([[True, False]])
    assert float(rt.functional.group_contribution(phi, "l1", known=known)) == pytest.approx(1.0)
    assert float(rt.functional.group_contribution(phi, "l1", known=~known & known)) == 0


def test_everything_else_is_the_sum_of_all_other_parts():
    two, three = torch.tensor([[0.4, 1.5]]), torch.tensor([[0.4, 2.0, -0.5]])
    assert torch.equal(rt.functional.group_contribution(two), rt.functional.group_contribution(three))


# ---- what cannot be used

X = normal(4, 6, seed=4)


def asked(term, note=None, labels=Y, inputs=X):
    return term.of(linear(), Batch(inputs, labels, note))


REGION = torch.arange(6)[None] < 2
WRONG = {
    "unknown loss": (ArgumentError, "softmax", lambda: R.cdep(REGION, loss="l2")),
    "unknown regions": (ArgumentError, "'regions'", lambda: R.cdep("relevant")),
    "regions as numbers": (ArgumentError, "bool", lambda: R.cdep(REGION.float())),
    "unknown class": (ArgumentError, "predicted", lambda: R.cdep(REGION, classes="every")),
    "unknown convention": (ArgumentError, "shapley", lambda: R.cdep(REGION, convention="last")),
    "no space": (ArgumentError, "space", lambda: R.cdep(REGION, space="input")),
    "a target without l1": (ArgumentError, "l1", lambda: R.cdep(REGION, target=1.0)),
    "a target that is no number": (ArgumentError, "target", lambda: R.cdep(REGION, loss="l1", target=math.nan)),
    "an unknown target": (ArgumentError, "target", lambda: R.cdep(REGION, loss="l1", target="label")),
    "negative weight": (ArgumentError, "weight", lambda: R.cdep(REGION, weight=-1.0)),
    "no region": (ArgumentError, "count", lambda: rt.RandomRegions(0)),
    "weights below zero": (ArgumentError, ">= 0", lambda: rt.RandomRegions(weights=-torch.ones(6))),
    "weights as a list": (ArgumentError, "floating", lambda: rt.RandomRegions(weights=[1.0])),
    "weights of too few": (ArgumentError, "at least 2", lambda: rt.RandomRegions(2, weights=torch.tensor([0.0, 1.0]))),
    "regions of other features": (ShapeError, "do not fit", lambda: asked(R.cdep(REGION[:, :5]))),
    "random regions too large": (ShapeError, "sides", lambda: asked(R.cdep(rt.RandomRegions(size=7)))),
    "random regions of too many dimensions": (ShapeError, "sides", lambda: asked(R.cdep(rt.RandomRegions(dims=2)))),
    "more random regions than places": (ShapeError, "too few", lambda: asked(R.cdep(rt.RandomRegions(7)))),
    "other weights": (ShapeError, "places", lambda: asked(R.cdep(rt.RandomRegions(weights=torch.ones(5))))),
    "no annotation": (AnnotationError, "irrelevant", lambda: asked(R.cdep("irrelevant"))),
    "no regions": (AnnotationError, "regions", lambda: asked(R.cdep("regions"), rt.Annotation(irrelevant=REGION))),
    "annotation of others": (
        AnnotationError,
        "fit",
        lambda: asked(R.cdep("irrelevant"), rt.Annotation(irrelevant=REGION[:, :5])),
    ),
    "regions without their dimension": (
        AnnotationError,
        "fit",
        lambda: asked(R.cdep("regions"), rt.Annotation(regions=REGION)),
    ),
    "no targets": (AnnotationError, "targets", lambda: asked(R.cdep(REGION, loss="l1", target="annotation"))),
    "targets of other regions": (
        AnnotationError,
        "fit",
        lambda: asked(R.cdep(REGION, loss="l1", target="annotation"), rt.Annotation(targets=torch.ones(4, 2))),
    ),
    "no labels": (ArgumentError, "labels", lambda: asked(R.cdep(REGION, classes="label"), labels=None)),
    "a class too many": (ArgumentError, "0 to 2", lambda: asked(R.cdep(REGION, classes="label"), labels=Y + 2)),
    "one region alone": (ShapeError, "two", lambda: asked(rt.ContributionTerm(REGION, interactions=True))),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_told(name):
    kind, match, make = WRONG[name]
    with pytest.raises(kind, match=match):
        make()


def test_a_class_is_of_scores():
    model = nn.Sequential(linear(6), nn.Unflatten(1, (2, 3)))
    with pytest.raises(ShapeError, match="classes"):
        R.cdep(REGION, classes="label").of(model, Batch(X, Y % 2))
    assert R.cdep(REGION).of(model, Batch(X)).shape == (4,)  # of all of them


class Restless(nn.Module):
    """Draws random numbers in whatever mode it is."""

    def __init__(self):
        super().__init__()
        self.line = linear()

    def forward(self, x):
        return self.line(x + 0.3 * torch.randn_like(x))


def test_a_model_that_draws_by_itself_is_not_read_once_for_the_task_and_the_term():
    """The pass of the parts draws the same numbers at every step; the task must not."""
    model = Restless()
    asked = R.cdep(torch.tensor([[True, False, False, False, False, False]]))
    inputs = normal(4, 6, seed=5).double()
    whole = rt.Objective(model, F.cross_entropy, [asked])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        losses = [float(whole(inputs, Y).task.detach()) for _ in range(3)]
    assert len(set(losses)) == 3
    assert asked.with_outputs(model, Batch(inputs, Y))[1] is None
    assert asked.with_outputs(linear(), Batch(inputs, Y))[1] is not None


@pytest.mark.parametrize("shape", [(6, 6), (6,), (1, 1, 1, 1, 3, 6, 6)])
def test_regions_of_another_rank_are_told(shape):
    problem = pictures()
    if len(shape) == 1:
        with pytest.raises(ArgumentError):
            R.cdep(torch.ones(shape, dtype=torch.bool))
        return
    with pytest.raises(ShapeError, match="do not fit the space"):
        R.cdep(torch.ones(shape, dtype=torch.bool)).of(problem.model, Batch(problem.inputs, Y))


@pytest.mark.parametrize("weight", [math.inf, math.nan, -1.0])
def test_places_need_usable_weights(weight):
    with pytest.raises(ArgumentError, match="unusable weights"):
        rt.RandomRegions(weights=torch.tensor([1.0, weight]))
