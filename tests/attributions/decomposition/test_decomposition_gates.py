"""Averaged gates: every function is a game of two players, the region and the rest, at which the biases always are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import rightly as rt
from attributions.decomposition.models import calibrated
from contracts.problems import normal

CLOSE = 1e-12
STEPS = 6
SPANS = [(a, b) for a in range(STEPS) for b in range(a, STEPS)]


def regions() -> torch.Tensor:
    made = torch.zeros(len(SPANS), STEPS, 1, dtype=torch.bool)
    for region, (a, b) in zip(made, SPANS, strict=True):
        region[a : b + 1] = True
    return made


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def played(function, *given):
    """(region's, rest's, biases') of each argument -> those of the function, by both orders of the two players."""

    def value(region: bool, rest: bool) -> np.ndarray:
        return function(*(region * b + rest * g + c for b, g, c in given))

    nobody, first, second, both = value(False, False), value(True, False), value(False, True), value(True, True)
    return (first - nobody + both - second) / 2, (second - nobody + both - first) / 2, nobody


def added(*given):
    return tuple(sum(parts) for parts in zip(*given, strict=True))


def owned(made, inside: bool):
    """What biases make goes to whom the step belongs to."""
    b, g, c = made
    return (b + c, g, 0 * c) if inside else (b, g + c, 0 * c)


def gates(layer, names, word, hidden, inside):
    """Of each gate what comes from the word with its bias, and from the hidden state with its bias."""
    w, u, c, d = (
        getattr(layer, name + "_l0").detach().numpy() for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    size = len(u) // len(names)
    for k, name in enumerate(names):
        at = slice(k * size, (k + 1) * size)
        seen = w[at] @ word
        yield (
            name,
            (seen * inside, seen * (not inside), c[at]),
            (u[at] @ hidden[0], u[at] @ hidden[1], u[at] @ hidden[2] + d[at]),
        )


def lstm(layer, words, start, stop):
    hidden = cells = (np.zeros(layer.hidden_size),) * 3
    for t, word in enumerate(words):
        inside = start <= t <= stop
        i, f, g, o = (
            played(np.tanh if name == "g" else sigmoid, added(x, h))
            for name, x, h in gates(layer, "ifgo", word, hidden, inside)
        )
        cells = owned(added(played(np.multiply, f, cells), played(np.multiply, i, g)), inside)
        hidden = owned(played(np.multiply, o, played(np.tanh, cells)), inside)
    return hidden


def gru(layer, words, start, stop):
    hidden = (np.zeros(layer.hidden_size),) * 3
    for t, word in enumerate(words):
        inside = start <= t <= stop
        (_, *r), (_, *z), (_, x, h) = gates(layer, "rzn", word, hidden, inside)
        reset, update = (played(sigmoid, added(*both)) for both in (r, z))
        new = played(np.tanh, added(x, played(np.multiply, reset, h)))
        change = tuple(before - now for before, now in zip(hidden, new, strict=True))
        hidden = owned(added(new, played(np.multiply, update, change)), inside)
    return hidden


@pytest.mark.parametrize(("kind", "oracle", "convention"), [("LSTM", lstm, "shapley"), ("GRU", gru, "first")])
def test_averaged_cells_are_games_of_two(kind, oracle, convention):
    words = normal(1, STEPS, 5, seed=1)
    layer = calibrated(getattr(nn, kind)(5, 4, batch_first=True), words)
    found = rt.contextual_decomposition(lambda x: layer(x)[0][:, -1], words, regions(), convention=convention)
    for r, (a, b) in enumerate(SPANS):
        relevant, rest, _ = oracle(layer, words[0].numpy(), a, b)
        assert np.abs(found.relevant[0, r].numpy() - relevant).max() < CLOSE
        assert np.abs(found.irrelevant[0, r].numpy() - rest).max() < CLOSE
    assert found.relevant.abs().max() > 0.1


@pytest.mark.parametrize("convention", ["first", "shapley"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_gates_that_biases_hold_pass_parts_on_whole(kind, convention):
    """A memory that nothing in the sequence opens or closes keeps what each step put into it."""
    layer = calibrated(getattr(nn, kind)(5, 4, batch_first=True), normal(2, STEPS, 5, seed=1))
    names = "ifgo" if kind == "LSTM" else "rzn"
    with torch.no_grad():
        layer.weight_hh_l0.zero_()
        for name, rows in zip(names, layer.weight_ih_l0.split(4), strict=True):
            rows.mul_(name in "gn")
    words = normal(2, STEPS, 5, seed=2)
    w, c, d = (x.detach().split(4) for x in (layer.weight_ih_l0, layer.bias_ih_l0, layer.bias_hh_l0))
    if kind == "LSTM":
        written, kept = torch.sigmoid(c[0] + d[0]), torch.sigmoid(c[1] + d[1])
        new = torch.tanh(words @ w[2].T + c[2] + d[2])
    else:
        reset, kept = (torch.sigmoid(c[k] + d[k]) for k in (0, 1))
        written, new = 1 - kept, torch.tanh(words @ w[2].T + c[2] + reset * d[2])
    share = written * new * kept ** torch.arange(STEPS - 1, -1, -1)[:, None]

    def memory(x: torch.Tensor) -> torch.Tensor:
        last = layer(x)[1]
        return last[1][0] if kind == "LSTM" else last[0]

    found = rt.contextual_decomposition(memory, words, regions(), convention=convention)
    expected = torch.stack([share[:, a : b + 1].sum(1) for a, b in SPANS], 1)
    assert (found.relevant - expected).abs().max() < CLOSE
    assert expected[:, SPANS.index((0, 0))].abs().max() > 1e-3
