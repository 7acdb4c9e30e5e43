"""Parts that are trained through: true gradients, one dropout mask, one batch-norm update, finite at every edge."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from attributions.decomposition.models import ZOO, Case, MnistNet
from contracts.decomposition import regions_of
from contracts.derivatives import check_gradient
from contracts.problems import draws, normal, vectors
from rightly.attributions.decomposition import CONVENTIONS


def _mixed(case: Case, inputs, convention: str, **options):
    """An uneven combination of parts and outputs, with a graph."""
    found = rt.contextual_decomposition(
        case.model, inputs, regions_of(case.shape, 3), convention=convention, create_graph=True, **options
    )
    mix = torch.randn(found.relevant.shape, generator=draws(3), dtype=torch.float64)
    return (mix * found.relevant).sum() + found.outputs.sum()


@pytest.mark.parametrize("convention", ["first", "shapley", "reference"])
@pytest.mark.parametrize("name", ZOO)
def test_parameters_have_the_true_gradient(name, convention):
    case = ZOO[name]()
    check_gradient(lambda: _mixed(case, case.inputs, convention), list(case.model.parameters()))


@pytest.mark.parametrize(
    "name", [name for name in ZOO if not name.startswith(("lstm", "rnn, r", "gru, p", "bag", "dec"))]
)
def test_inputs_have_the_true_gradient(name):
    case = ZOO[name]()
    inputs = case.inputs.clone().requires_grad_()
    check_gradient(lambda: _mixed(case, inputs, "first"), [inputs])


@pytest.mark.parametrize("name", ["digits", "residual", "decoder", "functional"])
def test_chunks_and_single_regions_have_the_same_gradient(name):
    case = ZOO[name]()
    parameters = list(case.model.parameters())
    found = [
        torch.autograd.grad(_mixed(case, case.inputs, "first", chunk_size=size), parameters, allow_unused=True)
        for size in (None, 1, 2)
    ]
    for whole, *others in zip(*found, strict=True):
        for other in others:
            assert (whole is None) == (other is None)
            assert whole is None or torch.allclose(whole, other, rtol=1e-9, atol=1e-11)


def test_nothing_keeps_a_graph_unless_it_is_asked_for():
    case = ZOO["mlp"]()
    found = rt.contextual_decomposition(case.model, case.inputs, regions_of(case.shape))
    assert not found.relevant.requires_grad
    assert not found.outputs.requires_grad
    with torch.no_grad():
        found = rt.contextual_decomposition(case.model, case.inputs, regions_of(case.shape), create_graph=True)
    assert found.relevant.requires_grad
    assert found.outputs.requires_grad


@pytest.mark.parametrize("name", ["digits", "convnext", "decoder", "functional"])
def test_a_gradient_that_is_recorded_is_the_same(name):
    """Without a record it is computed in place."""
    case = ZOO[name]()
    parameters = list(case.model.parameters())
    plain, recorded = (
        torch.autograd.grad(
            _mixed(case, case.inputs, "shapley"), parameters, create_graph=again, allow_unused=True
        )
        for again in (False, True)
    )  # fmt: skip
    assert any(each is not None and each.requires_grad for each in recorded)
    for one, other in zip(plain, recorded, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, rtol=1e-12, atol=1e-13)


# ---- the model's own mode


def _two(model: nn.Module, inputs, **options):
    """The model in training mode read plainly and split, from one state and seed."""
    plain, own = copy.deepcopy(model).train(), copy.deepcopy(model).train()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = plain(inputs)
        after = torch.get_rng_state()
        torch.manual_seed(3)
        found = rt.contextual_decomposition(own, inputs, training=True, create_graph=True, **options)
        assert torch.equal(torch.get_rng_state(), after), "other random numbers were drawn than by the model"
    for (name, buffer), wanted in zip(own.named_buffers(), plain.buffers(), strict=True):
        assert torch.allclose(buffer, wanted, rtol=1e-12, atol=0), name
    return found, expected


@pytest.mark.parametrize(
    "name", ["digits", "residual", "smooth", "vision transformer", "decoder", "lstm, two layers, both ways"]
)
def test_training_mode_draws_one_mask_and_moves_statistics_once(name):
    case = ZOO[name]()
    # other inputs than those that the statistics are of, or a second update would not show
    inputs = 1.5 * case.inputs + 0.3 if case.inputs.is_floating_point() else case.inputs
    regions = regions_of(case.shape)
    found, expected = _two(case.model, inputs, regions=regions, convention="shapley")
    other, _ = _two(case.model, inputs, regions=~regions, convention="shapley")
    size = expected.abs().max()
    assert (found.outputs - expected).abs().max() < 1e-10 * size
    added = found.relevant + other.relevant
    assert (added - expected.unsqueeze(1)).abs().max() < 1e-10 * size
    evaluated = rt.contextual_decomposition(case.model, inputs, regions, convention="shapley")
    assert (evaluated.outputs - expected).abs().max() > 1e-3 * size


def test_a_model_is_left_alone_otherwise():
    case = ZOO["residual"]()
    case.model.train()
    before = copy.deepcopy(case.model.state_dict())
    with torch.random.fork_rng():
        torch.manual_seed(1)
        state = torch.get_rng_state()
        rt.contextual_decomposition(case.model, case.inputs, regions_of(case.shape), create_graph=True)
        assert torch.equal(torch.get_rng_state(), state)
    assert case.model.training
    for name, value in case.model.state_dict().items():
        assert torch.equal(value, before[name]), name


# ---- edges of precision


@pytest.mark.parametrize("edge", ["zeros", "zero patches", "nearly zero", "huge"])
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("make", [MnistNet, lambda: ZOO["residual"]().model], ids=["digits", "residual"])
def test_gradients_are_finite(make, convention, edge):
    model = make()
    channels = next(model.parameters()).shape[1]
    inputs = normal(2, channels, 16, 16, seed=1)
    if edge == "huge":
        inputs = inputs * 1e6
    elif edge != "zeros":
        inputs[:, :, :, 5:] = 0 if edge == "zero patches" else 1e-18
    else:
        inputs = torch.zeros_like(inputs)
    model = model.float().eval()
    regions = torch.zeros(3, 1, 16, 16, dtype=torch.bool)
    regions[1, 0, 3, 3], regions[2, 0, 4:9, 2:12] = True, True
    found = rt.contextual_decomposition(model, inputs.float(), regions, convention=convention, create_graph=True)
    gradients = torch.autograd.grad((found.relevant**2).sum(), list(model.parameters()), allow_unused=True)
    assert found.relevant.isfinite().all()
    assert all(bool(g.isfinite().all()) for g in gradients if g is not None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_precisions(dtype):
    case = ZOO["digits"]()
    exact = rt.contextual_decomposition(case.model, case.inputs, regions_of(case.shape)).relevant
    model, inputs = case.model.to(dtype), case.inputs.to(dtype)
    found = rt.contextual_decomposition(model, inputs, regions_of(case.shape)).relevant
    assert found.dtype == dtype
    assert (found - exact).abs().max() < {torch.float32: 1e-4, torch.bfloat16: 0.2}[dtype] * exact.abs().max()


# ---- as an attribution in an objective


def test_a_term_on_regions_trains():
    """Half of the features are to be unimportant as a group: their parts shrink, with any prior and optimiser."""
    problem = vectors(8)
    regions = torch.tensor([[True] * 3 + [False] * 3])
    method = rt.ContextualDecomposition(regions, convention="shapley")
    objective = rt.Objective(problem.model, F.cross_entropy, [rt.Term(method, rt.priors.L2(), 1.0)])
    optimizer = torch.optim.Adam(objective.parameters(), 0.02)
    sizes = []
    for _ in range(30):
        optimizer.zero_grad()
        report = objective(problem.inputs, problem.labels)
        sizes.append(float(report.terms["l2"].penalty))
        report.total.backward()
        optimizer.step()
    assert sizes[-1] < 0.1 * sizes[0]


@pytest.mark.parametrize("output", ["logit", "prob", "log_prob", "log_odds", "log_prob_sum", "loss", "loss_uniform"])
def test_any_output_of_an_attribution_can_be_divided(output):
    """The parts of a region and of its complement are the output, also of a probability or a loss."""
    problem = vectors()
    problem.model.eval()
    regions = regions_of((6,))
    one, other = (
        rt.ContextualDecomposition(each, convention="shapley", output=output)(
            problem.model, problem.inputs, problem.labels
        ).attributions
        for each in (regions, ~regions)
    )
    rows = torch.arange(len(problem.labels))
    logits = problem.model(problem.inputs).detach()
    logs = logits.log_softmax(1)
    expected = {
        "logit": logits[rows, problem.labels],
        "prob": logs.exp()[rows, problem.labels],
        "log_prob": logs[rows, problem.labels],
        "log_odds": (logs.exp() / (1 - logs.exp()))[rows, problem.labels].log(),
        "log_prob_sum": logs.sum(1),
        "loss": -logs[rows, problem.labels],
        "loss_uniform": -logs.mean(1),
    }[output]
    assert (one + other - expected[:, None]).abs().max() < 1e-10


def test_an_attribution_gives_the_functions_numbers():
    problem = vectors()
    regions = regions_of((6,))
    found = rt.ContextualDecomposition(regions)(problem.model, problem.inputs, problem.labels, chunk_size=3)
    whole = rt.contextual_decomposition(problem.model, problem.inputs, regions)
    rows = torch.arange(len(problem.labels))
    assert torch.allclose(found.attributions, whole.relevant[rows, :, problem.labels], rtol=1e-10)
    assert found.completeness_gap is None
    single = rt.ContextualDecomposition()(problem.model, problem.inputs, problem.labels)
    alone = rt.contextual_decomposition(problem.model, problem.inputs, torch.eye(6, dtype=torch.bool))
    assert torch.allclose(single.attributions, alone.relevant[rows, :, problem.labels], rtol=1e-10)
    named = rt.attribute(problem.model, problem.inputs, "contextual_decomposition", labels=problem.labels)
    assert torch.equal(named.attributions, single.attributions)
