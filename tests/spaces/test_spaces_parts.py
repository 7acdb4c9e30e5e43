"""An example's own parts as a space: derivatives along parts, shares of parts, and priors that forbid one of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import rightly as rt
from rightly.core.errors import ArgumentError, ShapeError
from rightly.spaces import Parts, grey_and_colour

COLOUR = Parts(grey_and_colour)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double()


def images(count: int = 5) -> Tensor:
    return torch.randn(count, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_grey_and_colour_add_up_and_grey_has_no_colour() -> None:
    x = images()
    grey, colour = grey_and_colour(x).unbind(1)
    assert torch.allclose(grey + colour, x, atol=1e-15)
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.allclose(colour.sum(1), torch.zeros_like(colour[:, 0]), atol=1e-14)
    assert float(grey_and_colour(grey)[:, 1].abs().max()) < 1e-15


def test_the_gradient_is_the_derivative_along_each_part() -> None:
    model, x = network(), images()
    phi = rt.Gradient(space=COLOUR, target=1)(model, x).attributions
    assert phi.shape == (5, 2)
    step = 1e-6
    with torch.no_grad():
        for number, part in enumerate(grey_and_colour(x).unbind(1)):
            slope = (model(x + step * part) - model(x - step * part))[:, 1] / (2 * step)
            assert torch.allclose(phi[:, number], slope, atol=1e-8)


def test_occlusion_takes_the_colour_away() -> None:
    model, x = network(), images()
    phi = rt.Occlusion(space=COLOUR, target=0)(model, x).attributions
    grey, colour = grey_and_colour(x).unbind(1)
    with torch.no_grad():
        assert torch.allclose(phi[:, 1], (model(x) - model(grey))[:, 0], atol=1e-12)
        assert torch.allclose(phi[:, 0], (model(x) - model(colour))[:, 0], atol=1e-12)


def test_contextual_decomposition_shares_between_parts() -> None:
    """As decomposing the image with the colour as the relevant part does, the grey being the rest."""
    from rightly.attributions.decomposition import decompose

    model, x = network(), images()
    phi = rt.ContextualDecomposition(space=COLOUR, target=2, convention="shapley")(model, x).attributions
    expected = decompose(model, x, grey_and_colour(x).transpose(0, 1), convention="shapley").relevant[..., 2]
    assert phi.shape == (5, 2)
    # the biases are shared by how much of each part there is, which the two tell a little differently
    assert torch.allclose(phi, expected, atol=0.02 * float(expected.abs().max()))
    assert torch.allclose(phi.sum(1), model(x)[:, 2], atol=1e-10)


def test_what_the_parts_leave_out_stays() -> None:
    model, x = network(), images()
    view = Parts(lambda x: torch.stack([0.3 * x, 0.1 * x.square()], 1)).open(model, x)
    assert torch.allclose(view.rest(view.coordinates, torch.arange(5)), model(x), atol=1e-12)
    with torch.no_grad():
        without = view.rest(torch.zeros(5, 2, dtype=torch.float64), torch.arange(5))
        assert torch.allclose(without, model(0.7 * x - 0.1 * x.square()), atol=1e-12)


def odds(outputs: Tensor, labels: Tensor | None) -> Tensor:
    return outputs[:, 1] - outputs[:, 0]


@pytest.mark.parametrize(
    "attribution",
    [
        rt.Gradient(space=COLOUR, output=odds),
        rt.Occlusion(space=COLOUR, output=odds),
        rt.ContextualDecomposition(space=COLOUR, convention="shapley", output=odds),
    ],
)
def test_a_prior_on_the_colour_trains(attribution: rt.attributions.Attribution) -> None:
    """Each unlearns a label that is in the colour alone."""
    torch.manual_seed(0)
    draws = torch.Generator().manual_seed(0)
    shapes = torch.rand(200, 1, 6, 6, generator=draws)
    labels = torch.randint(2, (200,), generator=draws)
    x = shapes.repeat(1, 3, 1, 1)
    x[labels == 1, 0] *= 2
    colour = rt.Annotation(irrelevant=torch.tensor([[0.0, 1.0]]))
    scores = {}
    for weight in (0.0, 30.0):
        torch.manual_seed(0)
        fresh = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
        objective = rt.Objective(
            fresh, nn.functional.cross_entropy, [rt.Term(attribution, rt.priors.Irrelevant(), weight)]
        )
        rt.fit(objective, (x, labels, colour), epochs=15, batch_size=50, lr=1e-2)
        grey = grey_and_colour(x)[:, 0]
        with torch.no_grad():
            scores[weight] = float((odds(fresh(x), None) - odds(fresh(grey), None)).abs().mean())
    assert scores[30.0] < 0.2 * scores[0.0]


def test_bad_arguments() -> None:
    model, x = network(), images()
    with pytest.raises(ArgumentError, match="made by a function"):
        Parts(torch.ones(2))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="only a space"):
        Parts(grey_and_colour, of="input")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="do not fit the examples"):
        Parts(lambda x: x).open(model, x)
    with pytest.raises(ShapeError, match="colours"):
        grey_and_colour(torch.ones(3, 4))
