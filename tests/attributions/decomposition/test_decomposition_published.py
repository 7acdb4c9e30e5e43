"""The published recursions, written out number by number from the papers' equations, against the rules."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from attributions.decomposition import acd_scores
from attributions.decomposition.models import MnistNet, Recurrent, calibrated
from contracts.problems import draws, normal
from rightly.attributions.decomposition import Convention

#: the requirement is 1e-6
CLOSE = 1e-12
TINY = 1e-20


# ---- Singh et al. (2022), equations 5 to 8, two arrays beside each other


def biased(relevant: np.ndarray, irrelevant: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equations 5 and 6, with the authors' 1e-20 on both sizes."""
    first, second = np.abs(relevant) + TINY, np.abs(irrelevant) + TINY
    return relevant + first / (first + second) * bias, irrelevant + second / (first + second) * bias


def convolved(image: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(C, H, W) with (O, C, k, k), without a border."""
    k = weight.shape[2]
    height, width = image.shape[1] - k + 1, image.shape[2] - k + 1
    made = np.zeros((len(weight), height, width))
    for o, y, x in itertools.product(range(len(weight)), range(height), range(width)):
        made[o, y, x] = (image[:, y : y + k, x : x + k] * weight[o]).sum()
    return made


def pooled(relevant: np.ndarray, irrelevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2 x 2, both parts from where the sum is largest."""
    channels, height, width = relevant.shape[0], relevant.shape[1] // 2, relevant.shape[2] // 2
    parts = np.zeros((2, channels, height, width))
    for c, y, x in itertools.product(range(channels), range(height), range(width)):
        window = (c, slice(2 * y, 2 * y + 2), slice(2 * x, 2 * x + 2))
        best = np.argmax((relevant + irrelevant)[window])
        parts[:, c, y, x] = relevant[window].flat[best], irrelevant[window].flat[best]
    return parts[0], parts[1]


def bent(relevant: np.ndarray, irrelevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equations 7 and 8."""
    first = np.maximum(relevant, 0)
    return first, np.maximum(relevant + irrelevant, 0) - first


def digits(model: MnistNet, image: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    parts = (image * region, image * ~region)
    for layer in (model.conv1, model.conv2):
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        parts = bent(*pooled(*biased(*(convolved(part, weight) for part in parts), bias[:, None, None])))
    parts = tuple(part.ravel() for part in parts)
    for layer in (model.fc1, model.fc2):
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        parts = biased(*(weight @ part for part in parts), bias)
        parts = bent(*parts) if layer is model.fc1 else parts
    return parts


@pytest.mark.parametrize("blank", [False, True], ids=["everywhere", "with blank areas"])
def test_digits(blank):
    """A blank area has units that nothing reaches: half of their biases to each, also to an empty region."""
    inputs = normal(2, 1, 16, 16, seed=1)
    if blank:
        inputs[:, :, :, 6:] = 0
    model = calibrated(MnistNet(), inputs)
    regions = torch.zeros(4, 1, 16, 16, dtype=torch.bool)
    regions[1, 0, 2:9, 1:5], regions[2, 0, 7, 3] = True, True
    regions[3] = torch.rand(1, 16, 16, generator=draws(2)) < 0.5
    found = rt.contextual_decomposition(model, inputs, regions, convention="published")
    for b, r in itertools.product(range(2), range(4)):
        relevant, irrelevant = digits(model, inputs[b].numpy(), regions[r].numpy())
        assert np.abs(found.relevant[b, r].numpy() - relevant).max() < CLOSE
        assert np.abs(found.irrelevant[b, r].numpy() - irrelevant).max() < CLOSE
    assert bool((found.relevant[:, 0].abs().max() > 1e-3) == blank)
    assert found.relevant[:, 3].abs().max() > 0.1


def test_batch_norm_and_average_pooling():
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.LeakyReLU(0.2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)
    )
    inputs = normal(2, 2, 6, 6, seed=3)
    calibrated(model, inputs)
    region = torch.rand(1, 2, 6, 6, generator=draws(4)) < 0.5
    conv, norm, _, _, _, last = model
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().numpy()[:, None, None]
    shift = norm.bias.detach().numpy()[:, None, None] - norm.running_mean.numpy()[:, None, None] * scale
    found = rt.contextual_decomposition(model, inputs, region, convention="published")
    for b in range(2):
        image, chosen = inputs[b].numpy(), region[0].numpy()
        parts = [convolved(part, conv.weight.detach().numpy()) for part in (image * chosen, image * ~chosen)]
        parts = biased(*parts, conv.bias.detach().numpy()[:, None, None])
        relevant, irrelevant = biased(*(part * scale for part in parts), shift)
        total = np.where(relevant + irrelevant > 0, 1, 0.2) * (relevant + irrelevant)
        relevant = np.where(relevant > 0, 1, 0.2) * relevant
        means = [part.reshape(3, 2, 2, 2, 2).mean((2, 4)).ravel() for part in (relevant, total - relevant)]
        relevant, _ = biased(*(last.weight.detach().numpy() @ part for part in means), last.bias.detach().numpy())
        assert np.abs(found.relevant[b, 0].numpy() - relevant).max() < CLOSE


# ---- Murdoch et al. (2018), section 3.2


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def three(f, relevant, irrelevant, bias):
    """Shapley's average of the orders in which the bias comes first; what the bias does alone stays apart."""
    first = (f(relevant + bias) - f(bias) + f(relevant + irrelevant + bias) - f(irrelevant + bias)) / 2
    second = (f(irrelevant + bias) - f(bias) + f(relevant + irrelevant + bias) - f(relevant + bias)) / 2
    return first, second, f(bias)


def two(f, relevant, irrelevant):
    both = f(relevant + irrelevant)
    return (f(relevant) + both - f(irrelevant)) / 2, (f(irrelevant) + both - f(relevant)) / 2


def sentence(lstm: nn.LSTM, words: np.ndarray, start: int, stop: int, last: bool) -> tuple[np.ndarray, np.ndarray]:
    """Relevant and irrelevant hidden states after the last word, for the words start to stop."""
    w, u = lstm.weight_ih_l0.detach().numpy(), lstm.weight_hh_l0.detach().numpy()
    bias = (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach().numpy()
    size = u.shape[1]
    rows = {name: slice(k * size, (k + 1) * size) for k, name in enumerate("ifgo")}
    h, g, c, k = (np.zeros(size) for _ in range(4))  # hidden and cell: relevant h, c, irrelevant g, k
    for t, word in enumerate(words):
        inside = start <= t <= stop
        x, y = (word, 0 * word) if inside else (0 * word, word)
        relevant, irrelevant = w @ x + u @ h, w @ y + u @ g
        gates = {
            name: three(np.tanh if name == "g" else sigmoid, relevant[at], irrelevant[at], bias[at])
            for name, at in rows.items()
            if name != "o"
        }
        (ri, ii, bi), (rf, i_f, bf), (rg, ig, bg) = gates["i"], gates["f"], gates["g"]
        new = ri * (rg + bg) + bi * rg
        other = ii * (rg + ig + bg) + (ri + bi) * ig
        if start <= t and (t <= stop if last else t < stop):
            new = new + bi * bg
        else:
            other = other + bi * bg
        c, k = new + (rf + bf) * c, other + (rf + i_f + bf) * k + i_f * c
        open_ = sigmoid((relevant + irrelevant)[rows["o"]] + bias[rows["o"]])
        shown, hidden = two(np.tanh, c, k)
        h, g = open_ * shown, open_ * hidden
    return h, g


@pytest.mark.parametrize("span_end", ["inclusive", "exclusive"])
def test_sentences(span_end):
    words = normal(1, 7, 5, seed=5)
    model = calibrated(Recurrent("LSTM", False), words)
    spans = [(a, b) for a in range(7) for b in range(a, 7)]
    regions = torch.zeros(len(spans), 7, 1, dtype=torch.bool)
    for region, (a, b) in zip(regions, spans, strict=True):
        region[a : b + 1] = True

    class LastState(nn.Module):
        def forward(self, x):
            return model.rnn(x)[0][:, -1]

    chosen = Convention(share="half", soft=0.0, span_end=span_end)
    found = rt.contextual_decomposition(LastState(), words, regions, convention=chosen)
    for r, (a, b) in enumerate(spans):
        relevant, irrelevant = sentence(model.rnn, words[0].numpy(), a, b, span_end == "inclusive")
        assert np.abs(found.relevant[0, r].numpy() - relevant).max() < CLOSE
        assert np.abs(found.irrelevant[0, r].numpy() - irrelevant).max() < CLOSE
    assert found.relevant.abs().max() > 0.1


# ---- Shapley values, counted over all orders


def shapley(value, players: int) -> list[float]:
    """Mean over all orders of what each player adds."""
    found = [0.0] * players
    for order in itertools.permutations(range(players)):
        there: set[int] = set()
        for player in order:
            before = value(there)
            there = there | {player}
            found[player] += (value(there) - before) / math.factorial(players)
    return found


FUNCTIONS = {
    "relu": F.relu, "leaky_relu": F.leaky_relu, "gelu": F.gelu, "tanh": torch.tanh, "silu": F.silu, "abs": torch.abs,
    "square": torch.square, "cube": lambda x: x**3, "elu": F.elu, "softsign": F.softsign, "hardtanh": F.hardtanh,
    "expm1": torch.expm1, "mish": F.mish, "sin": torch.sin,
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_unary_layer_has_the_shapley_value_of_two_players(name):
    """Of the game whose players are the region and the rest, absent ones being zero."""
    function, weight = FUNCTIONS[name], normal(6, 4, seed=6)
    inputs, regions = normal(3, 6, seed=7), torch.rand(5, 6, generator=draws(8)) < 0.5
    found = rt.contextual_decomposition(lambda x: function(x @ weight), inputs, regions, convention="shapley").relevant
    for b, r, unit in itertools.product(range(3), range(5), range(4)):
        groups = [regions[r], ~regions[r]]

        def value(there, b=b, groups=groups, unit=unit):
            x = sum((inputs[b] * groups[p] for p in there), torch.zeros(6, dtype=torch.float64))
            return float(function(x @ weight[:, unit]))

        assert abs(float(found[b, r, unit]) - shapley(value, 2)[0]) < CLOSE


def test_products_have_the_shapley_value_of_two_players():
    left, right = normal(6, 4, seed=9), normal(6, 4, seed=10)
    inputs, regions = normal(3, 6, seed=7), torch.rand(5, 6, generator=draws(8)) < 0.5
    found = rt.contextual_decomposition(lambda x: (x @ left) * (x @ right), inputs, regions).relevant
    for b, r in itertools.product(range(3), range(5)):
        groups = [regions[r], ~regions[r]]

        def value(there, b=b, groups=groups):
            x = sum((inputs[b] * groups[p] for p in there), torch.zeros(6, dtype=torch.float64))
            return float(((x @ left) * (x @ right))[2])

        assert abs(float(found[b, r, 2]) - shapley(value, 2)[0]) < CLOSE


def test_a_linear_model_has_its_parts():
    """Without biases the parts of a partition add up to the output, and each is W (mask x)."""
    model = nn.Sequential(nn.Linear(6, 5, bias=False), nn.Linear(5, 3, bias=False)).double()
    inputs, regions = normal(4, 6, seed=11), torch.eye(6, dtype=torch.bool)
    found = rt.contextual_decomposition(model, inputs, regions)
    expected = model(inputs.unsqueeze(1) * regions).detach()
    assert (found.relevant - expected).abs().max() < CLOSE
    assert (found.relevant.sum(1) - found.outputs).abs().max() < CLOSE


def test_a_bias_is_divided_as_the_parts_are():
    model = nn.Linear(2, 1).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -3.0]]))
        model.bias.fill_(8.0)
    exact = Convention(soft=0.0)
    found = rt.contextual_decomposition(
        model, torch.ones(1, 2).double(), torch.eye(2, dtype=torch.bool), convention=exact
    )
    assert torch.allclose(found.relevant[0, :, 0], torch.tensor([1 + 8 / 4, -3 + 8 * 3 / 4], dtype=torch.float64))


# ---- what the authors' package gives


@pytest.fixture(scope="module")
def stored():
    with np.load(acd_scores.FILE, allow_pickle=False) as file:
        return dict(file)


#: the requirement is 1e-6
AGREED = 1e-12


def agree(found: torch.Tensor, theirs: np.ndarray) -> bool:
    size = np.abs(theirs).max()
    assert size > 0.1
    return bool(np.abs(found.numpy() - theirs).max() < AGREED * size)


def test_pictures_get_the_scores_of_the_authors_package(stored):
    model = acd_scores.given(stored, "pictures", acd_scores.pictures())
    images, regions = (torch.from_numpy(stored[name]) for name in ("images", "regions"))
    found = rt.contextual_decomposition(model, images, regions, convention="published")
    assert agree(found.relevant, stored["relevant"])
    assert agree(found.irrelevant, stored["rest"])
    # and only that convention gives them
    assert not agree(
        rt.contextual_decomposition(model, images, regions, convention="shapley").relevant, stored["relevant"]
    )


def test_phrases_get_the_scores_of_the_authors_package(stored):
    model, tokens = acd_scores.given(stored, "sentences", acd_scores.sentences()), torch.from_numpy(stored["tokens"])
    regions = torch.zeros(len(acd_scores.spans()), acd_scores.WORDS, 1, dtype=torch.bool)
    for region, (first, last) in zip(regions, acd_scores.spans(), strict=True):
        region[first : last + 1] = True
    space = rt.spaces.Layer("embed")
    found = rt.contextual_decomposition(model, tokens, regions, convention="published", space=space)
    assert agree(found.relevant[0], stored["spans"])
    assert agree(found.irrelevant[0], stored["spans_rest"])
    exclusive = Convention(share="half", soft=0.0, span_end="exclusive")
    other = rt.contextual_decomposition(model, tokens, regions, convention=exclusive, space=space)
    assert not agree(other.relevant[0], stored["spans"])


def test_the_stored_scores_are_what_the_package_gives(stored):
    pytest.importorskip("acd", reason="the authors' package, acd 0.0.2, is not installed: only its scores are stored")
    for name, value in acd_scores.scores(stored).items():
        assert np.allclose(value, stored[name], rtol=1e-9, atol=1e-12)
