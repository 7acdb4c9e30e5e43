"""Single operations, in every way that PyTorch lets them be called: no credit is lost or given twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from attributions.decomposition.models import ZOO, Case, calibrated
from contracts import decomposition as checks
from contracts.decomposition import regions_of
from contracts.problems import draws, normal
from rightly.attributions.decomposition import RULES, coverage, rule
from rightly.core.errors import DecompositionError

X = normal(3, 6, seed=1)
C, W, TABLE = normal(3, 6, seed=3), normal(6, 6, seed=4), normal(11, 4, seed=5)
WORDS = torch.randint(1, 11, (3, 5), generator=draws(6))
WHOLE = torch.arange(18).reshape(3, 6) - 7  # integers
EVEN = torch.tensor([0, 2, 4])
LEFT = torch.tensor([[0], [2], [1]])
MINUS = -torch.inf
#: (B, 6): nothing is masked in the first row, much in the others
MASKED = torch.tensor([[0] * 6, [0, 1, 0, 0, 1, 1], [1, 0, 1, 1, 1, 1]], dtype=torch.bool)
POSITIVE = X.abs() + 0.5


def _all(model, inputs=X, conventions=("first", "shapley")):
    """Everything that holds of any model, of one operation."""
    case = Case(model, inputs, tuple(inputs.shape[1:]))
    for convention in conventions:
        checks.check_outputs(case, convention=convention)
        checks.check_edges(case, convention=convention)
    checks.check_sum(case, convention="shapley")
    checks.check_loop(case, convention="shapley")
    return case


def _same(*models, inputs=X, convention="shapley"):
    found = [
        rt.contextual_decomposition(m, inputs, regions_of(tuple(inputs.shape[1:])), convention=convention).relevant
        for m in models
    ]
    for other in found[1:]:
        assert torch.allclose(other, found[0], rtol=0, atol=1e-12)


# ---- constants beside what is split


CONSTANTS = {
    "cat with a whole number": lambda x: torch.cat([x, WHOLE], 1) ** 2,
    "cat by name": lambda x: torch.cat(tensors=[x, C], dim=1).tanh(),
    "stack with whole numbers": lambda x: torch.stack([WHOLE, x], 1).tanh(),
    "stack over an axis": lambda x: torch.stack([C, x], axis=1).tanh(),
    "hstack with bools": lambda x: torch.hstack([x, MASKED]).tanh(),
    "cat of one number": lambda x: torch.cat([x, torch.tensor([[3]] * 3)], -1).sum(1, keepdim=True) + x,
    "where with a whole tensor": lambda x: torch.where(MASKED, x, WHOLE),
    "where with a bool": lambda x: torch.where(MASKED, x, torch.tensor(True)),
    "where with a whole number": lambda x: torch.where(x > 0, x, 1),
    "where with a number first": lambda x: torch.where(MASKED, 2, x),
    "where by names": lambda x: torch.where(condition=MASKED, input=x, other=C),
    "where as a method": lambda x: x.where(MASKED, C),
    "where as a method with a number": lambda x: x.where(x > 0, 0.5),
    "where of another's method": lambda x: C.where(MASKED, x),
    "masked_fill with a whole tensor": lambda x: x.masked_fill(MASKED, torch.tensor(2)),
    "masked_fill by name": lambda x: torch.masked_fill(x, mask=MASKED, value=2),
    "scatter with src": lambda x: x.scatter(1, LEFT, src=C[:, :1]),
    "scatter by position": lambda x: x.scatter(1, LEFT, C[:, :1]),
    "scatter with a number": lambda x: x.scatter(1, LEFT, 0.7),
    "scatter with value": lambda x: x.scatter(1, LEFT, value=2),
    "scatter all by name": lambda x: torch.scatter(input=x, dim=1, index=LEFT, src=C[:, :1]),
    "scatter that adds": lambda x: x.scatter(1, LEFT, C[:, :1], reduce="add"),
    "scatter of a split": lambda x: torch.scatter(C, 1, LEFT, src=x[:, :1]),
    "scatter_add by name": lambda x: x.scatter_add(dim=1, index=LEFT, src=C[:, :1]),
    "scatter_reduce": lambda x: x.scatter_reduce(1, LEFT, C[:, :1], "sum"),
    "index_add with source": lambda x: x.index_add(1, EVEN, source=C[:, :3]),
    "index_add with alpha": lambda x: x.index_add(dim=1, index=EVEN, source=C[:, :3], alpha=3),
    "index_add of a split": lambda x: C.index_add(1, EVEN, source=x[:, :3]),
    "index_copy with source": lambda x: x.index_copy(1, EVEN, source=C[:, :3]),
    "index_fill": lambda x: x.index_fill(1, EVEN, 0.4),
    "index_fill by name": lambda x: x.index_fill(dim=1, index=EVEN, value=torch.tensor(2.0, dtype=X.dtype)),
    "index_put": lambda x: x.index_put((EVEN, EVEN), torch.tensor(2.0, dtype=X.dtype)) if len(x) > 4 else x,
    "index_put by name": lambda x: x.index_put(indices=(torch.tensor([0]), EVEN), values=C[0, :3], accumulate=True),
    "masked_scatter": lambda x: x.masked_scatter(mask=MASKED, source=C),
    "slice_scatter": lambda x: x.slice_scatter(C[:, :2], 1, 2, 4),
    "slice_scatter by name": lambda x: torch.slice_scatter(input=x, src=C[:, :2], dim=1, start=2, end=4),
    "slice_scatter of a split": lambda x: C.slice_scatter(src=x[:, :2], dim=1, start=2, end=4),
    "select_scatter": lambda x: x.select_scatter(src=C[:, 0], dim=1, index=3),
    "diagonal_scatter": lambda x: x.diagonal_scatter(src=C[:, 0]),
    "diff with prepend": lambda x: torch.diff(x, prepend=C[:, :1]),
    "diff with both": lambda x: torch.diff(x, 2, 1, C[:, :1], WHOLE[:, :2].double()),
    "diff of a constant": lambda x: torch.diff(C, append=x),
    "fill": lambda x: torch.cat([x, x.clone().fill_(2)], 1).sum(1, keepdim=True) + x,
    "lerp": lambda x: x.lerp(C, 0.3),
    "lerp by name": lambda x: torch.lerp(input=C, end=x, weight=C.sigmoid()),
    "lerp by a split": lambda x: torch.lerp(C, x, weight=x.sigmoid()),
    "add by name": lambda x: torch.add(input=x, other=C, alpha=2),
    "sub by name": lambda x: torch.sub(input=C, other=x),
    "add of whole numbers": lambda x: x + WHOLE,
    "addmm by name": lambda x: torch.addmm(input=C, mat1=x, mat2=W, beta=2, alpha=3),
    "addmm of a split": lambda x: torch.addmm(x, C[:, :3], mat2=W[:3], beta=0.5),
    "baddbmm by name": lambda x: torch.baddbmm(C[:, None], batch1=x[:, None], batch2=W.expand(3, 6, 6))[:, 0],
    "addmv": lambda x: torch.addmv(C[:, 0], x, vec=W[0]),
    "addcmul": lambda x: torch.addcmul(input=C, tensor1=x, tensor2=C, value=2),
    "addcdiv": lambda x: torch.addcdiv(x, tensor1=C, tensor2=C.abs() + 1, value=0.5),
    "maximum of whole numbers": lambda x: torch.maximum(x, WHOLE.double()),
    "maximum by name": lambda x: torch.maximum(input=x, other=C),
    "max of two, by name": lambda x: torch.max(input=x, other=C),
    "pad with a number": lambda x: F.pad(input=x, pad=(1, 2), value=0.3),
    "written with whole numbers": lambda x: _written(x, WHOLE[:, :2]),
    "written with a number": lambda x: _written(x, 3),
    "dot of a constant by name": lambda x: torch.matmul(input=x, other=W),
    "mul by name": lambda x: torch.mul(input=C, other=x),
    "div by name": lambda x: torch.div(input=x, other=C.abs() + 1),
    "linear by name": lambda x: F.linear(input=x, weight=W, bias=C[0]),
    "clamp by tensors": lambda x: torch.clamp(x, min=-C.abs(), max=C.abs()),
    "clamp by tensors off zero": lambda x: torch.clamp(x, min=C, max=C + 1),
    "clamp_min by a tensor": lambda x: x.clamp_min(C[0]),
    "clip by numbers, by name": lambda x: torch.clip(input=x, min=0.2, max=1),
}  # fmt: skip


def _written(x, what):
    y = x.clone()
    y[:, 1:3] = what
    return y


@pytest.mark.filterwarnings("ignore:The reduce argument of torch.scatter")
@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_belong_to_one_part_only(name):
    _all(CONSTANTS[name])


def test_names_and_positions_say_the_same():
    _same(CONSTANTS["scatter with src"], CONSTANTS["scatter by position"], CONSTANTS["scatter all by name"])
    _same(CONSTANTS["scatter with a number"], lambda x: x.scatter(1, LEFT, torch.full((3, 1), 0.7, dtype=X.dtype)))
    _same(CONSTANTS["slice_scatter"], CONSTANTS["slice_scatter by name"])
    _same(CONSTANTS["diff with prepend"], lambda x: torch.diff(x, 1, -1, C[:, :1]))
    _same(CONSTANTS["where as a method"], lambda x: torch.where(MASKED, x, C), CONSTANTS["where by names"])
    _same(CONSTANTS["index_add with source"], lambda x: x.index_add(1, EVEN, C[:, :3]))
    _same(lambda x: x.sum(1), lambda x: torch.sum(input=x, axis=1), lambda x: x.sum(axis=1))


# ---- token numbers


TOKENS = {
    "a prepended token": lambda t: TABLE[torch.cat([torch.full((3, 1), 9), t], 1)].tanh().flatten(1),
    "a prepended token, embedded": lambda t: F.embedding(
        torch.cat(tensors=(torch.full((len(t), 1), 9), t, torch.zeros(len(t), 2, dtype=torch.long)), dim=-1), TABLE
    ).tanh().flatten(1),
    "stacked with other tokens": lambda t: TABLE[torch.stack([t, torch.full_like(t, 4)], 2)].tanh().flatten(1),
    "a border of tokens": lambda t: F.embedding(F.pad(t, (1, 0), value=7), TABLE).tanh().flatten(1),
    "shifted by writing": lambda t: F.embedding(_shifted(t), TABLE).tanh().flatten(1),
    "written with a token": lambda t: F.embedding(_written(t, 4), TABLE).tanh().flatten(1),
    "one or the other": lambda t: F.embedding(torch.where(t > 5, t, 3), TABLE).tanh().flatten(1),
    "a filled mask": lambda t: F.embedding(t.masked_fill(t > 5, 3), TABLE).tanh().flatten(1),
    "a table indexed": lambda t: TABLE[t].tanh().flatten(1),
    "a table indexed in its second dimension": lambda t: TABLE.T[:, t].tanh().transpose(0, 1).flatten(1),
    "a table indexed, and more": lambda t: TABLE[t, 1:3].tanh().flatten(1),
    "a table indexed after a new dimension": lambda t: TABLE[None, t][0].tanh().flatten(1),
    "a table indexed twice": lambda t: TABLE[t, torch.arange(5) % 4].tanh(),
    "a bag by index_select": lambda t: TABLE.index_select(0, t.flatten()).reshape(3, -1).tanh(),
    "index_select by name": lambda t: torch.index_select(input=TABLE, dim=0, index=t.flatten()).reshape(3, -1).tanh(),
    "gather": lambda t: TABLE[:, 0].expand(len(t), 11).gather(1, t).tanh(),
    "take": lambda t: TABLE.take(t).tanh(),
    "take_along_dim": lambda t: torch.take_along_dim(TABLE[:, 0].expand(len(t), 11), t, dim=1).tanh(),
    "other numbers for tokens": lambda t: F.embedding(torch.arange(11).flip(0)[t], TABLE).tanh().flatten(1),
    "embedding by name": lambda t: F.embedding(input=t, weight=TABLE).tanh().flatten(1),
    "torch.embedding": lambda t: torch.embedding(TABLE, t).tanh().flatten(1),
    "torch.embedding with padding": lambda t: torch.embedding(weight=TABLE, indices=t, padding_idx=0).tanh().flatten(1),
    "one_hot by name": lambda t: (F.one_hot(t, num_classes=11).double() @ TABLE).tanh().flatten(1),
    "in place": lambda t: F.embedding(t.clone().clamp_(max=8), TABLE).tanh().flatten(1),
}  # fmt: skip


def _shifted(t):
    y = t.clone()
    y[:, 1:] = t[:, :-1]
    y[:, 0] = 9
    return y


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_keep_their_credit(name):
    """All in the whole region, nothing in none, all together in a region and its complement."""
    case = Case(TOKENS[name], WORDS, (5,))
    if "(3, 1)" not in name:
        for convention in ("first", "shapley"):
            checks.check_outputs(case, convention=convention)
            checks.check_edges(case, convention=convention)
        checks.check_sum(case, convention="shapley")
        checks.check_loop(case, convention="shapley")


def test_tokens_are_credited_where_they_went():
    """A region of one token has its vector wherever that was moved, and nothing else but its share of constants."""
    first = torch.tensor([[True, False, False, False, False]])
    for model, place in (
        (lambda t: F.embedding(torch.cat([torch.full((3, 1), 9), t], 1), TABLE), 1),
        (lambda t: TABLE[_shifted(t)], 1),
        (lambda t: TABLE[t.roll(2, 1)], 2),
        (lambda t: TABLE[F.pad(t, (3, 0), value=7)], 3),
        (lambda t: TABLE.index_select(0, t.flatten()).unflatten(0, (3, 5)), 0),
    ):
        found = rt.contextual_decomposition(model, WORDS, first)
        part, outputs = found.relevant[:, 0], found.outputs
        assert torch.allclose(part[:, place], outputs[:, place])
        constant = [0] if place == 1 else [0, 1, 2] if place == 3 else []
        others = [p for p in range(outputs.shape[1]) if p != place and p not in constant]
        assert not part[:, others].any()
        for p in constant:  # one of five tokens, or of the four that were left
            share = part[:, p] / outputs[:, p]
            assert torch.allclose(share, share.mean().expand_as(share))
            assert 0.19 < share.mean() < 0.26


def test_tokens_that_meet_in_one_index_are_refused():
    with pytest.raises(DecompositionError, match="getitem"):
        rt.contextual_decomposition(lambda t: normal(11, 11, seed=2)[t, t.flip(1)], WORDS, regions_of((5,)))


# ---- masks of minus infinity


def _masked(x):
    return x.masked_fill(MASKED[: len(x)], MINUS)


def _masked_whole(x):
    """The last row is masked as a whole."""
    return x.masked_fill(MASKED[: len(x)] | torch.tensor([[False], [False], [True]])[: len(x)], MINUS)


_LAST = torch.tensor([[False], [False], [True]])
MASKS = {
    "logsumexp": lambda x: _masked(x).logsumexp(1, keepdim=True) + x,
    "logsumexp, a row whole": lambda x: _masked_whole(x).logsumexp(1, keepdim=True).exp() + x,
    "logsumexp, added": lambda x: (
        (x + torch.zeros_like(X).masked_fill(MASKED, torch.finfo(X.dtype).min)).logsumexp(1, keepdim=True) + x
    ),
    "log_softmax": lambda x: _masked(x).log_softmax(1).masked_fill(MASKED, 0.0),
    "log_softmax by name": lambda x: F.log_softmax(input=_masked(x), dim=1).masked_fill(MASKED, 0.0) + x,
    "softmax": lambda x: _masked(x).softmax(1) * x,
    "softmax, a row whole": lambda x: _masked_whole(x).softmax(1).nan_to_num() * C + x,
    "softmax, a row whole, chosen": lambda x: torch.where(
        torch.tensor([[False], [False], [True]]), 0.0, _masked_whole(x).softmax(1)
    ) * C + x,
    "softmax, nothing but a row whole": lambda x: torch.where(
        _LAST[: len(x)], 0.0, x.masked_fill(_LAST[: len(x)], MINUS).softmax(1)
    ) * C + x,
    "log_softmax, a row whole, finite": lambda x: x.masked_fill(_LAST[: len(x)], -1e300).log_softmax(1) + x,
    "logcumsumexp": lambda x: _masked(x).logcumsumexp(1).exp() + x,
    "log of nothing": lambda x: F.relu(x).log().softmax(1) + x,
    "log of nothing, chosen": lambda x: torch.where(x > 0, F.relu(x).log(), 0.0) + x,
    "logaddexp": lambda x: torch.logaddexp(_masked(x), x),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_what_is_masked_has_no_part(name):
    case = Case(MASKS[name], X, (6,))
    for convention in ("first", "shapley"):
        checks.check_outputs(case, convention=convention)
        checks.check_edges(case, convention=convention)
    checks.check_sum(case, convention="shapley")
    weight = torch.eye(6, dtype=X.dtype).requires_grad_()
    found = rt.contextual_decomposition(lambda x: MASKS[name](x @ weight), X + 3 if "log of" in name else X,
                                        regions_of((6,)), convention="shapley", create_graph=True)  # fmt: skip
    (gradient,) = torch.autograd.grad(found.relevant.sum(), weight)
    assert gradient.isfinite().all()


def test_infinite_outputs_stay_infinite():
    """Log probabilities of what is masked are minus infinity; their part is nothing."""
    for function in (lambda x: _masked(x).log_softmax(1), _masked):
        found = rt.contextual_decomposition(function, X, regions_of((6,)), convention="shapley")
        assert torch.equal(found.outputs, function(X)) or torch.allclose(found.outputs, function(X))
        assert found.outputs.isinf().any()
        assert found.relevant.isfinite().all()
        assert not found.relevant.transpose(0, 1)[:, MASKED].any()


def _attended(mask, **options):
    def model(x):
        q, k, v = x.unbind(1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **options)

    return model


_SEEN = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0], [0, 1, 0, 1]], dtype=torch.bool)
ATTENTION = {
    "plain": _attended(None),
    "causal": _attended(None, is_causal=True),
    "a row that sees nothing": _attended(_SEEN),
    "a row that sees nothing, added": _attended(torch.zeros(4, 4, dtype=X.dtype).masked_fill(~_SEEN, MINUS)),
    "a row that sees almost nothing": _attended(torch.zeros(4, 4, dtype=X.dtype).masked_fill(~_SEEN, -1e300)),
    "a finite mask": _attended(normal(4, 4, seed=9)),
    "scaled": _attended(None, scale=0.3),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_pytorchs(name):
    inputs = normal(3, 3, 4, 2, seed=8)
    model = ATTENTION[name]
    case = Case(model, inputs, (3, 4, 2))
    for convention in ("first", "shapley"):
        checks.check_outputs(case, convention=convention)
        checks.check_edges(case, convention=convention)
        checks.check_examples(case, convention=convention)
    checks.check_sum(case, convention="shapley")
    weight = torch.eye(2, dtype=X.dtype).requires_grad_()
    found = rt.contextual_decomposition(
        lambda x: model(x @ weight), inputs, regions_of((3, 4, 2)), convention="shapley", create_graph=True
    )
    assert found.relevant.isfinite().all()
    (gradient,) = torch.autograd.grad(found.relevant.sum(), weight)
    assert gradient.isfinite().all()


def test_attention_with_grouped_heads():
    def model(x):
        q, k = x.split([4, 2], 1)
        return F.scaled_dot_product_attention(q, k, k, enable_gqa=True)

    _all(model, normal(2, 6, 4, 2, seed=8))


def test_decomposed_attention_is_softmax_and_product():
    """Under "shapley": the two-player values of the scores, of the softmax of each row, and of the weighted sum."""
    inputs, region = normal(2, 3, 4, 2, seed=8), torch.rand(1, 3, 4, 2, generator=draws(2)) < 0.5
    found = rt.contextual_decomposition(_attended(None), inputs, region, convention="shapley").relevant[:, 0]
    q, k, v = inputs.unbind(1)
    qb, kb, vb = (inputs * region).unbind(1)
    scores = q @ k.transpose(1, 2) / 2**0.5
    part = (qb @ k.transpose(1, 2) + q @ kb.transpose(1, 2)) / 2 / 2**0.5
    weights, even = scores.softmax(-1), 1 / 4
    moved = (part.softmax(-1) - even + weights - (scores - part).softmax(-1)) / 2
    rest = (weights - even) - moved
    # the even weights by size, or by the row where neither part is a hundredth of them
    own = moved.abs().sum(-1, keepdim=True) / (moved.abs() + rest.abs()).sum(-1, keepdim=True)
    share = (moved.abs() + own * 0.01 * even) / (moved.abs() + rest.abs() + 0.01 * even)
    weighted = moved + share * even
    expected = (weighted @ v + weights @ vb) / 2
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fast", [True, False])
def test_an_encoder_with_a_sentence_of_padding_only(fast):
    """A mask over all keys of one example: zeros out of the attention, as PyTorch has it."""
    layer = nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True).double().eval()
    padding = torch.tensor([[False] * 4, [True] * 4])
    kwargs = {"src_key_padding_mask": padding if fast else torch.zeros(2, 4, dtype=X.dtype).masked_fill(padding, MINUS)}
    inputs = normal(2, 4, 6, seed=8)

    def model(x):
        return layer(x, **kwargs)

    found = rt.contextual_decomposition(model, inputs, regions_of((4, 6)), convention="shapley")
    with torch.enable_grad():  # the slow path: the fast one gives NaN
        expected = model(inputs.clone().requires_grad_()).detach()
    assert expected.isfinite().all()
    assert torch.allclose(found.outputs, expected, rtol=0, atol=1e-12)
    assert found.relevant.isfinite().all()


# ---- namesakes with other signatures


IMAGES = normal(3, 4, 5, 5, seed=7)
M, V, G, B = normal(4, seed=11), normal(4, seed=12).abs() + 0.5, normal(4, seed=13), normal(4, seed=14)
NAMESAKES = {
    "batch_norm": (
        lambda x: torch.batch_norm(x, G, B, M, V, False, 0.1, 1e-5, False),
        lambda x: F.batch_norm(x, M, V, G, B),
    ),
    "batch_norm of the batch": (
        lambda x: torch.batch_norm(x, G, B, None, None, True, 0.1, 1e-5, False),
        lambda x: F.batch_norm(x, None, None, G, B, True),
    ),
    "instance_norm": (
        lambda x: torch.instance_norm(x, G, B, None, None, True, 0.1, 1e-5, False),
        lambda x: F.instance_norm(x, None, None, G, B),
    ),
    "instance_norm by name": (
        lambda x: torch.instance_norm(
            x, weight=G, bias=B, running_mean=M, running_var=V, use_input_stats=False, momentum=0.1, eps=1e-5,
            cudnn_enabled=False,
        ),
        lambda x: F.instance_norm(x, M, V, G, B, False),
    ),
    "layer_norm": (
        lambda x: torch.layer_norm(x, (5,), eps=1e-3, cudnn_enable=False),
        lambda x: F.layer_norm(x, (5,), None, None, 1e-3),
    ),
    "group_norm": (
        lambda x: torch.group_norm(x, 2, G, B, 1e-5, False),
        lambda x: F.group_norm(x, 2, G, B),
    ),
    "dropout off": (lambda x: torch.dropout(x, p=0.5, train=False).tanh(), lambda x: x.tanh()),
    "dropout off by position": (lambda x: torch.dropout(x, 0.5, False).tanh(), lambda x: x.tanh()),
    "feature_dropout off": (lambda x: torch.feature_dropout(x, 0.5, False).tanh(), lambda x: x.tanh()),
    "alpha_dropout off": (lambda x: torch.alpha_dropout(x, p=0.5, train=False).tanh(), lambda x: x.tanh()),
    "adaptive_max_pool1d": (
        lambda x: torch.adaptive_max_pool1d(x.flatten(2), 3)[0],
        lambda x: F.adaptive_max_pool1d(x.flatten(2), 3),
    ),
    "max_pool2d by name": (
        lambda x: torch.max_pool2d(input=x, kernel_size=2),
        lambda x: F.max_pool2d(x, 2),
    ),
    "max over an axis": (lambda x: torch.max(x, axis=1)[0], lambda x: x.max(1).values),
    "max, kept": (lambda x: torch.max(x, axis=1, keepdims=True)[0], lambda x: x.max(1, True).values),
    "amax": (lambda x: x.amax(axis=(1, 2), keepdims=True), lambda x: x.amax((1, 2), True)),
    "sort": (lambda x: x.sort(axis=1)[0], lambda x: x.sort(1).values),
    "sort, stable": (lambda x: x.sort(stable=True, axis=1, descending=True)[0], lambda x: x.sort(1, True).values),
    "var": (lambda x: torch.var(x, axis=1, keepdims=True), lambda x: x.var(1, keepdim=True)),
    "std": (lambda x: x.std(axis=1, correction=0), lambda x: x.std(1, False)),
    "std of all": (lambda x: x.std() + x, lambda x: x.std(unbiased=True) + x),
    "var_mean": (lambda x: sum(torch.var_mean(x, axis=1)), lambda x: x.var(1) + x.mean(1)),
    "median": (lambda x: x.median(axis=2)[0], lambda x: x.median(2).values),
    "softmax": (lambda x: torch.softmax(x, axis=1), lambda x: F.softmax(x, 1)),
    "cat": (lambda x: torch.cat([x, IMAGES], axis=2).tanh(), lambda x: torch.cat([x, IMAGES], 2).tanh()),
    "squeeze": (lambda x: x[:, :1].squeeze(axis=1), lambda x: x[:, 0]),
    "norm": (lambda x: torch.norm(x, dim=1), lambda x: torch.norm(input=x, dim=1)),
    "glu": (lambda x: F.glu(input=x, dim=1), lambda x: F.glu(x, 1)),
    "cumsum": (lambda x: torch.cumsum(input=x, axis=1), lambda x: x.cumsum(1)),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMESAKES)
def test_namesakes_are_told_apart(name):
    one, other = NAMESAKES[name]
    _same(one, other, inputs=IMAGES)
    if "of all" not in name:  # of all examples
        _all(one, IMAGES, conventions=("first",))


@pytest.mark.parametrize("train", [lambda x: torch.dropout(x, 0.5, train=True), lambda x: torch.dropout_(x, 0.5, True)])
def test_dropout_by_another_name_draws(train):
    torch.manual_seed(0)
    found = rt.contextual_decomposition(lambda x: train(x * 1), X, regions_of((6,)), training=True)
    torch.manual_seed(0)
    assert torch.equal(found.outputs, train(X * 1))
    assert (found.outputs == 0).any()


OUT = {
    "relu": lambda x: torch.tanh(x, out=torch.empty_like(X)) + x,
    "add": lambda x: torch.add(x, 1, out=torch.empty_like(X)) + x,
    "cat": lambda x: torch.cat([x, x], 1, out=torch.empty(3, 12, dtype=X.dtype)),
    "matmul into what is split": lambda x: torch.matmul(C, W, out=x.clone()) + x,
    "max": lambda x: torch.max(x, 1, out=(torch.empty(3), torch.empty(3, dtype=torch.long)))[0],
}


@pytest.mark.parametrize("name", OUT)
def test_results_written_elsewhere_are_refused(name):
    with pytest.raises(DecompositionError, match="out="):
        rt.contextual_decomposition(OUT[name], X, regions_of((6,)))


def test_no_out_is_no_out():
    _all(lambda x: torch.add(x, 1, out=None))


# ---- views


VIEWS = {
    "reshape_as": lambda y: y.reshape_as(torch.empty(2, 9)[:, :9]) if len(y) == 3 else y,
    "view_as": lambda y: y.view_as(C),
    "expand_as": lambda y: y.expand_as(C),
    "broadcast_to": lambda y: y.broadcast_to(2, 3, 6)[0],
    "broadcast_to by torch": lambda y: torch.broadcast_to(y, (3, 6)),
    "unfold": lambda y: y.unfold(1, 2, 2),
    "detach": lambda y: y.detach(),
    "data": lambda y: y.data,
    "T": lambda y: y.T,
    "mT": lambda y: y.mT,
    "mH": lambda y: y.mH,
    "adjoint": lambda y: y.adjoint(),
    "unflatten": lambda y: y.unflatten(1, (2, 3)),
    "positive": lambda y: y.positive(),
    "real": lambda y: y.real,
    "view": lambda y: y.view(6, 3),
    "reshape": lambda y: y.reshape(6, 3),
    "ravel": lambda y: y.ravel(),
    "contiguous": lambda y: y.contiguous(),
    "transpose": lambda y: y.swapaxes(0, 1),
    "diagonal": lambda y: y.diagonal(),
    "unbind": lambda y: y.unbind(1)[0],
    "hsplit": lambda y: torch.hsplit(y, 2)[1],
    "narrow": lambda y: y.narrow(1, 1, 2),
    "atleast_3d": lambda y: torch.atleast_3d(y),
    "dropout that is off": lambda y: F.dropout(y, 0.5, False),
    "the same precision": lambda y: y.double(),
    "view_as_complex": lambda y: torch.view_as_complex(y.unflatten(1, (3, 2))).real,
    "squeeze": lambda y: y.squeeze(),
    "movedim": lambda y: torch.movedim(y, 0, 1),
    "expand": lambda y: y.expand(2, -1, -1)[1],
}
COPIES = {
    "clone": lambda y: y.clone(),
    "advanced indexing": lambda y: y[:, [0, 2]],
    "a mask": lambda y: y[y > 0],
    "index_select": lambda y: y.index_select(1, EVEN),
    "plus nothing": lambda y: y + 0,
    "minus nothing": lambda y: y - 0.0,
    "times one": lambda y: y * 1,
    "reshape that copies": lambda y: y.T.reshape(18),
    "contiguous that copies": lambda y: y.T.contiguous(),
    "repeat": lambda y: y.repeat(1, 2),
    "a copy in its precision": lambda y: y.to(torch.float64, copy=True),
    "flip": lambda y: y.flip(1),
}


def _then(take, into_view):
    """Something is taken of y, and then one of the two is changed; the other one is read."""

    def model(x):
        y = x @ W
        other = take(y)
        (other if into_view else y).mul_(3)
        return (y if into_view else other).flatten()[:3] + 0 * x[:, 0]

    return model


@pytest.mark.parametrize("into_view", [True, False])
@pytest.mark.parametrize("name", VIEWS)
def test_changes_in_place_reach_views(name, into_view):
    """Or are refused: a value from before the change is never read in silence."""
    model = _then(VIEWS[name], into_view)
    moved = (X @ W).flatten()
    assert not torch.allclose(model(X), VIEWS[name](moved.reshape(3, 6)).flatten()[:3]), "PyTorch has no view here"
    try:
        found = rt.contextual_decomposition(model, X, regions_of((6,)))
    except DecompositionError as refused:
        assert "in place" in str(refused)  # noqa: PT017
    else:
        assert torch.allclose(found.outputs, model(X))


@pytest.mark.parametrize("into_view", [True, False])
@pytest.mark.parametrize("name", COPIES)
def test_changes_in_place_do_not_reach_copies(name, into_view):
    model = _then(COPIES[name], into_view)
    found = rt.contextual_decomposition(model, X, regions_of((6,)))
    assert torch.allclose(found.outputs, model(X))
    read = (lambda y: y) if into_view else COPIES[name]
    expected = rt.contextual_decomposition(lambda x: read(x @ W).flatten()[:3] + 0 * x[:, 0], X, regions_of((6,)))
    assert torch.allclose(found.relevant, expected.relevant)


# ---- where a function has no value, or no finite one


UNDEFINED = {
    "log of zeros": lambda x: F.relu(x).log().exp() + x,
    "rsqrt of zeros": lambda x: 1 / F.relu(x).rsqrt() + x,
    "reciprocal of zeros": lambda x: F.relu(x).reciprocal().reciprocal() + x,
    "a quotient by zeros": lambda x: (1 / F.relu(x)).clamp(max=5) + x,
    "sqrt of zeros": lambda x: F.relu(x).sqrt() + x,
    "a negative power of zeros": lambda x: (F.relu(x) ** -0.5).clamp(max=5) + x,
    "polygamma": lambda x: torch.polygamma(1, x.abs() + 1),
    "polygamma as a method": lambda x: (x.abs() + 1).polygamma(2),
    "inv": lambda x: torch.linalg.inv(x.unflatten(1, (2, 3)) @ x.unflatten(1, (3, 2)) + 5 * torch.eye(2).double()),
    "inverse": lambda x: torch.inverse(x.unflatten(1, (2, 3)) @ x.unflatten(1, (3, 2)) + 5 * torch.eye(2).double()),
    "solve": lambda x: torch.linalg.solve(
        x.unflatten(1, (2, 3)) @ x.unflatten(1, (3, 2)) + 5 * torch.eye(2).double(), x.unflatten(1, (2, 3))
    ),
    "solve by a constant": lambda x: torch.linalg.solve(W + 5 * torch.eye(6).double(), x.T).T,
    "solve for a constant": lambda x: torch.linalg.solve(
        x.unflatten(1, (2, 3)) @ x.unflatten(1, (3, 2)) + 5 * torch.eye(2).double(), C.unflatten(1, (2, 3))
    ),
    "solve for vectors": lambda x: torch.linalg.solve(
        x.unflatten(1, (2, 3)) @ x.unflatten(1, (3, 2)) + 5 * torch.eye(2).double(), x[:, :2]
    ),
    "solve from the right": lambda x: torch.linalg.solve(
        x.unflatten(1, (3, 2)) @ x.unflatten(1, (2, 3)) + 5 * torch.eye(3).double(), x.unflatten(1, (2, 3)), left=False
    ),
    "variance of one": lambda x: x[:, :1].var(1, correction=0, keepdim=True) + x,
    "deviation of one": lambda x: x[:, :1].std(1, False, True) + x,
    "deviation of equals": lambda x: x[:, :1].expand(-1, 4).std(1, keepdim=True) + x,
    "xlogy": lambda x: torch.xlogy(F.relu(x), F.relu(x)) + x,
    "xlogy of a constant": lambda x: torch.xlogy(C.abs(), x.abs() + 1),
    "xlogy by a constant": lambda x: torch.xlogy(x, C.abs() + 1),
    "a power by a tensor": lambda x: (x.abs() + 1) ** torch.tensor(-1.5),
    "whole powers by a tensor": lambda x: x ** torch.tensor([1.0, 2, 3, 2, 1, 2]),
    "powers of two": lambda x: 2**x,
    "remainder": lambda x: torch.remainder(x, 0.7) + x,
    "floor of a sum": lambda x: (x + 5) // 2,
    "sign of a sum": lambda x: (x + 0.1 + 0.2).sign() + (x - 0.3).ceil() + (x * 3 + 0.7).frac() + torch.fmod(x + 5, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", UNDEFINED)
def test_functions_without_a_value_at_zero_stay_finite(name):
    case = Case(UNDEFINED[name], X, (6,))
    for convention in ("first", "shapley"):
        checks.check_outputs(case, convention=convention)
        checks.check_edges(case, convention=convention)
    checks.check_sum(case, convention="shapley")


NOT_NUMBERS = {
    "remainder": lambda x: torch.remainder(C, x),
    "fmod": lambda x: torch.fmod(C, x),
    "floor_divide": lambda x: torch.floor_divide(C, x),
    "pow": lambda x: x.flip(1).abs() ** x,
    "div": lambda x: torch.div(C, x, rounding_mode="trunc"),
}


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("name", NOT_NUMBERS)
def test_parts_that_are_no_numbers_are_an_error(name, graph):
    with pytest.raises(DecompositionError, match=name):
        rt.contextual_decomposition(NOT_NUMBERS[name], X, regions_of((6,)), create_graph=graph)


def test_gradients_of_a_deviation_of_equals_are_finite():
    weight = torch.eye(6, dtype=X.dtype).requires_grad_()
    found = rt.contextual_decomposition(
        lambda x: (x @ weight)[:, :1].expand(-1, 4).std(1), X, regions_of((6,)), create_graph=True
    )
    (gradient,) = torch.autograd.grad(found.relevant.sum(), weight)
    assert gradient.isfinite().all()


# ---- under every convention


@pytest.mark.parametrize("convention", ["first", "shapley", "published"])
def test_several_slopes(convention):
    layer = nn.PReLU(6).double()
    with torch.no_grad():
        layer.weight.copy_(C[0])
    wide = nn.PReLU(4).double()
    checks.check_outputs(Case(layer, X, (6,)), convention=convention)
    checks.check_outputs(Case(wide, IMAGES, (4, 5, 5)), convention=convention)
    if convention != "published":
        _all(layer, conventions=(convention,))
        _all(wide, IMAGES, conventions=(convention,))


@pytest.mark.parametrize("shape", [(300,), (257,), (3, 258)])
def test_fourier_spaces_of_any_length(shape):
    inputs, weight = normal(2, *shape, seed=3), normal(shape[-1], 3, seed=4)
    space = rt.spaces.Fourier(dims=1)
    regions = regions_of(shape)
    found, rest = (
        rt.contextual_decomposition(lambda x: (x @ weight).tanh(), inputs, each, space=space, convention="shapley")
        for each in (regions, ~regions)
    )
    assert torch.allclose(found.relevant + rest.relevant, found.outputs.unsqueeze(1), rtol=0, atol=1e-10)
    assert found.relevant.abs().max() > 1e-3


COMPLEX = {
    "complex of two": lambda x: torch.view_as_real(torch.complex(x, x.flip(1))).flatten(1).tanh(),
    "complex with a constant": lambda x: torch.complex(x, C).abs(),
    "complex by name": lambda x: torch.complex(real=C, imag=x).real + torch.complex(real=C, imag=x).imag,
    "a spectrum": lambda x: torch.fft.rfft(x).abs(),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_numbers_keep_their_parts(name):
    _all(COMPLEX[name])


CALLS = {
    "relu": lambda x: torch.relu(input=x) + x,
    "relu in place": lambda x: F.relu(input=x * 1, inplace=True) + x,
    "tanh": lambda x: torch.tanh(input=x),
    "gelu": lambda x: F.gelu(input=x),
    "sum": lambda x: torch.sum(input=x, dim=1),
    "reshape": lambda x: torch.reshape(input=x, shape=(3, 2, 3)),
    "permute": lambda x: torch.permute(input=x, dims=(0, 1)),
    "dropout": lambda x: F.dropout(input=x, p=0.5, training=False),
    "softmax": lambda x: F.softmax(input=x, dim=1),
    "batch_norm": lambda x: F.batch_norm(input=x, running_mean=C[0], running_var=C[1].abs() + 1),
    "mul": lambda x: torch.mul(x, other=x),
    "pow": lambda x: torch.pow(input=x, exponent=2),
    "pow of a number": lambda x: torch.pow(self=2, exponent=x),
    "einsum": lambda x: torch.einsum("bi,ij->bj", x, W),
    "tensordot": lambda x: torch.tensordot(x, b=W, dims=1),
    "chain_matmul": lambda x: torch.chain_matmul(x, W, W),
    "flatten": lambda x: torch.flatten(input=x, start_dim=1),
    "topk": lambda x: torch.topk(input=x, k=2)[0],
    "kthvalue": lambda x: torch.kthvalue(input=x, k=2, dim=1)[0],
    "gather": lambda x: torch.gather(input=x, dim=1, index=LEFT),
    "unbind": lambda x: torch.unbind(input=x, dim=1)[0],
    "split": lambda x: torch.split(x, split_size_or_sections=2, dim=1)[0],
    "requires_grad_": lambda x: x + (x * 1).requires_grad_().detach(),
    "prelu": lambda x: F.prelu(input=x, weight=torch.tensor([0.3], dtype=X.dtype)),
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.5),
    "clone": lambda x: torch.clone(input=x),
    "normalize": lambda x: F.normalize(input=x, dim=1),
    "interpolate": lambda x: F.interpolate(input=x[:, None], scale_factor=2),
    "bilinear": lambda x: F.bilinear(input1=x, input2=C, weight=W[None]),
}


@pytest.mark.filterwarnings("ignore:torch.chain_matmul is deprecated")
@pytest.mark.parametrize("name", CALLS)
def test_arguments_by_name(name):
    _all(CALLS[name])


@pytest.mark.parametrize("name", ["tan_h", "sum over too much"])
def test_the_models_own_mistakes_stay_its_own(name):
    model = {
        "tan_h": lambda x: x.tan_h(),
        "sum over too much": lambda x: x.sum(5),
    }[name]
    with pytest.raises((AttributeError, IndexError)):
        rt.contextual_decomposition(model, X, regions_of((6,)))


def test_a_rule_that_does_not_know_a_call_says_so():
    """What PyTorch takes, and the rule does not expect, names the operation and how to enter a rule."""

    @rule("special_i0", formula="", source="a test")
    def _of_two(func, args, kwargs):
        x, _y = args
        return x

    try:
        with pytest.raises(DecompositionError, match=r"special_i0, called in a way.*unpack") as found:
            rt.contextual_decomposition(torch.special.i0, X, regions_of((6,)))
        assert "rule(" in str(found.value)
    finally:
        del RULES["special_i0"]


REFUSED = {
    "as_strided": lambda x: x.as_strided((3,), (6,)) + x[:, :1],
    "view as another type": lambda x: x.view(torch.int64).double() + x,
    "scatter_reduce with": lambda x: x.scatter_reduce(1, LEFT, C[:, :1], "prod"),
    "median": lambda x: x.median() + x,
    "meshgrid": lambda x: torch.meshgrid(x[0], x[1], indexing="ij")[0],
    "sort of token numbers": lambda t: TABLE[t.sort(1)[0]] + TABLE[t],
    "getitem by token numbers": lambda t: t[0][t] + t,
    "scatter_add at places": lambda t: TABLE[t].sum(2).scatter_add(1, t % 5, C[:, :5]),
    "embedding_bag": lambda t: torch.embedding_bag(TABLE, t.flatten(), torch.tensor([0]))[0],
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_has_no_parts_is_refused_by_name(what):
    tokens = "token" in what or "places" in what or "bag" in what
    with pytest.raises(DecompositionError, match=what):
        rt.contextual_decomposition(REFUSED[what], WORDS if tokens else X, regions_of((5 if tokens else 6,)))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_states_that_are_constants_are_shared(kind):
    """Learned first states, and a constant input where the state is split, as in a decoder."""
    layer = calibrated(getattr(nn, kind)(6, 4, batch_first=True), normal(3, 5, 6, seed=6))
    cell = getattr(nn, f"{kind}Cell")(6, 4).double()
    start = normal(1, 1, 4, seed=7)

    def begun(x):
        state = start.expand(1, len(x), 4).contiguous()
        return layer(x, (state, state) if kind == "LSTM" else state)[0][:, -1]

    def stepped(x):
        state = cell(C[:1].expand(len(x), 6), (x[:, 0, :4], x[:, 1, :4]) if kind == "LSTM" else x[:, 0, :4])
        return state[0] if kind == "LSTM" else state

    for model in (begun, stepped):
        case = Case(model, normal(3, 5, 6, seed=8), (5, 6))
        for convention in ("first", "shapley"):
            checks.check_outputs(case, convention=convention)
            checks.check_edges(case, convention=convention)
        checks.check_sum(case, convention="shapley")
        checks.check_examples(case, convention="shapley")


# ---- coverage


def _planted(func, args, kwargs):
    """A constant that goes to a region and to its complement."""
    mask, x, c = args
    return x.made(torch.where(mask, x.total, c), torch.where(mask, x.relevant, c))


def test_coverage_sees_what_goes_to_both_parts():
    """The whole input's part is right all the same."""
    model = CONSTANTS["where with a whole tensor"]
    good = coverage(model, X)
    assert good.ok
    assert good.gap < 1e-12
    own = RULES["where"]
    RULES["where"] = replace(own, rule=_planted)
    try:
        wrong = coverage(model, X)
        whole = rt.contextual_decomposition(model, X, torch.ones(1, 6, dtype=torch.bool))
        assert torch.equal(whole.relevant[:, 0], whole.outputs)
    finally:
        RULES["where"] = own
    assert not wrong.ok
    assert wrong.gap > 0.1
    assert "miss the output" in str(wrong)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ZOO)
def test_every_model_is_covered(name, dtype):
    case = ZOO[name]()
    inputs = case.inputs.to(dtype) if case.inputs.is_floating_point() else case.inputs
    found = coverage(case.model.to(dtype), inputs)
    assert found.ok, str(found)


def test_coverage_of_infinite_outputs():
    assert coverage(lambda x: _masked(x).log_softmax(1), X).ok
