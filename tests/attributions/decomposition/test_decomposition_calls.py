"""How it is called: spellings of one operation, spaces, chunks, results; and what is refused, with the reason."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from attributions.decomposition.models import ZOO, Written, calibrated
from contracts.decomposition import regions_of
from contracts.messages import check_named
from contracts.problems import draws, normal, tokens
from rightly.attributions.decomposition import RULES, Convention, coverage, decompose, rule
from rightly.core.errors import ArgumentError, DecompositionError

X, REGIONS = normal(3, 6, seed=1), torch.rand(4, 6, generator=draws(2)) < 0.5


def _linear(seed: int = 0) -> nn.Linear:
    return calibrated(nn.Linear(6, 6), X, seed)


def _same(*functions, **options):
    found = [rt.contextual_decomposition(function, X, REGIONS, **options).relevant for function in functions]
    assert found[0].abs().max() > 1e-3
    for other in found[1:]:
        assert torch.equal(other, found[0])


# ---- one operation, many spellings


def test_relu_is_relu():
    layer = _linear()
    _same(
        lambda x: F.relu(layer(x)),
        lambda x: nn.ReLU()(layer(x)),
        lambda x: nn.ReLU(inplace=True)(layer(x)),
        lambda x: torch.relu(layer(x)),
        lambda x: layer(x).relu(),
        lambda x: layer(x).relu_(),
        lambda x: torch.relu_(layer(x)),
        lambda x: F.relu(layer(x), inplace=True),
    )


def test_sums_are_sums():
    layer, c = _linear(), normal(6, seed=3)

    def in_place(x):
        y = layer(x)
        y += c
        return y

    _same(
        lambda x: layer(x) + c,
        lambda x: c + layer(x),
        in_place,
        lambda x: torch.add(layer(x), c),
        lambda x: layer(x).add_(c),
    )
    _same(
        lambda x: layer(x) - 2, lambda x: layer(x).sub_(2), lambda x: torch.sub(layer(x), 2.0), lambda x: -2 + layer(x)
    )
    _same(lambda x: layer(x) * 3, lambda x: 3 * layer(x), lambda x: layer(x).mul_(3))


def test_attention_is_attention():
    case = ZOO["attention"]()
    body = case.model.body
    region = regions_of(case.shape)

    def by_function(x):
        y = x.transpose(0, 1)
        made, _ = F.multi_head_attention_forward(
            y, y, y, 8, 2, body.in_proj_weight, body.in_proj_bias, None, None, False, 0.0, body.out_proj.weight,
            body.out_proj.bias, False,
        )  # fmt: skip
        return case.model.head(made.transpose(0, 1).mean(1))

    def by_hand(x):
        q, k, v = (
            part.unflatten(-1, (2, 4)).transpose(1, 2)
            for part in F.linear(x, body.in_proj_weight, body.in_proj_bias).chunk(3, -1)
        )
        made = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return case.model.head(body.out_proj(made).mean(1))

    for convention in ("first", "shapley"):
        found = [
            rt.contextual_decomposition(model, case.inputs, region, convention=convention).relevant
            for model in (case.model, by_function, by_hand)
        ]
        for other in found[1:]:
            assert torch.allclose(other, found[0], rtol=0, atol=1e-12)


def test_frozen_attention_passes_on_values_only():
    """A region that changes nothing but queries and keys gets nothing; decomposed, it gets something."""
    weight = normal(2, 6, 6, seed=4)

    def model(x):
        scores = (x[:, :3] @ weight[0]) @ (x[:, :3] @ weight[1]).transpose(1, 2)
        return (torch.softmax(scores, -1) @ x[:, 3:]).flatten(1)

    inputs, region = normal(2, 6, 6, seed=5), torch.zeros(1, 6, 6, dtype=torch.bool)
    region[:, :3] = True
    frozen, whole = (
        rt.contextual_decomposition(model, inputs, region, convention=c).relevant for c in ("first", "shapley")
    )
    assert not frozen.any()
    assert whole.abs().max() > 0.1


@pytest.mark.parametrize("minus", [-torch.inf, -1e300, -1e30], ids=str)
@pytest.mark.parametrize("filled", [False, True], ids=["added", "filled"])
def test_what_attention_must_not_see_has_no_influence(minus, filled):
    """Later words, behind a causal mask: whatever they are, earlier positions' parts and gradients stay.

    (They may still have a part there: the weight that attention gives to nothing but constants is shared by size.)
    """
    weight = normal(3, 6, 6, seed=4).requires_grad_()
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)

    def model(x):
        q, k, v = (x @ each for each in weight)
        scores = q @ k.transpose(1, 2)
        if filled:
            scores = scores.masked_fill(later, minus)
        else:
            scores = scores + torch.zeros(5, 5, dtype=torch.float64).masked_fill(later, minus)
        return torch.softmax(scores, -1) @ v

    inputs, region = normal(2, 5, 6, seed=5), torch.rand(1, 5, 6, generator=draws(6)) < 0.5
    changed = torch.cat([inputs[:, :3], normal(2, 2, 6, seed=7)], 1)
    found, after = (
        rt.contextual_decomposition(model, x, region, convention="shapley", create_graph=True)
        for x in (inputs, changed)
    )
    assert torch.allclose(found.relevant[:, 0, :3], after.relevant[:, 0, :3], rtol=0, atol=1e-13)
    assert (found.relevant[:, 0, 3:] - after.relevant[:, 0, 3:]).abs().max() > 0.1
    (gradient,) = torch.autograd.grad(found.relevant.sum(), weight)
    assert gradient.isfinite().all()
    other = rt.contextual_decomposition(model, inputs, ~region, convention="shapley")
    assert torch.allclose(found.relevant + other.relevant, found.outputs.unsqueeze(1), rtol=0, atol=1e-12)


def test_packed_and_padded_sequences_agree_where_nothing_is_padded():
    case = ZOO["lstm"]()

    def packed(x):
        made = nn.utils.rnn.pack_padded_sequence(case.model.embedding(x), torch.tensor([6, 6, 6]), batch_first=True)
        hidden, last = case.model.rnn(made)
        hidden, _ = nn.utils.rnn.pad_packed_sequence(hidden, batch_first=True)
        return case.model.head(hidden.mean(1) + hidden[:, -1]) + last[0].sum((0, 2))[:, None]

    found, expected = (
        rt.contextual_decomposition(m, case.inputs, regions_of((6,))).relevant for m in (packed, case.model)
    )
    assert torch.allclose(found, expected, rtol=0, atol=1e-13)


def test_cells_and_layers_agree():
    for kind in ("LSTM", "GRU", "RNN"):
        layer = calibrated(getattr(nn, kind)(6, 4, batch_first=True), normal(2, 5, 6, seed=6))
        cell = getattr(nn, f"{kind}Cell")(6, 4).double()
        cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})

        def stepped(x, cell=cell, kind=kind):
            state = None
            for step in x.unbind(1):
                state = cell(step, state)
            return state[0] if kind == "LSTM" else state

        for convention in ("first", "shapley"):
            found, expected = (
                rt.contextual_decomposition(
                    m, normal(2, 5, 6, seed=6), regions_of((5, 6)), convention=convention
                ).relevant
                for m in (stepped, lambda x, layer=layer: layer(x)[0][:, -1])
            )
            assert torch.allclose(found, expected, rtol=0, atol=1e-13)


# ---- spaces and inputs


def test_tokens_are_their_embeddings():
    problem = tokens()
    spans = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
    found = rt.contextual_decomposition(problem.model, problem.inputs, spans)
    layer = rt.contextual_decomposition(
        problem.model, problem.inputs, spans[..., None], space=rt.spaces.Layer("embedding")
    )
    assert torch.allclose(found.relevant, layer.relevant, rtol=0, atol=1e-14)
    assert torch.allclose(found.relevant[:, 2], found.outputs, rtol=0, atol=1e-14)
    as_dict = rt.contextual_decomposition(lambda tokens: problem.model(tokens), {"tokens": problem.inputs}, spans)
    assert torch.equal(as_dict.relevant, found.relevant)
    as_tuple = rt.contextual_decomposition(problem.model, (problem.inputs,), spans)
    assert torch.equal(as_tuple.relevant, found.relevant)


def test_channels_can_stand_for_all():
    case = ZOO["residual"]()
    mask = torch.rand(3, 1, 12, 12, generator=draws(3)) < 0.5
    found, whole = (
        rt.contextual_decomposition(case.model, case.inputs, m).relevant for m in (mask, mask.expand(3, 2, 12, 12))
    )
    assert torch.equal(found, whole)


def test_the_second_of_two_inputs():
    def model(a, b):
        return torch.tanh(a @ normal(4, 3, seed=1)) * b

    a, b = normal(2, 4, seed=2), normal(2, 3, seed=3)
    found = rt.contextual_decomposition(model, (a, b), torch.eye(3, dtype=torch.bool), space=rt.spaces.Input(1))
    assert torch.allclose(found.relevant, torch.diag_embed(found.outputs), rtol=0, atol=1e-14)
    named = rt.contextual_decomposition(
        model, {"a": a, "b": b}, torch.eye(3, dtype=torch.bool), space=rt.spaces.Input("b")
    )
    assert torch.equal(named.relevant, found.relevant)


def test_parts_that_are_no_regions():
    """The difference to a baseline; the regions' own parts are a special case."""
    case = ZOO["digits"]()
    regions = regions_of(case.shape)
    found = rt.contextual_decomposition(case.model, case.inputs, regions)
    given = decompose(case.model, case.inputs, case.inputs * regions.unsqueeze(1))
    assert torch.allclose(given.relevant, found.relevant, rtol=0, atol=1e-9)
    smooth = (case.inputs - case.inputs.mean((2, 3), keepdim=True))[None]
    one, other = (
        decompose(case.model, case.inputs, part, convention="shapley") for part in (smooth, case.inputs - smooth)
    )
    assert torch.allclose(one.relevant + other.relevant, one.outputs.unsqueeze(1), rtol=0, atol=1e-10)


def test_single_outputs_and_maps_keep_their_shape():
    for model, shape in ((lambda x: x.sum(1), ()), (lambda x: x.tanh(), (6,)), (lambda x: x.reshape(-1, 2, 3), (2, 3))):
        found = rt.contextual_decomposition(model, X, REGIONS)
        assert found.outputs.shape == (3, *shape)
        assert found.relevant.shape == found.irrelevant.shape == (3, 4, *shape)


def test_stability_tells_where_conventions_decide():
    """A bias on units that almost nothing reaches: there ``soft`` decides, elsewhere it hardly matters."""
    loud, faint = _linear(), _linear()
    with torch.no_grad():
        faint.weight.mul_(1e-3)
        loud.bias.mul_(1e-3)
    found = {
        name: rt.contextual_decomposition(layer, X, REGIONS, stability=True).stability
        for name, layer in (("loud", loud), ("faint", faint))
    }
    assert found["loud"].shape == (3, 4)
    assert found["loud"].max() < 1e-3 < 0.02 < found["faint"].max()
    assert rt.contextual_decomposition(loud, X, REGIONS).stability is None


# ---- operations without a rule


def _unknown(x):
    return torch.special.i0(x)


def test_an_operation_without_a_rule_is_named():
    with pytest.raises(DecompositionError, match="no rule for special_i0") as found:
        rt.contextual_decomposition(_unknown, X, REGIONS)
    assert "rule(" in str(found.value)
    assert "unknown='shapley'" in str(found.value)


def test_an_operation_without_a_rule_can_have_its_shapley_value():
    found = rt.contextual_decomposition(_unknown, X, REGIONS, unknown="shapley")
    assert found.operations == {"special_i0": "shapley"}
    other = rt.contextual_decomposition(_unknown, X, ~REGIONS, unknown="shapley")
    assert torch.allclose(found.relevant + other.relevant, found.outputs.unsqueeze(1), rtol=0, atol=1e-12)
    full = rt.contextual_decomposition(_unknown, X, torch.ones(1, 6, dtype=torch.bool), unknown="shapley")
    assert torch.allclose(full.relevant[:, 0], full.outputs, rtol=0, atol=1e-14)


def test_a_rule_can_be_entered():
    @rule("special_i0", formula="f(t) b / t", source="a test")
    def proportional(func, args, kwargs):
        (x,) = args
        total = func(x.total)
        return x.made(total, total * x.relevant / x.total)

    try:
        found = rt.contextual_decomposition(_unknown, X, REGIONS)
        assert torch.equal(found.relevant, found.outputs.unsqueeze(1) * REGIONS)
        with pytest.raises(ArgumentError, match="already a rule"):
            rule("special_i0", formula="", source="")(proportional)
    finally:
        del RULES["special_i0"]


def _stale(x):
    y = _linear()(x)
    y[:, 4].mul_(2)
    return y.relu()


def _into_plain(x):
    y = torch.zeros(3, 6, dtype=torch.float64)
    y[:, 0] = x[:, 0]
    return y


class Own(torch.autograd.Function):
    """A Function of the user's own, whose forward is decomposed but whose backward would be lost."""

    @staticmethod
    def forward(ctx, x):
        return x.tanh()

    @staticmethod
    def backward(ctx, grad):
        return grad


REFUSED = {
    "lost in a decision": (lambda x: (x > 0).double(), "got lost"),
    "lost in a constant": (lambda x: torch.ones(3, 2, dtype=torch.float64), "got lost"),
    "taken out as numbers": (lambda x: torch.tensor(x.tolist()), "got lost"),
    "taken out by numpy": (lambda x: torch.from_numpy(x.numpy()), "no rule for numpy"),
    "several results without a rule": (lambda x: torch.linalg.qr(x)[0], "no rule for linalg_qr"),
    "written into a plain tensor": (_into_plain, "plain tensor"),
    "changed through a view": (_stale, "changed in place through a view"),
    "index that depends on the input": (lambda x: x.take(x), "depends on the input"),
}


@pytest.mark.parametrize("unknown", ["error", "shapley"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_gets_lost_is_an_error(name, unknown):
    model, reason = REFUSED[name]
    if unknown == "shapley" and "no rule" in reason:
        reason = "cannot be decomposed"
    with pytest.raises(DecompositionError, match=reason):
        rt.contextual_decomposition(model, X, REGIONS, unknown=unknown)


def test_a_part_without_gradients_is_refused_when_it_is_to_be_trained():
    @torch.no_grad()
    def without(x):
        return _linear()(x)

    with pytest.raises(DecompositionError, match="runs without gradients"):
        rt.contextual_decomposition(without, X, REGIONS, create_graph=True)
    with pytest.raises(DecompositionError, match=r"autograd\.Function"):
        rt.contextual_decomposition(Own.apply, X, REGIONS)
    with pytest.raises(DecompositionError, match="runs without gradients"):
        rt.contextual_decomposition(Own.apply, X, REGIONS[:1], create_graph=True)
    rt.contextual_decomposition(without, X, REGIONS)


BAD = {
    "regions as numbers": lambda: rt.contextual_decomposition(_linear(), X, REGIONS.float()),
    "regions as a list": lambda: rt.contextual_decomposition(_linear(), X, [[True] * 6]),
    "regions of other features": lambda: rt.contextual_decomposition(_linear(), X, REGIONS[:, :5]),
    "regions of other examples": lambda: rt.contextual_decomposition(_linear(), X, REGIONS.expand(2, 4, 6)),
    "no regions": lambda: rt.contextual_decomposition(_linear(), X, REGIONS[:0]),
    "unknown convention": lambda: rt.contextual_decomposition(_linear(), X, REGIONS, convention="last"),
    "unknown policy": lambda: rt.contextual_decomposition(_linear(), X, REGIONS, unknown="skip"),
    "chunks of nothing": lambda: rt.contextual_decomposition(_linear(), X, REGIONS, chunk_size=0),
    "chunks in training mode": lambda: rt.contextual_decomposition(_linear(), X, REGIONS, chunk_size=2, training=True),
    "no model": lambda: rt.contextual_decomposition("model", X, REGIONS),
    "a space that is none": lambda: rt.contextual_decomposition(_linear(), X, REGIONS, space="embedding"),
    "parts of other examples": lambda: decompose(_linear(), X, X[None, :2]),
    "unknown rule for relu": lambda: Convention(relu="second"),
    "softness below zero": lambda: Convention(soft=-1.0),
    "regions of an attribution": lambda: rt.ContextualDecomposition(REGIONS.float()),
    "convention of an attribution": lambda: rt.ContextualDecomposition(REGIONS, convention="last"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name):
    check_named(BAD[name])


# ---- coverage


def test_coverage_tells_what_was_done():
    case = ZOO["vision transformer"]()
    found = coverage(case.model, case.inputs)
    assert found.ok
    assert found.problem is None
    assert found.gap < 1e-12
    assert found.operations["multi_head_attention_forward"] == "body"
    assert found.operations["conv2d"] == "rule"
    assert "softmax" in str(found)
    assert "|b|" in str(found)


def test_coverage_tells_what_is_missing():
    model = Written(lambda self, x: self.last(torch.special.i0(x)), last=nn.Linear(6, 2))
    found = coverage(model.double(), X)
    assert not found.ok
    assert found.operations["special_i0"] == "shapley"
    assert "no rule of its own" in str(found)
    lost = coverage(lambda x: x.argmax(1).double(), X)
    assert not lost.ok
    assert lost.problem
    assert "argmax" in lost.operations
    case = ZOO["decoder"]()
    assert coverage(case.model, case.inputs).ok


@pytest.mark.parametrize("convention", ["first", "shapley", "reference"])
def test_a_view_that_was_changed_behind_the_end_is_told(convention):
    def model(x):
        y = x * 2
        y[:, :2].add_(1.0)
        return y

    with pytest.raises(DecompositionError, match="changed in place"):
        rt.contextual_decomposition(model, normal(2, 4, seed=1), torch.eye(4, dtype=torch.bool), convention=convention)


@pytest.mark.parametrize("convention", ["first", "shapley", "reference"])
@pytest.mark.parametrize("join", [lambda t, e: torch.cat([t.unsqueeze(-1), e], -1), lambda t, e: e * t.unsqueeze(-1)])
def test_token_numbers_beside_numbers_are_told(join, convention):
    table = nn.Embedding(9, 4).double()
    tokens, whole = torch.randint(9, (2, 5)), torch.ones(1, 5, dtype=torch.bool)
    with pytest.raises(DecompositionError, match="make numbers of them"):
        rt.contextual_decomposition(lambda t: join(t, table(t)), tokens, whole, convention=convention)


@pytest.mark.parametrize("convention", ["first", "shapley", "reference"])
def test_padding_of_an_encoder_and_complex_numbers(convention):
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).double().eval()
    padding = torch.zeros(2, 4, dtype=torch.bool)
    padding[0, 3:] = True
    x, whole = normal(2, 4, 6, seed=1), torch.ones(1, 4, 6, dtype=torch.bool)
    for model in (
        lambda x: encoder(x, src_key_padding_mask=padding),
        lambda x: x + torch.fft.fft(x.to(torch.complex128)).real,
        lambda x: x + torch.fft.fft(x.cdouble()).real,
    ):
        found = rt.contextual_decomposition(model, x, whole, convention=convention)
        assert found.irrelevant.abs().max() < 1e-12
        assert found.relevant.abs().max() > 0.1
