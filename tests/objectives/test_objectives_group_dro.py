"""GroupDRO: the paper's update step by step, its weights in the state, resumed and shared by processes."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

import rightly as rt
from contracts.processes import alone, check_agreement, in_two_processes, together
from rightly.core.errors import ArgumentError, ShapeError
from training.training_problems import bits, classification, mlp, normal, same

X, Y = classification()
GROUPS = 2 * Y + (X[:, 2] > 0.8).long()
LABELLED = rt.with_groups(Y, GROUPS)


def reference(steps, count, step, added=(0, 0, 0, 0)):
    """Algorithm 1 on batches, in plain numbers: steps of (each example's loss, its group) -> losses, weights."""
    weights = [1 / count] * count
    totals = []
    for losses, groups in steps:
        means = []
        for group in range(count):
            own = [loss for loss, g in zip(losses, groups, strict=True) if g == group]
            means.append((sum(own) / len(own) if own else 0.0) + added[group])
        weights = [q * math.exp(step * mean) for q, mean in zip(weights, means, strict=True)]
        weights = [q / sum(weights) for q in weights]
        totals.append(sum(q * mean for q, mean in zip(weights, means, strict=True)))
    return totals, weights


def batches(count=5, size=7):
    for k in range(count):
        logits = 2 * normal(size, 3, seed=k, dtype=torch.float64)
        draws = torch.Generator().manual_seed(100 + k)
        # the last of four groups is in no batch
        labels = torch.randint(3, (size,), generator=draws)
        yield logits.requires_grad_(), rt.with_groups(labels, torch.randint(3, (size,), generator=draws))


@pytest.mark.parametrize("step", [0.0, 0.01, 1.5])
def test_the_update_is_the_paper_s(step):
    loss = rt.GroupDRO(4, step=step)
    steps, found = [], []
    for logits, labels in batches():
        found.append(float(loss(logits, labels).detach()))
        steps.append((F.cross_entropy(logits, labels[:, 0], reduction="none").tolist(), labels[:, 1].tolist()))
    totals, weights = reference(steps, 4, step)
    assert found == pytest.approx(totals, rel=1e-12)
    assert loss.weights.tolist() == pytest.approx(weights, rel=1e-12)
    if step == 0:
        assert loss.weights.tolist() == [0.25] * 4


def test_groups_are_adjusted_by_their_size():
    sizes = [100, 25, 4, 1]
    loss = rt.GroupDRO(4, step=0.5, adjustment=2.0, sizes=sizes)
    plain = rt.GroupDRO(4, step=0.5)
    steps, found = [], []
    for logits, labels in batches():
        found.append(float(loss(logits, labels).detach()))
        plain(logits, labels)
        steps.append((F.cross_entropy(logits, labels[:, 0], reduction="none").tolist(), labels[:, 1].tolist()))
    totals, weights = reference(steps, 4, 0.5, [0.2, 0.4, 1.0, 2.0])
    assert found == pytest.approx(totals, rel=1e-12)
    assert loss.weights.tolist() == pytest.approx(weights, rel=1e-12)
    # the smallest group gains, whether it is in a batch or not
    assert loss.weights[3] > 2 * plain.weights[3]
    assert set(loss.state_dict()) == set(plain.state_dict()) == {"weights"}
    # an epoch is chosen by the largest adjusted loss of the groups that are there
    logits, labels = next(batches())
    each = F.cross_entropy(logits.detach(), labels[:, 0], reduction="none")
    there = [float(each[labels[:, 1] == g].mean()) + extra for g, extra in ((0, 0.2), (1, 0.4), (2, 1.0))]
    assert float(loss(logits.detach(), labels)) == pytest.approx(max(there))


@pytest.mark.parametrize("sizes", [None, [1, 2, 3], [1, 2, 3, 0], torch.ones(4, 1)])
def test_an_adjustment_needs_the_sizes(sizes):
    with pytest.raises(ArgumentError, match="sizes"):
        rt.GroupDRO(4, adjustment=1.0, sizes=sizes)
    with pytest.raises(ArgumentError, match="adjustment"):
        rt.GroupDRO(4, adjustment=-1.0, sizes=[1, 1, 1, 1])


def test_the_gradient_takes_the_weights_as_they_are():
    logits, labels = next(batches())
    loss = rt.GroupDRO(4, step=0.7)
    loss(logits, labels).backward()
    each = F.cross_entropy(logits, labels[:, 0], reduction="none")
    counts = torch.bincount(labels[:, 1], minlength=4)
    (expected,) = torch.autograd.grad((loss.weights[labels[:, 1]] / counts[labels[:, 1]] * each).sum(), logits)
    torch.testing.assert_close(logits.grad, expected)


def test_the_worst_group_gains_weight():
    loss = rt.GroupDRO(2, step=0.5)
    logits = torch.tensor([[4.0, 0], [0, 4]], requires_grad=True)
    for _ in range(20):
        loss(logits, torch.tensor([[0, 0], [0, 1]]))  # the second example is wrong
    assert loss.weights[1] > 0.99


def test_a_huge_loss_leaves_weights_finite():
    loss = rt.GroupDRO(2, step=100.0)
    logits = torch.tensor([[1e4, 0.0], [0.0, 1e4]], requires_grad=True)
    for _ in range(3):
        assert loss(logits, torch.tensor([[1, 0], [1, 1]])).isfinite()
    assert loss.weights.tolist() == pytest.approx([1, 0])


@pytest.mark.parametrize("mode", ["no graph", "evaluation"])
def test_reading_moves_no_weight(mode):
    loss = rt.GroupDRO(4, step=0.5)
    logits, labels = next(batches())
    if mode == "evaluation":
        loss.eval()
        expected = 0.25 * sum(_means(logits, labels))
    else:
        logits, expected = logits.detach(), max(_means(logits, labels))
    assert float(loss(logits, labels).detach()) == pytest.approx(expected)
    assert loss.weights.tolist() == [0.25] * 4


def _means(logits, labels):
    each = F.cross_entropy(logits.detach(), labels[:, 0], reduction="none")
    return [float(each[labels[:, 1] == g].mean()) for g in range(4) if (labels[:, 1] == g).any()]


def objective(*terms, step=0.3, seed=0):
    return rt.Objective(mlp(seed=seed), rt.GroupDRO(4, step=step), terms, seed=seed)


def test_fit_trains_the_worst_group_and_validates_on_it():
    given = objective(step=0.1)
    run = rt.fit(given, (X, LABELLED), (X, LABELLED), epochs=30, batch_size=30, lr=0.01)
    with torch.no_grad():
        given.model.eval()
        each = F.cross_entropy(given.model(X), Y, reduction="none")
    worst = max(float(each[g == GROUPS].mean()) for g in GROUPS.unique())
    assert run.best_value == pytest.approx(worst, rel=1e-5)
    assert given.loss.weights.sum() == pytest.approx(1)
    assert given.loss.weights.max() > 0.3


def test_weights_are_in_the_state_and_resume_to_the_same_bits(tmp_path):
    class Stop(Exception):
        pass

    def stop(epoch, entry):
        if epoch == 1:
            raise Stop

    whole = objective()
    assert "loss.weights" in whole.state_dict()
    settings = {"epochs": 4, "batch_size": 30, "lr": 0.02}
    rt.fit(whole, (X, LABELLED), (X, LABELLED), **settings)
    stopped = objective()
    with pytest.raises(Stop):
        rt.fit(stopped, (X, LABELLED), (X, LABELLED), **settings, checkpoint=tmp_path, callback=stop)
    resumed = objective()
    rt.fit(resumed, (X, LABELLED), (X, LABELLED), **settings, checkpoint=tmp_path, resume=True)
    assert same(bits(resumed), bits(whole))
    assert not torch.equal(whole.loss.weights, rt.GroupDRO(4).weights)


def test_terms_that_need_no_labels_may_be_added():
    term = rt.Term(rt.Gradient(output="log_prob_sum"), rt.priors.L2(), 0.1)
    given = objective(term)
    run = rt.fit(given, (X, LABELLED), epochs=2, batch_size=30)
    assert run.history[-1]["terms"]["l2"] > 0
    bad = objective(rt.Term(rt.Gradient(output="log_prob"), rt.priors.L2(), 0.1))
    with pytest.raises(ArgumentError, match="class numbers"):
        rt.fit(bad, (X, LABELLED), epochs=1)


@pytest.mark.parametrize("at_once", [1, 2])
def test_every_trial_of_a_sweep_has_weights_of_its_own(at_once):
    def model(seed):
        return rt.models.mlp(6, [8], 2, seed=seed)

    loss, settings = rt.GroupDRO(4, step=0.5), {"epochs": 2, "batch_size": 30, "lr": 0.02}
    trials = rt.fit_many(model, loss, [], (X, LABELLED), seeds=range(2), at_once=at_once, **settings)
    assert loss.weights.tolist() == [0.25] * 4
    for seed, trial in enumerate(trials):
        assert trial.together == at_once
        alone = rt.Objective(model(seed), copy.deepcopy(loss), [], seed=seed)
        rt.fit(alone, (X, LABELLED), seed=seed, **settings)
        for found, expected in zip(trial.model.parameters(), alone.model.parameters(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_compiled_step_moves_the_weights_as_the_eager_one():
    eager = rt.Objective(rt.models.mlp(6, [8], 2, seed=0).double(), rt.GroupDRO(4, step=0.5))
    twin = copy.deepcopy(eager)
    twin.compile(backend="eager")
    for step in range(4):
        part = slice(20 * step, 20 * step + 20)
        totals = [one(X[part].double(), LABELLED[part]).total for one in (eager, twin)]
        for total in totals:
            total.backward()
        torch.testing.assert_close(*totals, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(eager.loss.weights, twin.loss.weights, rtol=1e-10, atol=1e-12)
    assert any(graph is not None for graph in twin._compiled._graphs.values())


@pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without torch.distributed")
@pytest.mark.parametrize("wrapped", [False, True], ids=["by-hand", "ddp"])
def test_two_processes_give_the_gradient_of_one(wrapped):
    shards = [torch.tensor([4]), torch.tensor([5, 0, 3, 2, 1])]
    batch = X[:6].double(), LABELLED[:6], None

    def make():
        return rt.Objective(rt.models.mlp(6, [8], 2, seed=0).double(), rt.GroupDRO(4, step=0.5))

    single = alone(make, batch)
    check_agreement(single, in_two_processes(lambda rank: together(make, batch, shards, wrapped, rank)))


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (Y[:5], ShapeError, "with_groups"),
        (LABELLED[:5].float(), ShapeError, "with_groups"),
        (rt.with_groups(Y[:5], GROUPS[:5] + 9), ArgumentError, "0 to 3"),
        (rt.with_groups(Y[:5], GROUPS[:5] - 9), ArgumentError, "0 to 3"),
    ],
)
def test_labels_without_groups_are_refused(labels, error, message):
    with pytest.raises(error, match=message):
        rt.GroupDRO(4)(torch.zeros(5, 2, requires_grad=True), labels)


def test_bad_arguments_are_refused():
    for wrong in ({"groups": 1}, {"groups": 4, "step": -1.0}, {"groups": 4, "step": math.nan}):
        with pytest.raises(ArgumentError):
            rt.GroupDRO(**wrong)
    with pytest.raises(ShapeError, match="one an example"):
        rt.GroupDRO(4, losses=F.cross_entropy)(torch.zeros(5, 2), LABELLED[:5])
    for labels, groups in ((Y, GROUPS[:5]), (Y.float(), GROUPS), (Y, GROUPS.float()), (Y[:, None], GROUPS)):
        with pytest.raises(ShapeError, match="side by side"):
            rt.with_groups(labels, groups)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_weights_move_beside_a_model_in_half_precision(precision):
    loss = rt.GroupDRO(4, step=1e-3)
    wide, half = copy.deepcopy(loss), rt.Objective(mlp().to(precision), loss).to(precision).loss
    outputs = torch.randn(len(Y), 2, generator=torch.Generator().manual_seed(0)).to(precision).requires_grad_()
    for _ in range(5):
        half(outputs, LABELLED), wide(outputs, LABELLED)
    assert half.weights.dtype == torch.float64
    assert half.weights.unique().numel() > 1
    assert torch.equal(half.weights, wide.weights)
    assert half.float().weights.dtype == torch.float32
