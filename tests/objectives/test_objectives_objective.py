"""The objective: one module, one backward, and what it reports."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts.problems import draws, images, normal, objective, vectors
from rightly.core.errors import ArgumentError, NotConnectedError, ShapeError


def _two(weights=(0.3, 2.0), schedules=(rt.Schedule(), rt.Schedule())):
    return [
        rt.Term(rt.Gradient(), rt.priors.L2(), weights[0], schedule=schedules[0]),
        rt.Term(rt.ExpectedGradients(n_samples=2), rt.priors.Sparsity(), weights[1], schedule=schedules[1]),
    ]


def test_the_report_adds_up():
    problem = vectors()
    whole = objective(problem, *_two()).eval()
    report = whole(problem.inputs, problem.labels)
    assert list(report.terms) == ["l2", "sparsity"]
    assert torch.equal(report.task, F.cross_entropy(problem.model(problem.inputs), problem.labels))
    assert torch.equal(report.outputs, problem.model(problem.inputs))
    parts = [term.contribution for term in report.terms.values()]
    assert torch.allclose(report.total, report.task + sum(parts), rtol=1e-14)
    for term, weight in zip(report.terms.values(), (0.3, 2.0), strict=True):
        assert term.weight == weight
        assert torch.allclose(term.contribution, weight * term.penalty, rtol=1e-14)
        assert not term.penalty.requires_grad
        assert not term.contribution.requires_grad
    assert report.total.requires_grad
    assert report.task.requires_grad


def test_parts_add_up():
    problem = vectors()
    whole = objective(problem, *_two()).eval()
    both, task, prior = (
        whole(problem.inputs, problem.labels, generator=draws(0), part=part) for part in ("both", "task", "prior")
    )
    assert torch.allclose(both.total, task.total + prior.total, rtol=1e-14)
    assert torch.equal(task.total, task.task)
    assert task.terms == {}
    assert prior.task is None
    assert prior.outputs is None
    assert list(prior.terms) == ["l2", "sparsity"]


def test_only_training_counts_steps():
    problem = vectors()
    whole = objective(problem, *_two())
    for _ in range(3):
        whole(problem.inputs, problem.labels)
    assert whole.step == 3
    whole.eval()
    whole(problem.inputs, problem.labels)
    assert whole.step == 3


def test_the_task_is_seen_in_the_models_own_mode():
    problem = vectors()
    whole = objective(problem, *_two())
    first, second = (whole(problem.inputs, problem.labels).task for _ in range(2))
    assert first != second  # dropout
    whole.eval()
    first, second = (whole(problem.inputs, problem.labels).task for _ in range(2))
    assert first == second


def test_draws_follow_the_step_and_the_place_of_the_term():
    problem = vectors()
    terms = [rt.Term(rt.ExpectedGradients(), rt.priors.L2(), 1.0, name=name) for name in ("a", "b")]
    whole = objective(problem, *terms)
    reports = [whole(problem.inputs, problem.labels, part="prior").terms for _ in range(2)]
    values = {float(report[name].penalty) for report in reports for name in ("a", "b")}
    assert len(values) == 4


def test_the_generator_replaces_the_objectives_draws():
    problem = vectors()
    whole = objective(problem, *_two()[1:])
    first, second = (whole(problem.inputs, problem.labels, generator=draws(5), part="prior").total for _ in range(2))
    assert torch.equal(first, second)


# --- schedules ---


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (rt.Schedule(), [1, 1, 1, 1, 1, 1]),
        (rt.Schedule(every=2), [2, 0, 2, 0, 2, 0]),
        (rt.Schedule(start=2), [0, 0, 1, 1, 1, 1]),
        (rt.Schedule(warmup=4), [0.25, 0.5, 0.75, 1, 1, 1]),
        (rt.Schedule(every=3, start=1), [0, 3, 0, 0, 3, 0]),
        (rt.Schedule(every=2, start=1, warmup=4), [0, 0.5, 0, 1.5, 0, 2]),
    ],
)
def test_schedules(schedule, expected):
    assert [schedule.strength(step) for step in range(6)] == expected
    problem = vectors()
    whole = objective(problem, *_two((1.0, 1.0), (schedule, rt.Schedule()))[:1])
    for strength in expected:
        report = whole(problem.inputs, problem.labels).terms["l2"]
        assert report.weight == strength
        assert (report.penalty is None) == (strength == 0)


def test_resting_terms_keep_the_mean_pull():
    strengths = [rt.Schedule(every=7).strength(step) for step in range(70)]
    assert sum(strengths) / 70 == 1


def test_terms_that_rest_cost_no_pass():
    problem = vectors()
    passes = []
    problem.model.register_forward_hook(lambda module, args, output: passes.append(1))
    whole = objective(problem, *_two((0.0, 1.0), (rt.Schedule(), rt.Schedule(start=5))))
    report = whole(problem.inputs, problem.labels)
    assert len(passes) == 1
    assert torch.equal(report.total, report.task)
    assert report.terms["l2"] == rt.TermReport(None, None, 0.0)


@pytest.mark.parametrize("weights", [(0.0, 0.0), None])
def test_a_prior_step_on_which_everything_rests_changes_nothing(weights):
    """Alternating training calls backward() on it."""
    problem = vectors()
    whole = objective(problem, *(_two(weights) if weights else []))
    total = whole(problem.inputs, problem.labels, part="prior").total
    total.backward()
    assert float(total.detach()) == 0
    assert all(parameter.grad is None for parameter in problem.model.parameters())


# --- weights ---


def test_balance_makes_the_first_batch_equal():
    problem = vectors()
    whole = objective(problem, rt.Term(rt.Gradient(), rt.priors.L2(), "balance"))
    assert math.isnan(whole.weights["l2"])
    first = whole(problem.inputs, problem.labels)
    assert torch.allclose(first.terms["l2"].contribution, first.task.detach(), rtol=1e-12)
    weight = whole.weights["l2"]
    whole(problem.inputs * 2, problem.labels)
    assert whole.weights["l2"] == weight


def test_balance_waits_for_a_penalty():
    """A penalty of zero gives no scale."""
    problem = vectors()
    note = rt.Annotation(irrelevant=torch.zeros(1, 6))
    whole = objective(problem, rt.Term(rt.Gradient(), rt.priors.Irrelevant(), "balance"))
    report = whole(problem.inputs, problem.labels, note)
    assert report.terms["irrelevant"].weight == 0
    assert torch.equal(report.total, report.task)
    assert math.isnan(whole.weights["irrelevant"])
    whole(problem.inputs, problem.labels, rt.Annotation(irrelevant=torch.ones(1, 6)))
    assert whole.weights["irrelevant"] > 0


def test_ratios_are_averaged_over_batches():
    problem = vectors()
    whole = objective(problem, *_two()[:1]).eval()
    batches = [(problem.inputs, problem.labels), (2 * problem.inputs, problem.labels)]
    task = sum(float(whole(*batch, part="task").total.detach()) for batch in batches)
    penalty = sum(float(whole.penalty(whole.terms[0], *batch).detach()) for batch in batches)
    assert whole.ratios(batches)["l2"] == pytest.approx(task / penalty, rel=1e-12)


def test_auto_needs_fit():
    problem = vectors()
    whole = objective(problem, rt.Term(rt.Gradient(), rt.priors.L2(), "auto"))
    with pytest.raises(ArgumentError, match=r"rt\.fit"):
        whole(problem.inputs, problem.labels)
    whole.set_weight("l2", 0.5)
    assert whole(problem.inputs, problem.labels).terms["l2"].weight == 0.5


# --- state ---


def _steps(whole, problem, optimizer, n):
    for _ in range(n):
        optimizer.zero_grad()
        whole(problem.inputs, problem.labels).total.backward()
        optimizer.step()


def test_a_resumed_run_continues_to_the_same_bits():
    terms = [
        rt.Term(rt.ExpectedGradients(n_samples=2), rt.priors.L1(), "balance", schedule=rt.Schedule(every=2, warmup=5)),
        rt.Term(rt.SmoothGrad(n_samples=2), rt.priors.Sparsity(), 0.4),
    ]

    def fresh():
        problem = images()
        problem.model[3].p = 0.0  # dropout draws from the global state, which fit's checkpoints carry
        whole = objective(problem, *terms, seed=3)
        return problem, whole, torch.optim.Adam(whole.parameters(), lr=0.01)

    problem, whole, optimizer = fresh()
    _steps(whole, problem, optimizer, 3)
    saved, momentum = {k: v.clone() for k, v in whole.state_dict().items()}, copy.deepcopy(optimizer.state_dict())
    assert all(isinstance(value, torch.Tensor) for value in saved.values())
    other, resumed, again = fresh()
    resumed.load_state_dict(saved)
    again.load_state_dict(momentum)
    assert (resumed.step, resumed.weights) == (3, whole.weights)
    _steps(whole, problem, optimizer, 4)
    _steps(resumed, other, again, 4)
    for left, right in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(left, right)
    early = fresh()
    _steps(early[1], early[0], early[2], 4)
    assert not torch.equal(early[0].model[0].weight, other.model[0].weight)


def test_an_open_weight_survives_saving():
    problem = vectors()
    whole = objective(problem, rt.Term(rt.Gradient(), rt.priors.L2(), "balance"))
    again = objective(problem, rt.Term(rt.Gradient(), rt.priors.L2(), "balance"))
    again.load_state_dict(whole.state_dict())
    assert math.isnan(again.weights["l2"])


# --- proof of connection ---


def test_connection_is_proved_once_and_for_each_term():
    problem = vectors()
    whole = objective(problem, *_two())
    whole(problem.inputs, problem.labels)
    assert whole._connected == {"l2", "sparsity"}


def test_a_term_that_reaches_nothing_is_named():
    class Deaf(rt.priors.Prior):
        def penalty(self, attributions, annotation, target):
            return attributions.detach().flatten(1).sum(1)

    problem = vectors()
    whole = objective(problem, rt.Term(rt.Gradient(), Deaf(), name="deaf"))
    with pytest.raises(NotConnectedError, match="'deaf'"):
        whole(problem.inputs, problem.labels)
    with torch.no_grad():
        whole(problem.inputs, problem.labels)  # nothing is trained here


def test_evaluation_without_a_graph():
    problem = vectors()
    whole = objective(problem, *_two()).eval()
    plain = whole(problem.inputs, problem.labels, generator=draws(0)).total
    for outside in (torch.no_grad(), torch.inference_mode()):
        with outside:
            total = whole(problem.inputs, problem.labels, generator=draws(0)).total
        assert not total.requires_grad
        assert torch.allclose(total, plain.detach(), rtol=1e-12)


# --- what it takes ---


def test_labels_in_a_column():
    problem = vectors()
    model = nn.Sequential(problem.model, nn.Linear(3, 1).double())
    labels = torch.tensor([[0.0], [1.0], [1.0], [0.0]], dtype=torch.float64)
    terms = [rt.Term(rt.Gradient(output="loss"), rt.priors.L2())]
    report = rt.Objective(model, F.binary_cross_entropy_with_logits, terms)(problem.inputs, labels)
    assert report.total.isfinite()


def test_regression():
    problem = vectors()
    model = nn.Sequential(problem.model, nn.Linear(3, 1).double())
    labels = normal(4, 1, seed=1)
    report = rt.Objective(model, F.mse_loss, [rt.Term(rt.ExpectedGradients(), rt.priors.L1())])(problem.inputs, labels)
    report.total.backward()
    assert model[1].weight.grad.abs().sum() > 0


def test_several_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 3).double()

        def forward(self, x, scale):
            return {"logits": torch.tanh(self.linear(x)) * scale[:, None]}

    problem = vectors()
    whole = rt.Objective(Two(), F.cross_entropy, _two())
    scale = torch.ones(4).double()
    by_place = whole((problem.inputs, scale), problem.labels, generator=draws(0)).total
    space = rt.spaces.Input("x")
    terms = [rt.Term(type(t.attribution)(space=space), t.prior, t.weight) for t in _two()]
    named = rt.Objective(whole.model, F.cross_entropy, terms)
    assert named({"x": problem.inputs, "scale": scale}, problem.labels).total.isfinite()
    assert by_place.isfinite()


def test_losses_must_be_one_number():
    problem = vectors()
    whole = rt.Objective(problem.model, nn.CrossEntropyLoss(reduction="none"))
    with pytest.raises(ShapeError, match="reduction='mean'"):
        whole(problem.inputs, problem.labels)


def test_names():
    terms = [rt.Term(rt.Gradient(), rt.priors.L2(), name=name) for name in ("a", "b")]
    assert list(objective(vectors(), *terms).weights) == ["a", "b"]
    assert rt.Term(rt.Gradient(), rt.priors.TotalVariation()).name == "total_variation"
    with pytest.raises(ArgumentError, match="two terms have one name"):
        objective(vectors(), *[rt.Term(rt.Gradient(), rt.priors.L2())] * 2)
