"""Annotations that differ by class or live on another grid, and the priors that came with them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nan

import rightly as rt
from contracts.derivatives import check_term
from contracts.problems import draws, images, normal, objective, vectors
from rightly.core.errors import AnnotationError, ArgumentError, ShapeError
from rightly.functional import concept_direction, ranking


def _pairs(phi, inside, outside):
    """By definition, over all pairs."""
    phi, inside, outside = phi.flatten(), inside.flatten(), outside.flatten()
    return sum(
        float(inside[i] * outside[j]) * max(float(phi[j] - phi[i]), 0.0)
        for i in range(len(phi))
        for j in range(len(phi))
    )


@pytest.mark.parametrize("seed", range(5))
def test_ranking_is_the_sum_over_pairs(seed):
    phi = normal(4, 2, 5, seed=seed)
    phi[0] = phi[0].round()  # ties
    inside, outside = torch.rand(4, 2, 5, generator=draws(seed)).double(), normal(4, 2, 5, seed=9).abs()
    inside[1], outside[1] = (inside[1] > 0.5).double(), (inside[1] <= 0.5).double()
    found = ranking(phi, inside, outside)
    assert torch.allclose(
        found, torch.tensor([_pairs(*row) for row in zip(phi, inside, outside, strict=True)]).double()
    )


def test_the_right_order_costs_nothing():
    relevant = torch.tensor([[1, 1, 0, 0]])
    prior, note = rt.priors.Ranking(), rt.Annotation(relevant=relevant)
    assert prior(torch.tensor([[3.0, 2.0, 1.0, -5.0]]), note) == 0
    assert prior(torch.tensor([[3.0, 0.5, 1.0, -5.0]]), note) == 0.5
    assert prior(torch.tensor([[1.0, 1.0, 1.0, 1.0]]), note) == 0
    assert prior(torch.tensor([[3.0, 0.5, 1.0, -5.0]]), rt.Annotation(relevant=torch.tensor([[1, 1, nan, 0]]))) == 0


def test_ranking_has_the_true_gradient():
    problem = images()
    note = rt.Annotation(relevant=normal(3, 2, 6, 6, seed=4) > 0)
    term = rt.Term(rt.InputXGradient(), rt.priors.Ranking())
    check_term(objective(problem, term), problem.inputs, problem.labels, note)


@pytest.mark.parametrize("measure", ["squared", "cosine"])
def test_concept_directions_by_definition(measure):
    phi, way = normal(3, 4, 2, 5, seed=1), normal(4, seed=2)
    found = concept_direction(phi, way, measure)
    for row, value in zip(phi, found, strict=True):
        everywhere = (way / way.norm())[:, None, None].expand(4, 2, 5)
        expected = (row * everywhere).sum() ** 2
        if measure == "cosine":
            expected = expected / (row.square().sum() * everywhere.square().sum())
        assert torch.allclose(value, expected)
    assert torch.allclose(concept_direction(phi, 7 * way, measure), found)
    whole = (way[:, None, None]).expand(4, 2, 5)
    of_all = concept_direction(phi, whole, measure)
    assert torch.allclose(of_all, found if measure == "cosine" else found / 10)


def test_concept_on_a_linear_model_is_the_slope_along_it():
    """The penalty is (w'v)^2 / v'v, and nothing is left of it once v is taken out of w."""
    w, v = normal(6, seed=1), normal(6, seed=2)
    prior = rt.priors.ConceptDirection(v)
    assert torch.allclose(prior(w.expand(3, 6)), ((w @ v) ** 2 / (v @ v)).expand(3))
    assert float(prior((w - (w @ v) / (v @ v) * v)[None])) < 1e-20


@pytest.mark.parametrize("measure", ["squared", "cosine"])
def test_concept_directions_have_the_true_gradient(measure):
    problem = images()
    term = rt.Term(
        rt.Gradient(space=rt.spaces.Layer("2")), rt.priors.ConceptDirection(normal(3, seed=3), measure=measure)
    )
    check_term(objective(problem, term), problem.inputs, problem.labels)


@pytest.mark.parametrize(
    "direction", [torch.zeros(3), torch.tensor([1.0, nan]), [1.0, 2.0], torch.tensor([1, 2]), torch.tensor(1.0)]
)
def test_what_is_no_direction_is_refused(direction):
    with pytest.raises(ArgumentError, match="direction"):
        rt.priors.ConceptDirection(direction)


def test_directions_of_other_spaces_are_refused():
    with pytest.raises(ShapeError, match="does not fit"):
        rt.priors.ConceptDirection(torch.ones(5))(torch.ones(2, 4, 3, 3))
    with pytest.raises(ArgumentError, match="measure"):
        rt.priors.ConceptDirection(torch.ones(4), measure="l1")


# ---- annotations that differ by class


def test_the_row_of_the_class_explained_is_taken():
    marked = normal(4, 3, 6, seed=1) > 0
    problem = vectors()
    by_class = rt.Annotation(irrelevant=marked, per_class=["irrelevant"])
    chosen = rt.Annotation(irrelevant=marked[torch.arange(4), problem.labels])
    term = rt.Term(rt.Gradient(output="log_prob"), rt.priors.Irrelevant())
    totals = [
        objective(problem, term)(problem.inputs, problem.labels, note, part="prior").total
        for note in (by_class, chosen)
    ]
    assert totals[0] == totals[1] > 0
    check_term(objective(problem, term), problem.inputs, problem.labels, by_class)


def test_one_row_a_class_may_hold_for_all_examples():
    marked = normal(1, 3, 2, 6, seed=1) > 0
    note = rt.Annotation(irrelevant=marked, relevant=torch.ones(4, 6), per_class=["irrelevant"])
    phi, target = normal(4, 2, 6, seed=2), torch.tensor([2, 0, 1, 1])
    expected = (phi * marked[0, target]).square().sum((1, 2))
    assert torch.allclose(rt.priors.Irrelevant()(phi, note, target), expected)
    some = note.take(torch.tensor([3, 0]))
    assert torch.allclose(rt.priors.Irrelevant()(phi[[3, 0]], some, target[[3, 0]]), expected[[3, 0]])


@pytest.mark.parametrize("name", ["energy", "match_targets", "ranking"])
def test_every_prior_of_annotations_takes_the_class(name):
    prior = rt.core.registry.find("prior", name).cls()
    field = prior.needs[0]
    values = (normal(4, 3, 6, seed=1) > 0).double()
    phi, target = normal(4, 6, seed=2), torch.tensor([2, 0, 1, 1])
    found = prior(phi, rt.Annotation(**{field: values}, per_class=[field]), target)
    assert torch.equal(found, prior(phi, rt.Annotation(**{field: values[torch.arange(4), target]})))


def test_unknown_rows_of_a_class_cost_nothing():
    values = torch.ones(2, 3, 6)
    values[0, 1] = nan
    found = rt.priors.Irrelevant()(
        torch.ones(2, 6), rt.Annotation(irrelevant=values, per_class=["irrelevant"]), torch.tensor([1, 1])
    )
    assert found.tolist() == [0, 6]


MISTAKES = {
    "no class explained": lambda: rt.priors.Irrelevant()(
        torch.ones(2, 6), rt.Annotation(irrelevant=torch.ones(2, 3, 6), per_class=["irrelevant"])
    ),
    "too few classes": lambda: rt.priors.Irrelevant()(
        torch.ones(2, 6), rt.Annotation(irrelevant=torch.ones(2, 3, 6), per_class=["irrelevant"]), torch.tensor([0, 3])
    ),
    "another batch": lambda: rt.priors.Irrelevant()(
        torch.ones(2, 6), rt.Annotation(irrelevant=torch.ones(3, 3, 6), per_class=["irrelevant"]), torch.tensor([0, 1])
    ),
    "no classes": lambda: rt.Annotation(irrelevant=torch.ones(3), per_class=["irrelevant"]),
    "an unknown field": lambda: rt.Annotation(irrelevant=torch.ones(3, 3), per_class=["masks"]),
    "a name alone": lambda: rt.Annotation(irrelevant=torch.ones(3, 3), per_class="irrelevant"),
    "a tensor": lambda: rt.Annotation(irrelevant=torch.ones(3, 3), per_class=torch.ones(3)),
    "an unknown rule": lambda: rt.Annotation(irrelevant=torch.ones(3, 4, 4)).resized(["irrelevant"], (2, 2), "all"),
    "no picture": lambda: rt.Annotation(irrelevant=torch.ones(3, 4)).resized(["irrelevant"], (2, 2)),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    with pytest.raises(AnnotationError, match="expected"):
        MISTAKES[name]()


def test_right_reasons_of_all_classes_refuse_annotations_of_one():
    problem = vectors()
    note = rt.Annotation(irrelevant=torch.ones(4, 3, 6), per_class=["irrelevant"])
    with pytest.raises(AnnotationError, match="no class is explained"):
        objective(problem, rt.recipes.right_for_the_right_reasons())(problem.inputs, problem.labels, note)


# ---- annotations on another grid


@pytest.mark.parametrize("rule", ["area", "any"])
@pytest.mark.parametrize("size", [(2, 3), (4, 6), (8, 12), (1, 1)])
def test_resizing_takes_what_lies_under_a_cell(rule, size):
    marked = (torch.rand(3, 1, 4, 6, generator=draws(1)) < 0.3).float()
    marked[1, :, :2] = nan
    marked[2] = nan
    found = rt.Annotation(irrelevant=marked).resized(["irrelevant"], size, rule).irrelevant
    assert found.shape == (3, 1, *size)
    assert found[2].isnan().all()
    for b, r, c in torch.cartesian_prod(torch.arange(2), torch.arange(size[0]), torch.arange(size[1])).tolist():
        rows = slice(r * 4 // size[0], -(-(r + 1) * 4 // size[0]))
        columns = slice(c * 6 // size[1], -(-(c + 1) * 6 // size[1]))
        under = marked[b, 0, rows, columns]
        under = under[~under.isnan()]
        expected = nan if not len(under) else float(under.max() if rule == "any" else under.mean())
        assert float(found[b, 0, r, c]) == pytest.approx(expected, nan_ok=True)


def test_resizing_signals_volumes_and_booleans():
    signal = rt.Annotation(relevant=torch.tensor([[True, False, False, False]])).resized(["relevant", "regions"], [2])
    assert signal.relevant.tolist() == [[1, 0]]
    assert signal.regions is None
    volume = rt.Annotation(relevant=torch.eye(4).expand(2, 1, 4, 4, 4)).resized(["relevant"], (2, 2, 2), "area")
    assert volume.relevant[0, 0, 0].tolist() == [[0.5, 0], [0, 0.5]]


def test_one_annotation_serves_the_input_and_a_layer():
    """(B, 1, 6, 6) for the input's two channels and for the three of maps half as large."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3, 2, 1), torch.nn.Softplus(), torch.nn.Flatten(), torch.nn.Linear(27, 3)
    ).double()
    problem = images()
    marked = torch.zeros(3, 1, 6, 6)
    marked[:, :, :1, :3] = 1
    note = rt.Annotation(irrelevant=marked)
    method = rt.Gradient(space=rt.spaces.Layer("1"))
    phi = method(model, problem.inputs, problem.labels).attributions
    assert torch.allclose(
        rt.priors.Resized(rt.priors.Irrelevant())(phi, note), phi[:, :, :1, :2].square().sum((1, 2, 3))
    )
    area = torch.tensor([0.5, 0.25])  # of four pixels under a cell, two and one are marked
    expected = (phi[:, :, 0, :2] * area).square().sum((1, 2))
    assert torch.allclose(rt.priors.Resized(rt.priors.Irrelevant(), "area")(phi, note), expected)
    terms = [rt.recipes.right_for_the_right_reasons(1.0), rt.recipes.right_for_the_right_reasons(1.0, layer="1")]
    terms[1] = rt.Term(terms[1].attribution, terms[1].prior, 1.0, "at the layer")
    check_term(rt.Objective(model, F.cross_entropy, terms), problem.inputs, problem.labels, note)


def test_resized_needs_a_prior_of_annotations():
    for made in (lambda: rt.priors.Resized(rt.priors.L1()), lambda: rt.priors.Resized("irrelevant")):
        with pytest.raises(ArgumentError, match="what a prior reads"):
            made()
    with pytest.raises(ArgumentError, match="unknown rule"):
        rt.priors.Resized(rt.priors.Irrelevant(), "all")


# ---- boxes


def test_boxes_become_masks():
    boxes = [torch.tensor([[1, 0, 3, 2], [3.5, 2.0, 9.0, 3.0]]), torch.zeros(0, 4), None]
    masks = rt.data.box_masks(boxes, 3, 5)
    assert masks.shape == (3, 1, 3, 5)
    assert masks[0, 0].tolist() == [[0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]]
    assert not masks[1].any()
    assert masks[2].isnan().all()
    note = rt.Annotation(relevant=masks)
    assert rt.priors.Energy()(torch.ones(3, 2, 3, 5), note).tolist() == pytest.approx([9 / 15, 1, 0])


@pytest.mark.parametrize("boxes", [torch.ones(4), torch.ones(1, 5), torch.tensor([[2.0, 0, 1, 1]])])
def test_what_is_no_box_is_refused(boxes):
    with pytest.raises(AnnotationError, match="not boxes"):
        rt.data.box_masks([boxes], 4, 4)


@pytest.mark.parametrize("measure", ["squared", "cosine"])
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_the_size_of_a_concept_direction_does_not_matter(measure, precision):
    phi = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    way = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=precision)
    found = rt.priors.ConceptDirection(way, measure=measure).penalty(phi, None, None)
    for size in (1e-25, 1e25, *((1e-50, 1e200) if precision == torch.float64 else ())):
        scaled = rt.priors.ConceptDirection(size * way, measure=measure).penalty(phi, None, None)
        assert torch.allclose(scaled, found), size
