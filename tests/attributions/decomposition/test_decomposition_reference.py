"""Biases apart: every operation is a game of the region and the rest, from a reference on, which is nobody's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from attributions.decomposition.models import ZOO, calibrated
from attributions.decomposition.test_decomposition_gates import SPANS, STEPS, gates, played, regions, sigmoid
from contracts import decomposition as checks
from contracts.problems import normal
from rightly.attributions.decomposition import CONVENTIONS, RULES, Convention, decompose, rule
from rightly.core.errors import ArgumentError, DecompositionError, ShapeError
from rightly.evaluation import exact_shapley
from rightly.workflows import operators

CLOSE = 1e-12
EXAMPLES, FEATURES = 3, 6
ZERO = rt.references.Constant(0.0)
START = torch.tensor([0.3, -0.5, 0.1, 0.8, -0.2, 0.4], dtype=torch.float64)


def split(model, x, regions, **options):
    return rt.contextual_decomposition(model, x, regions, convention="reference", **options)


def game(function, x, regions, start):
    """(B, R, *O): what a region is worth, alone and with all the rest, on the average."""
    found = []
    for region in regions:
        alone, without = torch.where(region, x, start), torch.where(region, start, x)
        found.append((function(alone) - function(start.expand_as(x)) + function(x) - function(without)) / 2)
    return torch.stack(found, 1)


ONE = {
    "relu": F.relu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "square": torch.square,
    "cube": lambda x: x**3,
    "exp": torch.exp,
    "abs": torch.abs,
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "sign": torch.sign,
    "softmax": lambda x: torch.softmax(x, -1),
    "log_softmax": lambda x: F.log_softmax(x, -1),
    "logsumexp": lambda x: torch.logsumexp(x, -1, keepdim=True),
    "layer_norm": lambda x: F.layer_norm(x, (FEATURES,)),
    "rms_norm": lambda x: F.rms_norm(x, (FEATURES,)),
    "max_pool1d": lambda x: F.max_pool1d(x[:, None], 2)[:, 0],
    "avg_pool1d": lambda x: F.avg_pool1d(x[:, None], 2)[:, 0],
    "max": lambda x: x.max(1, keepdim=True).values,
    "amax": lambda x: x.amax(1, keepdim=True),
    "sort": lambda x: x.sort(1).values,
    "topk": lambda x: x.topk(2).values,
    "std": lambda x: x.std(1, keepdim=True),
    "norm": lambda x: x.norm(dim=1, keepdim=True),
    "prod": lambda x: x.prod(1, keepdim=True),
    "glu": F.glu,
    "x * y": lambda x: x * x.flip(1),
    "x @ y": lambda x: x @ x.T,
    "maximum": lambda x: torch.maximum(x, x.flip(1)),
    "sums": lambda x: 2 * x - x.flip(1) + 0.7,
    "cat": lambda x: torch.cat([x, torch.ones_like(x)], 1),
    "linear": lambda x: F.linear(x, START.diag(), START),
}


@pytest.mark.parametrize("name", ONE)
def test_an_operation_is_a_game_of_two(name):
    x, found = normal(EXAMPLES, FEATURES, seed=1), checks.regions_of((FEATURES,), 5)
    parts = split(ONE[name], x, found, reference=rt.references.Constant(START))
    expected = game(ONE[name], x, found, START)
    if name == "x @ y":  # among examples: each of them has the region
        assert expected.shape == parts.relevant.shape
    assert (parts.relevant - expected).abs().max() < CLOSE
    assert (parts.reference - ONE[name](START.expand_as(x))).abs().max() < CLOSE
    assert expected.abs().max() > 0.01


SLOPED = {
    "sqrt": torch.sqrt,
    "log": torch.log,
    "reciprocal": torch.reciprocal,
    "1 / x": lambda x: 1 / x,
    "rsqrt": torch.rsqrt,
    "x ** 0.3": lambda x: x**0.3,
    "x ** -2": lambda x: x**-2,
    "asin": lambda x: torch.asin(x / 10),
}


@pytest.mark.parametrize("name", SLOPED)
def test_a_function_without_a_value_everywhere_has_one_slope_for_both_parts(name):
    """A part alone may be where it has none; the two are as far from the reference as the total, together."""
    x, start = normal(EXAMPLES, FEATURES, seed=1).abs() + 0.1, torch.full((FEATURES,), 0.7, dtype=torch.float64)
    some = checks.regions_of((FEATURES,), 5)
    found = split(SLOPED[name], x, some, reference=rt.references.Constant(0.7))
    change = SLOPED[name](x) - SLOPED[name](start)
    assert (found.relevant - change[:, None] * some).abs().max() < CLOSE
    same = split(SLOPED[name], start.expand_as(x).contiguous(), some, reference=rt.references.Constant(0.7))
    assert torch.equal(same.relevant, torch.zeros_like(same.relevant))


@pytest.mark.parametrize("name", ["sqrt", "log", "rsqrt", "reciprocal", "x ** 0.3"])
def test_such_a_function_is_a_game_where_a_part_is_between_nothing_and_everything(name):
    """Of what several features make together; outside, the two formulas agree at the ends."""
    x = normal(EXAMPLES, FEATURES, seed=1).abs() + 0.1
    start, some = torch.full((FEATURES,), 0.05, dtype=torch.float64), checks.regions_of((FEATURES,), 5)
    found = split(lambda x: SLOPED[name](x.sum(1)), x, some, reference=rt.references.Constant(0.05)).relevant
    expected = game(lambda x: SLOPED[name](x.sum(1)), x, some, start)
    assert (found - expected).abs().max() < CLOSE
    assert expected.abs().max() > 0.01


NORMS = {
    "rms": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    "rms, one over": lambda x: x * (1 / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()),
    "length": lambda x: x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12),
    "deviation": lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6),
    "sum": lambda x: x / (x.abs().sum(-1, keepdim=True) + 1e-8),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_that_are_written_out_do_not_blow_up_at_zero(name):
    """They divide by next to nothing there; a quotient is a game of its own, and parts are as large as outputs."""
    x, some = normal(EXAMPLES, FEATURES, seed=1), checks.regions_of((FEATURES,), 5)
    found, rest = split(NORMS[name], x, some), split(NORMS[name], x, ~some)
    assert found.relevant.abs().max() < 2 * found.outputs.abs().max()
    assert (found.irrelevant - rest.relevant).abs().max() < 1e-10
    if name == "sum":  # what is divided by adds up over features, so that a quotient is the game itself
        expected = game(NORMS[name], x, some, torch.zeros(FEATURES).double())
        assert (found.relevant - expected).abs().max() < CLOSE


WHOLE = {
    "rms": lambda x: F.rms_norm(x, (6,), eps=1e-6),
    "length": F.normalize,
    "deviation": lambda x: F.layer_norm(x, (6,)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_norms_that_are_written_out_err_more_than_torchs_own(name):
    """By the exact value of each feature against all the others; the numbers are those of decision 17."""
    errors = torch.empty(2, 8)
    for draw in range(8):
        weight, x, single = normal(6, 3, seed=100 + draw), normal(40, 6, seed=draw), torch.eye(6, dtype=torch.bool)
        for which, norm in enumerate((NORMS[name], WHOLE[name])):

            def model(x, norm=norm, weight=weight):
                return torch.tanh(norm(x) @ weight)[:, 0]

            exact = exact_shapley(model, x, single, players="two")
            errors[which, draw] = (split(model, x, single).relevant - exact).abs().sum() / exact.abs().sum()
    assert (errors[1] < errors[0]).all()
    assert 0.29 < errors[0].min() < errors[0].max() < 0.61
    assert errors[1].max() < 0.36


ROOTS = {
    "sqrt of a mean of squares": lambda x: x.square().mean(-1).sqrt(),
    "sqrt of sizes": lambda x: x.abs().sqrt().mean(-1),
    "power of sizes": lambda x: (x.abs() ** 0.5).mean(-1),
    "acosh": lambda x: torch.acosh(1 + x.abs()).mean(-1),
}


@pytest.mark.parametrize("name", ROOTS)
def test_roots_of_a_reference_of_zeros_can_be_trained(name):
    """Their own slope is infinite there, and 0 times infinity is no gradient."""
    torch.manual_seed(0)
    layer = nn.Conv1d(1, 8, 5, bias=False)
    found = split(
        lambda x: ROOTS[name](layer(x)), torch.randn(4, 1, 32), torch.arange(32)[None, None] < 16, create_graph=True
    )
    (gradient,) = torch.autograd.grad(found.relevant.abs().mean() + found.reference.sum(), layer.weight)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def test_a_pole_between_a_point_and_its_reference_can_be_trained():
    weight = torch.ones((), requires_grad=True)
    x, some = torch.tensor([[-1.0, 2.0]]), torch.eye(2, dtype=torch.bool)
    found = split(lambda x: 1 / (x * weight), x, some, reference=rt.references.Constant(1.0), create_graph=True)
    (gradient,) = torch.autograd.grad(found.relevant.sum(), weight)
    assert abs(gradient.item() - 2.5) < 1e-5  # (1/-1 - 1) + (1/2 - 1), over the weight


@pytest.mark.parametrize("function", [torch.sign, torch.floor, torch.ceil])
def test_rounding_does_not_jump(function):
    x, weight = normal(5, 64, seed=1), normal(64, 300, seed=2)
    edges = torch.zeros(2, 64, dtype=torch.bool)
    edges[1] = True
    found = split(lambda x: function(x @ weight), x, edges)
    assert torch.equal(found.relevant[:, 0], torch.zeros_like(found.outputs))
    assert torch.equal(found.relevant[:, 1], found.outputs - found.reference)


def test_a_mask_that_is_made_of_the_input_is_no_constant():
    def heads(x):
        return x.unflatten(-1, (2, 3)).transpose(1, 2)

    def model(x):
        mask = (x @ x.transpose(1, 2))[:, None]
        return F.scaled_dot_product_attention(heads(x), heads(x), heads(x), attn_mask=mask)

    x, start = normal(2, 4, 6, seed=1), normal(4, 6, seed=2)
    found = split(model, x, checks.regions_of((4, 6), 2), reference=rt.references.Constant(start))
    assert (found.reference - model(start.expand(2, 4, 6))).abs().max() < CLOSE


def test_a_slope_without_bound_where_nothing_changes():
    x = torch.tensor([[0.0, 4.0, 0.0]], dtype=torch.float64)
    found = split(lambda x: torch.sqrt(x).sum(1), x, torch.eye(3, dtype=torch.bool))
    assert torch.equal(found.relevant, torch.tensor([[0.0, 2.0, 0.0]], dtype=torch.float64))


def test_what_is_infinite_is_no_parts():
    hidden = torch.tensor([False, True, False, False, True, False])

    def model(x):
        return F.log_softmax(x.masked_fill(hidden, -torch.inf), -1)

    def seen(x):
        return F.log_softmax(x[:, ~hidden], -1)

    x, some = normal(EXAMPLES, FEATURES, seed=1), checks.regions_of((FEATURES,), 5)
    expected = game(seen, x, some, torch.zeros(FEATURES).double())
    found = split(model, x, some).relevant
    assert (found[..., ~hidden] - expected).abs().max() < CLOSE
    assert torch.equal(found[..., hidden], torch.zeros_like(found[..., hidden]))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_states_and_padding_that_are_given_are_nobodys(kind):
    layer = calibrated(getattr(nn, kind)(5, 4, batch_first=True), normal(2, STEPS, 5, seed=2))
    state = normal(1, 2, 4, seed=7)

    def model(x):
        begin = (state, state) if kind == "LSTM" else state
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([6, 3]), batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(layer(packed, begin)[0], batch_first=True, padding_value=0.7)[0]

    x, some = normal(2, STEPS, 5, seed=1), regions()
    found, rest = split(model, x, some), split(model, x, ~some)
    with torch.no_grad():
        assert (found.reference - model(torch.zeros_like(x))).abs().max() < CLOSE
    assert (found.irrelevant - rest.relevant).abs().max() < CLOSE


def _unwatched(name):
    """Not the layers that draw anew."""
    return name not in ("FractionalMaxPool2d", "FractionalMaxPool3d")


@pytest.mark.parametrize("name", [*filter(_unwatched, operators.LAYERS), *operators.FUNCTIONS])
def test_every_layer_and_function_adds_up(name):
    draws = torch.Generator().manual_seed(3)
    if name in operators.LAYERS:
        make, shape = operators.LAYERS[name]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = make().double().eval()
    else:
        model, shape = operators.FUNCTIONS[name], (6,)
    x = torch.randn(2, *shape, generator=draws, dtype=torch.float64) if shape else torch.randint(9, (2, 5))
    some = torch.rand(3, *x.shape[1:], generator=draws) < 0.5
    some[0] = True
    one, other = split(model, x, some), split(model, x, ~some)
    both, size = (one.outputs - one.reference)[:, None], one.outputs.abs().max()
    assert (one.relevant + other.relevant - both).abs().max() < 1e-10 * size
    assert (one.irrelevant - other.relevant).abs().max() < 1e-10 * size
    assert other.relevant[:, 0].abs().max() < CLOSE * size


def test_what_draws_anew_at_each_call_is_refused():
    with pytest.raises(DecompositionError, match="draws its windows anew"):
        split(nn.FractionalMaxPool2d(2, 2), torch.rand(2, 3, 8, 8), checks.regions_of((3, 8, 8), 2))


def lstm(layer, words, start, stop):
    hidden = cells = (np.zeros(layer.hidden_size),) * 3
    for t, word in enumerate(words):
        i, f, g, o = (
            played(np.tanh if name == "g" else sigmoid, tuple(map(sum, zip(x, h, strict=True))))
            for name, x, h in gates(layer, "ifgo", word, hidden, start <= t <= stop)
        )
        cells = tuple(map(sum, zip(played(np.multiply, f, cells), played(np.multiply, i, g), strict=True)))
        hidden = played(np.multiply, o, played(np.tanh, cells))
    return hidden


def gru(layer, words, start, stop):
    hidden = (np.zeros(layer.hidden_size),) * 3
    for t, word in enumerate(words):
        (_, *r), (_, *z), (_, x, h) = gates(layer, "rzn", word, hidden, start <= t <= stop)
        reset, update = (played(sigmoid, tuple(map(sum, zip(*both, strict=True)))) for both in (r, z))
        new = played(np.tanh, tuple(map(sum, zip(x, played(np.multiply, reset, h), strict=True))))
        change = tuple(before - now for before, now in zip(hidden, new, strict=True))
        hidden = tuple(map(sum, zip(new, played(np.multiply, update, change), strict=True)))
    return hidden


@pytest.mark.parametrize(("kind", "oracle"), [("LSTM", lstm), ("GRU", gru)])
def test_cells_are_games_of_two_in_which_biases_take_no_part(kind, oracle):
    words = normal(1, STEPS, 5, seed=1)
    layer = calibrated(getattr(nn, kind)(5, 4, batch_first=True), words)
    found = split(lambda x: layer(x)[0][:, -1], words, regions())
    for r, (a, b) in enumerate(SPANS):
        relevant, rest, nobody = oracle(layer, words[0].numpy(), a, b)
        assert np.abs(found.relevant[0, r].numpy() - relevant).max() < CLOSE
        assert np.abs(found.irrelevant[0, r].numpy() - rest).max() < CLOSE
        assert np.abs(found.reference[0].numpy() - nobody).max() < CLOSE
    assert found.relevant.abs().max() > 0.1


@pytest.mark.parametrize("name", ["lstm", "gru", "lstm, packed", "lstm cell", "digits", "post-norm", "decoder"])
def test_all_at_once_as_one_by_one(name):
    checks.check_loop(ZOO[name](), convention="reference")


def test_a_linear_model_is_divided_exactly():
    model = nn.Sequential(nn.Linear(FEATURES, 4), nn.Linear(4, 2)).double()
    x, some = normal(EXAMPLES, FEATURES, seed=1), checks.regions_of((FEATURES,), 5)
    found = split(model, x, some, reference=rt.references.Constant(START))
    weight = (model[1].weight @ model[0].weight).detach()
    assert (found.relevant - ((x - START)[:, None] * some) @ weight.T).abs().max() < CLOSE


def test_parts_of_one_layer_of_relus_are_exact_shapley_values():
    """And far nearer to them than under the other conventions, where biases are large."""
    model = calibrated(
        nn.Sequential(nn.Linear(FEATURES, 12), nn.ReLU(), nn.Linear(12, 1)), normal(20, FEATURES, seed=2)
    )
    x, some = normal(EXAMPLES, FEATURES, seed=1), torch.eye(FEATURES, dtype=torch.bool)
    exact = exact_shapley(lambda x: model(x)[:, 0], x, some, players="two")
    gaps = {
        name: (rt.contextual_decomposition(model, x, some, convention=name).relevant[..., 0] - exact).abs().max()
        for name in CONVENTIONS
    }
    assert gaps.pop("reference") < CLOSE * exact.abs().max()
    assert min(gaps.values()) > 0.01 * exact.abs().max()


def test_rounding_is_not_amplified():
    """The published share has no bound on its slope: a change in the twelfth place becomes one in the fourth."""
    layers = [layer for _ in range(20) for layer in (nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())]
    x = normal(2, 6, 4, 4, seed=1)
    model = calibrated(nn.Sequential(*layers, nn.Flatten(), nn.Linear(96, 3)), x)
    some = checks.regions_of((6, 4, 4), 3)
    before, after = (split(model, x + change, some).relevant for change in (0.0, 1e-12 * normal(*x.shape, seed=4)))
    assert (before - after).abs().max() < 1e-9 * before.abs().max()
    assert before.abs().max() > 0.01


def test_the_reference_may_be_any():
    case = ZOO["smooth"]()
    some = checks.regions_of(case.shape)
    own = normal(*case.inputs.shape, seed=9)
    given = split(case.model, case.inputs, some, reference=rt.references.Sample(own[:1])).reference
    with torch.no_grad():
        assert (given - case.model(own[:1])).abs().max() < CLOSE


def test_it_is_asked_for_in_a_space():
    """Coordinates that are zero, not an input of zeros: what the space leaves over stays."""
    case = ZOO["mlp"]()
    components = torch.linalg.qr(normal(FEATURES, FEATURES, seed=2))[0][:4]
    space, some = rt.spaces.Linear(components), checks.regions_of((4,), 3)
    found = split(case.model, case.inputs, some, space=space)
    left = case.inputs - case.inputs @ components.T @ components
    with torch.no_grad():
        assert (found.reference - case.model(left)).abs().max() < 1e-10


def test_a_reference_asks_for_its_convention():
    case, some = ZOO["mlp"](), checks.regions_of((6,), 5)
    start = rt.references.Constant(0.2)
    asked, named = (
        rt.contextual_decomposition(case.model, case.inputs, some, convention=name, reference=start).relevant
        for name in (None, "reference")
    )
    assert torch.equal(asked, named)
    assert rt.ContextualDecomposition(reference=start).convention == CONVENTIONS["reference"]
    assert "reference convention from Constant" in rt.ContributionTerm(some, reference=start).about
    assert "first convention" in rt.ContributionTerm(some).about


def test_parts_that_are_no_regions():
    case = ZOO["mlp"]()
    part = normal(1, *case.inputs.shape, seed=5)
    found = decompose(case.model, case.inputs, part, convention="reference")
    rest = decompose(case.model, case.inputs, case.inputs - part, convention="reference")
    assert (found.irrelevant - rest.relevant).abs().max() < CLOSE


def test_as_an_attribution_and_as_a_term():
    case = ZOO["digits"]()
    some = checks.regions_of(case.shape, 3)
    labels = torch.tensor([1, 0])
    start = rt.references.Constant(0.1)
    method = rt.ContextualDecomposition(some, convention="reference", reference=start)
    found = split(case.model, case.inputs, some, reference=start)
    scores = method(case.model, case.inputs, labels=labels).attributions
    assert (scores - found.relevant[range(2), :, labels]).abs().max() < CLOSE
    term = rt.ContributionTerm(some, loss="softmax", convention="reference", reference=start)
    objective = rt.Objective(case.model, nn.functional.cross_entropy, [term])
    loss = objective(case.inputs, labels).total
    parts = torch.stack([found.relevant, found.irrelevant], -1)
    expected = rt.priors.GroupContribution("softmax").penalty(
        parts.transpose(1, 2), None, None, torch.ones(1, 1, 3, dtype=torch.bool)
    )
    with torch.no_grad():
        task = nn.functional.cross_entropy(case.model.eval()(case.inputs), labels)
    assert abs(loss.item() - float(task + expected.mean())) < 1e-9


def test_a_term_draws_its_reference_from_the_objectives_numbers():
    case = ZOO["mlp"]()
    term = rt.ContributionTerm(checks.regions_of((6,), 5), reference=rt.references.Noise(1.0))
    losses = []
    for seed in (0, 0, 1):
        objective = rt.Objective(case.model, nn.functional.cross_entropy, [term], seed=seed)
        losses.append(objective(case.inputs, torch.tensor([0, 1, 2])).total.item())
    assert losses[0] == losses[1] != losses[2]


def test_training_mode_draws_one_mask_and_moves_statistics_once():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Unflatten(1, (2, 4))),
        *(nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten(), nn.Linear(8, 2)),
    ).double()
    x, some = normal(12, 6, seed=1), checks.regions_of((6,), 5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(1)
    plain = model(x)
    moved = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(before)
    torch.manual_seed(1)
    found = split(model, x, some, training=True, create_graph=True)
    assert torch.equal(found.outputs, plain)
    assert all(torch.equal(value, moved[name]) for name, value in model.state_dict().items())
    assert model.training


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda m, x, r: rt.contextual_decomposition(m, x, r, convention="first", reference=ZERO), ArgumentError,
         "nothing is compared to"),
        (lambda m, x, r: rt.ContextualDecomposition(convention="shapley", reference=ZERO), ArgumentError,
         "nothing is compared to"),
        (lambda m, x, r: rt.ContributionTerm(r, convention="first", reference=ZERO), ArgumentError,
         "nothing is compared to"),
        (lambda m, x, r: split(m, x, r, reference=rt.references.Constant(torch.zeros(5))), ShapeError, "does not fit"),
        (lambda m, x, r: split(lambda x: 1 / x, x, r), DecompositionError, "choose another reference"),
        (lambda m, x, r: split(lambda x: x.log(), x.abs(), r, training=True), DecompositionError,
         "choose another reference"),
        (lambda m, x, r: split(m, x, r, stability=True), ArgumentError, "nothing is shared out"),
        (lambda m, x, r: split(nn.Embedding(9, 4), torch.randint(9, (2, 6)), r, reference=ZERO), ArgumentError,
         "spaces.Layer"),
        (lambda m, x, r: rt.hierarchy(m, x[:1], target=0, score=rt.ContextualDecomposition(reference=ZERO),
                                      reference=ZERO), ArgumentError, "its own reference"),
        (lambda m, x, r: split(lambda x: x.log().exp(), x.abs(), r), DecompositionError, "choose another reference"),
        (lambda m, x, r: Convention(bias="apart"), ArgumentError, "convention='reference'"),
        (lambda m, x, r: Convention(bias="nobody"), ArgumentError, "unknown bias"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(call, error, told):
    with pytest.raises(error, match=told):
        call(nn.Linear(6, 2).double(), normal(3, 6, seed=1), checks.regions_of((6,), 5))


def test_a_rule_of_ones_own_without_a_reference_is_not_taken():
    """``rule(..., apart=True)`` says that it is one; else the operation is a game, which is right for any."""

    def forward(x):
        return torch.special.i0(x)

    @rule("special_i0", "i0", formula="b", source="me")
    def wrong(func, args, kwargs):
        return args[0].made(func(args[0].total), args[0].relevant)

    try:
        x, some = normal(3, 6, seed=1), checks.regions_of((6,), 5)
        assert (split(forward, x, some).relevant - game(forward, x, some, torch.zeros(6).double())).abs().max() < CLOSE
        RULES["special_i0"] = RULES["i0"] = RULES["special_i0"].__class__(wrong, "b", "me", True)
        with pytest.raises(DecompositionError, match="what becomes of the reference"):
            split(forward, x, some)
    finally:
        for name in ("special_i0", "i0"):
            RULES.pop(name, None)
