"""The space of a layer's output."""

import pytest
import torch
from torch import nn

import rightly as rt
from contracts.problems import Attentive, Recurrent, images, initialised, normal, tokens, vectors
from rightly.core.errors import ArgumentError, ShapeError

ROWS = torch.tensor([1, 1, 0])


def test_by_name_or_as_the_instance():
    problem = vectors()
    by_name = rt.Gradient(space=rt.spaces.Layer("4"))(problem.model, problem.inputs, problem.labels)
    as_such = rt.Gradient(space=rt.spaces.Layer(problem.model[4]))(problem.model, problem.inputs, problem.labels)
    assert torch.equal(by_name.attributions, as_such.attributions)
    assert by_name.attributions.shape == (4, 8)


def test_nested_names():
    model = initialised(Attentive(), 1)
    found = rt.Gradient(space=rt.spaces.Layer("layer.self_attn"))(model, normal(2, 5, 8, seed=1), torch.tensor([0, 1]))
    assert found.attributions.shape == (2, 5, 8)


def test_the_view_cuts_the_model():
    problem = vectors()
    model = problem.model.eval()
    view = rt.spaces.Layer("2").open(model, problem.inputs)
    assert torch.equal(view.coordinates, model[:3](problem.inputs))
    points = normal(3, 8, seed=1)
    assert torch.equal(view.rest(points, ROWS), model[3:](points))
    assert torch.equal(view.encode(problem.inputs[:2]), model[:3](problem.inputs[:2]))
    assert view.coordinates.requires_grad


def test_nothing_runs_behind_the_layer_while_coordinates_are_read():
    runs = []
    problem = vectors()
    problem.model[5].register_forward_hook(lambda module, args, output: runs.append(1))
    rt.spaces.Layer("4").open(problem.model, problem.inputs)
    assert not runs


def test_tuples_are_explained_by_their_first_entry():
    problem = tokens(layer="lstm")
    view = problem.space.open(problem.model, problem.inputs)
    hidden, _ = problem.model.lstm(problem.model.embedding(problem.inputs))
    assert torch.equal(view.coordinates, hidden)
    assert torch.allclose(view.rest(hidden[ROWS], ROWS), problem.model.head(hidden[ROWS][:, -1]), rtol=0, atol=1e-15)


def test_lists_and_tuples_keep_what_follows():
    class Pair(nn.Module):
        def forward(self, x):
            return [x, "kept"]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair = Pair()

        def forward(self, x):
            first, rest = self.pair(x)
            assert rest == "kept"
            return first

    x = normal(3, 2, seed=1)
    assert torch.equal(rt.spaces.Layer("pair").open(Model(), x).rest(x[ROWS], ROWS), x[ROWS])


def test_embeddings_of_token_numbers():
    problem = tokens()
    found = rt.InputXGradient(space=problem.space)(problem.model, problem.inputs, problem.labels)
    assert found.attributions.shape == (3, 4, 4)


def test_other_inputs_stay_with_their_rows():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, x, scale):
            return self.inner(x) * scale[:, None]

    x, scale = normal(3, 2, seed=1), torch.tensor([1.0, 10.0, 100.0]).double()
    view = rt.spaces.Layer("inner").open(Two(), (x, scale))
    assert torch.equal(view.rest(x[ROWS], ROWS), x[ROWS] * scale[ROWS][:, None])


def test_an_unknown_name_suggests_close_ones():
    with pytest.raises(ArgumentError, match="embedding") as caught:
        rt.spaces.Layer("embeding").open(Recurrent(), torch.zeros(1, 2, dtype=torch.long))
    assert "named_modules" in caught.value.mend


def test_a_layer_that_runs_twice_is_refused():
    layer = nn.Linear(4, 4)
    with pytest.raises(ArgumentError, match="exactly once") as caught:
        rt.Gradient(space=rt.spaces.Layer("0"))(nn.Sequential(layer, nn.Tanh(), layer), torch.ones(2, 4), target_of(2))
    assert caught.value.got == 2
    assert not layer._forward_hooks


def target_of(batch):
    return torch.zeros(batch, dtype=torch.long)


def test_a_layer_that_gives_no_floats_is_refused():
    class Index(nn.Module):
        def forward(self, x):
            return x.argmax(1)

    with pytest.raises(ArgumentError, match="cannot be explained"):
        rt.spaces.Layer("0").open(nn.Sequential(Index()), torch.ones(2, 3))


def test_a_layer_without_the_batch_in_front_is_refused():
    model = nn.LSTM(3, 4)  # (time, batch, features)

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = model

        def forward(self, x):
            return self.lstm(x.transpose(0, 1))[0][-1]

    with pytest.raises(ShapeError, match="batch_first"):
        rt.Gradient(space=rt.spaces.Layer("lstm"))(Wrapped(), torch.ones(2, 5, 3), target_of(2))


def test_a_model_that_swallows_exceptions_is_still_read():
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x):
            try:
                return self.inner(x)
            except Exception:  # noqa: BLE001 (that is what is tried)
                return x

    model = Stubborn()
    x = torch.ones(2, 4)
    assert torch.equal(rt.spaces.Layer("inner").open(model, x).coordinates, model.inner(x))


def test_gradients_reach_the_parameters_on_both_sides():
    problem = images(space=rt.spaces.Layer("2"))
    phi = rt.InputXGradient(space=problem.space)(
        problem.model, problem.inputs, problem.labels, create_graph=True
    ).attributions
    found = torch.autograd.grad(phi.square().sum(), [problem.model[0].weight, problem.model[4].weight])
    assert all(g.abs().max() > 0 for g in found)
