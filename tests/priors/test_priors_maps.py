"""Smoothness: total variation and graphs."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rightly as rt
from contracts import oracles
from contracts.problems import draws, normal
from rightly.core.errors import ArgumentError, ShapeError
from rightly.functional import edge_list, graph_smoothness, total_variation


@pytest.mark.parametrize("floor", [None, 1e-6, 3.0])
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize(
    ("shape", "dims"),
    [((7,), 1), ((2, 7), 1), ((4, 5), 2), ((3, 4, 5), 2), ((2, 3, 4), 3), ((2, 2, 3, 4), 3), ((1, 1), 2), ((4, 1), 2)],
)
def test_total_variation_is_the_sum_over_neighbours(shape, dims, standardize, floor):
    phi = normal(3, *shape, seed=1)
    found = total_variation(phi, dims, standardize, floor)
    expected = [oracles.total_variation(row, dims, standardize, floor) for row in phi]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_standardised_maps_do_not_care_about_shift_and_scale():
    phi = normal(2, 1, 5, 5, seed=2)
    first = total_variation(phi)
    assert torch.allclose(total_variation(100 * phi + 7), first, rtol=1e-10)
    assert torch.allclose(total_variation(100 * phi, standardize=False), 100 * total_variation(phi, standardize=False))


def test_the_floor_of_the_published_code():
    """tf.image.per_image_standardization: (x - mean) / max(std, 1 / sqrt(pixels)) with the population's std."""
    phi = 1e-3 * normal(1, 1, 4, 6, seed=3)
    assert phi.std() < 1 / math.sqrt(24)
    expected = total_variation(phi, standardize=False) * math.sqrt(24)
    assert torch.allclose(total_variation(phi), expected, rtol=1e-12)


def test_flat_maps_have_no_variation_and_no_gradient():
    phi = torch.full((2, 1, 4, 4), 0.3, requires_grad=True)
    value = total_variation(phi)
    assert value.abs().max() < 1e-5
    assert torch.autograd.grad(value.sum(), phi)[0].isfinite().all()


def test_channels_are_summed_first():
    phi = normal(2, 3, 4, 4, seed=4)
    assert torch.allclose(total_variation(phi), total_variation(phi.sum(1, keepdim=True)))


@st.composite
def adjacencies(draw):
    p = draw(st.integers(2, 7))
    entries = draw(st.lists(st.one_of(st.just(0.0), st.floats(0.1, 5)), min_size=p * p, max_size=p * p))
    upper = torch.tensor(entries, dtype=torch.float64).reshape(p, p).triu()
    return upper + upper.triu(1).T


KINDS = ("unnormalized", "symmetric", "random-walk")


@given(adjacencies(), st.integers(0, 9), st.sampled_from(KINDS), st.booleans())
def test_graphs_are_their_laplacians(adjacency, seed, kind, signed):
    v = torch.randn(3, len(adjacency), generator=draws(seed), dtype=torch.float64)
    sizes = v if signed else v.abs()
    matrix = oracles.laplacian(adjacency, kind)
    expected = torch.stack([oracles.smoothness_of(row, matrix, kind) for row in sizes])
    layouts = [adjacency, adjacency.to_sparse_coo(), adjacency.to_sparse_coo().coalesce()]
    for layout in layouts:
        prior = rt.priors.GraphSmoothness(layout, laplacian=kind, signed=signed, level="example")
        assert torch.allclose(prior(v), expected, rtol=1e-10, atol=1e-10)
    batch = rt.priors.GraphSmoothness(adjacency, laplacian=kind, signed=signed)
    assert torch.allclose(batch(v), oracles.smoothness_of(sizes.mean(0), matrix, kind), rtol=1e-10, atol=1e-10)


def test_what_each_laplacian_lets_pass():
    """A star: equal importances cost nothing, but the symmetric one wants the square root of the degrees."""
    star = torch.zeros(5, 5, dtype=torch.float64)
    star[0, 1:4] = star[1:4, 0] = 1  # the fifth node has no edge
    equal, by_degree = torch.ones(1, 5).double(), torch.tensor([[3**0.5, 1, 1, 1, 7]]).double()
    for kind in KINDS:
        prior = rt.priors.GraphSmoothness(star, laplacian=kind)
        free = by_degree if kind == "symmetric" else equal
        assert float(prior(free)) == pytest.approx(0, abs=1e-12)
        assert float(prior(equal if kind == "symmetric" else by_degree)) > 0.1
    one_leaf = torch.tensor([[0, 1.0, 0, 0, 0]]).double()
    found = [float(rt.priors.GraphSmoothness(star, laplacian=kind)(one_leaf)) for kind in KINDS]
    assert found == pytest.approx([1, 1, 1 + 1 / 9])


def test_unknown_laplacians_are_refused():
    with pytest.raises(ArgumentError, match="random-walk"):
        rt.priors.GraphSmoothness(torch.ones(3, 3), laplacian="normalized")
    with pytest.raises(ArgumentError, match="random-walk"):
        rt.functional.graph_smoothness(torch.ones(3), torch.tensor([[0], [1]]), torch.ones(1), "normalized")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
@pytest.mark.parametrize("layout", ["dense", "coo", "csr"])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")
def test_edges_of_any_kind_of_matrix(layout, dtype):
    if layout != "dense" and dtype == torch.bool:
        dtype = torch.int32  # PyTorch does not add up boolean sparse tensors
    matrix = torch.tensor([[5, 1, 0], [1, 0, 1], [0, 1, 0]]).to(dtype)
    given_as = {"dense": matrix, "coo": matrix.to_sparse_coo(), "csr": matrix.to_sparse_csr()}[layout]
    edges, weights = edge_list(given_as)
    assert edges.tolist() == [[0, 1], [1, 2]]
    assert weights.tolist() == [1, 1]
    assert float(rt.priors.GraphSmoothness(given_as, laplacian="symmetric")(torch.tensor([[1.0, 2.0, 4.0]]))) > 0


def test_large_graphs_stay_sparse():
    """A path of 100 000 nodes: a dense Laplacian would take 40 GB."""
    n = 100_000
    left = torch.arange(n - 1)
    edges = torch.stack([torch.cat([left, left + 1]), torch.cat([left + 1, left])])
    adjacency = torch.sparse_coo_tensor(edges, torch.ones(2 * (n - 1)), (n, n), check_invariants=True)
    prior = rt.priors.GraphSmoothness(adjacency)
    assert float(prior(torch.arange(float(n))[None])) == pytest.approx(n - 1)


def test_features_pick_the_nodes():
    adjacency = torch.tensor([[0.0, 2.0], [2.0, 0.0]])
    prior = rt.priors.GraphSmoothness(adjacency, features=torch.tensor([4, 1]))
    phi = torch.tensor([[9.0, 1.0, 9.0], [9.0, 4.0, 9.0]])[None]
    assert float(prior(phi)) == 2.0 * (4.0 - 1.0) ** 2
    assert graph_smoothness(torch.tensor([1.0, 4.0]), torch.tensor([[0], [1]]), torch.tensor([2.0])) == 18.0


def test_graphs_that_are_none():
    for bad in (torch.ones(2, 3), torch.tensor([[0.0, 1.0], [2.0, 0.0]]), -torch.ones(2, 2)):
        with pytest.raises(ArgumentError):
            edge_list(bad)
    with pytest.raises(ShapeError, match="features="):
        rt.priors.GraphSmoothness(torch.ones(2, 2))(torch.ones(1, 3))
