"""Recurrent layers with many regions at once: those that were the same so far are one, and come out as if alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import rightly as rt
from attributions.decomposition.models import Recurrent, calibrated
from contracts.problems import normal
from rightly.attributions.decomposition import CONVENTIONS, Convention
from rightly.attributions.decomposition.rules import recurrent
from rightly.attributions.decomposition.rules.prefixes import alike, forks

STEPS, WIDTH, CLOSE = 6, 5, 1e-12
HOW = {**CONVENTIONS, "exclusive": Convention(span_end="exclusive")}
KINDS = {
    "lstm": lambda: nn.LSTM(WIDTH, 4, batch_first=True),
    "lstm, without biases": lambda: nn.LSTM(WIDTH, 4, batch_first=True, bias=False),
    "lstm, projected, three layers": lambda: nn.LSTM(WIDTH, 4, num_layers=3, proj_size=3, batch_first=True),
    "lstm, two layers, both ways": lambda: nn.LSTM(WIDTH, 4, num_layers=2, bidirectional=True, batch_first=True),
    "gru, two layers": lambda: nn.GRU(WIDTH, 4, num_layers=2, batch_first=True),
    "gru, two layers, both ways": lambda: nn.GRU(WIDTH, 4, num_layers=2, bidirectional=True, batch_first=True),
    "rnn, relu, two layers": lambda: nn.RNN(WIDTH, 4, num_layers=2, nonlinearity="relu", batch_first=True),
    "rnn, both ways": lambda: nn.RNN(WIDTH, 4, bidirectional=True, batch_first=True),
}


def spans(steps: int) -> torch.Tensor:
    """(R, T, 1), all spans."""
    first, last = torch.triu_indices(steps, steps)
    place = torch.arange(steps)
    return ((place >= first[:, None]) & (place <= last[:, None])).unsqueeze(-1)


def mixed() -> torch.Tensor:
    """Spans, some twice, nothing, everything, holes, and features of words, in disorder."""
    whole = spans(STEPS).expand(-1, -1, WIDTH)
    draws = torch.Generator().manual_seed(1)
    holes = torch.rand(6, STEPS, 1, generator=draws).lt(0.5).expand(-1, -1, WIDTH)
    features = torch.rand(4, STEPS, WIDTH, generator=draws) < 0.5
    found = torch.cat([whole, whole[:3], holes, features, torch.zeros_like(whole[:1]), torch.ones_like(whole[:1])])
    return found[torch.randperm(len(found), generator=draws)]


def sentences(blank: bool = False) -> torch.Tensor:
    """(2, T, I); some words are nothing, or next to nothing, where it is the region's size that says whose biases."""
    words = normal(2, STEPS, WIDTH, seed=5)
    if blank:
        words[:, 0] = 0
        words[0, 3] = 0
        words[1, 4] *= 1e-20
    return words


class Both(nn.Module):
    """All hidden states and the last states."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden, ends = self.layer(x)
        ends = ends if isinstance(ends, tuple) else (ends,)
        return torch.cat([hidden.flatten(1), *(end.transpose(0, 1).flatten(1) for end in ends)], 1)


def alone(model, words, regions, **options) -> torch.Tensor:
    """One region after the other, which goes through the layer step by step on its own."""
    found = [rt.contextual_decomposition(model, words, region[None], **options).relevant for region in regions]
    return torch.cat(found, 1)


@pytest.mark.parametrize("blank", [False, True], ids=["words", "blanks"])
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", KINDS)
def test_regions_together_are_what_they_are_alone(kind, how, blank):
    words, regions = sentences(blank), mixed()
    model = calibrated(Both(KINDS[kind]()), words)
    found = rt.contextual_decomposition(model, words, regions, convention=HOW[how]).relevant
    expected = alone(model, words, regions, convention=HOW[how])
    assert expected.abs().max() > 0.1
    assert (found - expected).abs().max() < CLOSE * expected.abs().max()
    # where each example has its own, none are alike
    own = torch.stack([regions, regions.flip(0)])
    turned = rt.contextual_decomposition(model, words, own, convention=HOW[how]).relevant
    assert (turned - torch.stack([expected[0], expected[1].flip(0)])).abs().max() < CLOSE * expected.abs().max()


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_lengths_that_differ(kind):
    words, regions = sentences(), spans(STEPS)
    model = calibrated(Recurrent(kind, False, packed=True, num_layers=2, bidirectional=True), words)
    found = rt.contextual_decomposition(model, words, regions).relevant
    assert (found - alone(model, words, regions)).abs().max() < CLOSE * found.abs().max()


def test_regions_that_come_apart_before_the_first_step():
    """The first states of a decoder are the region's before the decoder has read a word."""
    words, regions = sentences(), spans(STEPS)
    layer = calibrated(nn.GRU(WIDTH, WIDTH, batch_first=True), words)

    def model(x):
        return layer(torch.cat([x[:, :2], x[:, :2]], 1), x[:, 3:4].transpose(0, 1).contiguous())[0].flatten(1)

    found = rt.contextual_decomposition(model, words, regions).relevant
    assert (found - alone(model, words, regions)).abs().max() < CLOSE * found.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_recorded_is_the_same(kind):
    words, regions = sentences(), mixed()
    model = calibrated(Both(KINDS[kind]()), words)
    found = rt.contextual_decomposition(model, words, regions).relevant
    recorded = rt.contextual_decomposition(model, words, regions, create_graph=True).relevant
    assert recorded.requires_grad
    assert (recorded - found).abs().max() < CLOSE * found.abs().max()


def test_first_states_of_zeros_are_learned():
    """Zeros have no parts, but where they are parameters a part has its slope by them."""
    words = sentences()
    layer = calibrated(nn.RNN(WIDTH, 4, batch_first=True), words)
    start = torch.zeros(1, 2, 4, dtype=torch.float64, requires_grad=True)

    def value(start, graph):
        def model(x):
            return layer(x, start)[0][:, -1]

        found = rt.contextual_decomposition(model, words, spans(STEPS), create_graph=graph)
        return found.relevant.square().sum()

    (slope,) = torch.autograd.grad(value(start, True), start)
    way = normal(1, 2, 4, seed=9)
    with torch.no_grad():
        rise = (value(start + 1e-5 * way, False) - value(start - 1e-5 * way, False)) / 2e-5
    assert abs((slope * way).sum() - rise) < 1e-6 * abs(rise)


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision(kind):
    words, regions = sentences(), mixed()
    model = calibrated(Both(KINDS[kind]()), words)
    expected = rt.contextual_decomposition(model, words, regions).relevant
    found = rt.contextual_decomposition(model.float(), words.float(), regions)
    assert (found.relevant - expected).abs().max() < 1e-5 * expected.abs().max()
    whole, empty = regions.flatten(1).all(1), ~regions.flatten(1).any(1)
    assert found.relevant[:, empty].abs().max() < 1e-6 * expected.abs().max()
    assert (found.relevant[:, whole] - found.outputs.unsqueeze(1)).abs().max() < 1e-6 * expected.abs().max()


def test_spans_share_what_they_have_in_common(monkeypatch):
    """After t words there are t (t + 1) / 2 different pasts, in every layer; from the other side as many."""
    sizes, own = [], recurrent._steps

    def spied(step, inputs, *rest):
        sizes.append([len(pair.part) for pair in inputs])
        return own(step, inputs, *rest)

    monkeypatch.setattr(recurrent, "_steps", spied)
    words = sentences()
    rt.contextual_decomposition(Both(nn.LSTM(WIDTH, 4, num_layers=2, batch_first=True).double()), words, spans(STEPS))
    pasts = [t * (t + 1) // 2 + 1 for t in range(1, STEPS)] + [
        STEPS * (STEPS + 1) // 2
    ]  # and the one without a word yet
    assert sizes == [pasts, pasts]


def test_groups_are_the_regions_with_one_past():
    draws = torch.Generator().manual_seed(3)
    numbers = [torch.randint(2, (7, 40), generator=draws) for _ in range(2)]
    start = torch.arange(40.0).remainder(1)[:, None, None]
    before = np.zeros(40, dtype=int)
    for time, fork in enumerate(forks([start], numbers)):
        pasts = [tuple(each[: time + 1, r].tolist() for each in numbers) for r in range(40)]
        pasts = [str(past) for past in pasts]
        groups = fork.groups.numpy()
        assert len(set(pasts)) == len(set(groups)) == len(fork.members)
        assert len(set(zip(pasts, groups, strict=True))) == len(fork.members)
        assert (groups[fork.members.numpy()] == np.arange(len(fork.members))).all()
        if time and fork.parents is not None:
            assert (before[fork.members.numpy()] == fork.parents.numpy()).all()
        elif time:
            assert (before == groups).all()
        before = groups


def test_only_what_is_known_to_be_the_same_is_alike():
    total = torch.tensor([[2.0], [2.0], [0.0], [1e-10]]).double().reshape(4, 1, 1, 1)
    part = total * torch.tensor([0.0, 1.0, 0.5, 0.0, 1.0, 0.5]).double().reshape(1, 6, 1, 1)
    (found,) = alike(total, part, [])
    assert found[0].tolist() == [0, 1, 4, 0, 1, 7]
    assert found[2].tolist() == found[3].tolist() == [2, 3, 4, 5, 6, 7]
    (found,) = alike(total, part, [torch.zeros(4, 6, dtype=torch.long)])
    assert found[1].tolist() == [0] * 6
    assert found[2].tolist() == [2, 3, 4, 5, 6, 7]
