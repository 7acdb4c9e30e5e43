"""Disentangled latents in front of a classifier (Ross 2018, 4.4): explanations and priors that act on factors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts.agreement import check_close
from contracts.derivatives import check_term
from contracts.problems import normal

#: ten numbers made of two factors by a known mixing, with a little noise
MIX = torch.linalg.qr(normal(10, 2, seed=1))[0]
FACTORS = normal(300, 2, seed=2)


class Coder(nn.Module):
    """An autoencoder that disentangles: its code is the two factors."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(10, 2, bias=False)
        self.decoder = nn.Linear(2, 10, bias=False)
        with torch.no_grad():
            self.encoder.weight.copy_(MIX.T)
            self.decoder.weight.copy_(MIX)

    def forward(self, x):
        return self.decoder(self.encoder(x))


def _data(confounded):
    """The label is the sign of both factors; when it is not confounded, of the first alone."""
    factors = FACTORS.clone()
    if confounded:
        factors[:, 1] = factors[:, 0].sign() * factors[:, 1].abs()
    return (factors @ MIX.T).float(), (factors[:, 0] > 0).long()


def _accuracy(model):
    x, y = _data(False)
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


def _head(width):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, 16), nn.Tanh(), nn.Linear(16, 2))


#: the second factor is not to be relied on
SECOND = rt.Annotation(irrelevant=torch.tensor([[False, True]]))


def _prepended():
    """The encoder with fixed weights, and the classifier behind it: the latent is a layer."""
    coder = Coder().requires_grad_(False)
    return nn.Sequential(coder.encoder, _head(2)), rt.spaces.Layer("0")


def _through_the_decoder():
    """As the thesis describes it: encode, decode, classify the decoded input; the latent is a space."""
    coder = Coder().requires_grad_(False)
    return _head(10), rt.spaces.Latent(coder.encoder, coder.decoder)


@pytest.mark.parametrize("make", [_prepended, _through_the_decoder])
def test_right_reasons_in_a_latent_make_the_classifier_insensitive_to_a_factor(make):
    x, y = _data(True)
    found = {}
    for weight in (0.0, 30.0):
        model, space = make()
        term = rt.Term(rt.Gradient(space=space, output="log_odds"), rt.priors.Irrelevant(), weight)
        rt.fit(rt.Objective(model, F.cross_entropy, [term]), (x, y, SECOND), epochs=60, batch_size=100, lr=0.02)
        slopes = rt.Gradient(space=space, output="log_odds")(model, x, y).attributions.abs().mean(0)
        found[weight] = _accuracy(model), float(slopes[1] / slopes[0])
    assert found[0.0][0] < 0.9
    assert found[30.0][0] > 0.95
    assert found[30.0][1] < 0.2 * found[0.0][1]


@pytest.mark.parametrize("make", [_prepended, _through_the_decoder])
def test_the_fixed_weights_stay_and_the_gradient_of_the_others_is_true(make):
    model, space = make()
    model.double()
    if isinstance(space, rt.spaces.Latent):
        space.encoder.double(), space.decoder.double()
    x, y = normal(4, 10, seed=3), torch.tensor([0, 1, 1, 0])
    objective = rt.Objective(model, F.cross_entropy, [rt.Term(rt.Gradient(space=space), rt.priors.L2())])
    check_term(objective, x, y)
    fixed = space.encoder if isinstance(space, rt.spaces.Latent) else model[0]
    before = fixed.weight.clone()
    rt.fit(objective, (x, y), epochs=2, batch_size=2)
    assert torch.equal(fixed.weight, before)
    assert fixed.weight.grad is None


def test_a_linear_code_is_principal_components():
    """PCA's components in front are rt.spaces.Linear, up to their signs and order."""
    x = _data(False)[0].double()
    _, _, ways = torch.linalg.svd(x, full_matrices=False)
    space = rt.spaces.Linear(ways[:2])
    model = _head(10).double()
    y = torch.zeros(len(x), dtype=torch.long)
    found = rt.Gradient(space=space)(model, x, y).attributions
    check_close(found, rt.Gradient()(model, x, y).attributions @ ways[:2].T)
