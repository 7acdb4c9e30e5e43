"""A compiled objective gives what the eager one gives, at every step, or says why it cannot."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts.problems import draws, initialised
from rightly.core.errors import ArgumentError
from rightly.objectives import compiled
from rightly.objectives.compiled import CompilationError

EG = rt.ExpectedGradients(n_samples=2)
FIXED = torch.linspace(-1, 1, 30).reshape(5, 6).double()
CLASSES = 3


def vector_model():
    """Smooth, with batch norm in training mode."""
    return initialised(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, CLASSES)))


def batch(step, shape, size=5, dtype=torch.float64):
    source = draws(100 + step)
    x = torch.randn(size, *shape, generator=source, dtype=dtype)
    return x, torch.randint(CLASSES, (size,), generator=source)


def pair(model, *terms, dtype=torch.float64, backend="eager", loss=F.cross_entropy):
    """An eager objective and its compiled twin."""
    eager = rt.Objective(model.to(dtype), loss, terms, seed=3)
    twin = copy.deepcopy(eager)
    twin.compile(backend=backend)
    return eager, twin


def act(objective, *arguments, **more):
    """A step's report, with its gradients in the parameters."""
    objective.zero_grad(set_to_none=True)
    report = objective(*arguments, **more)
    report.total.backward()
    return report


def check_equal(eager, twin, left, right, tolerance=1e-10):
    """Reports, gradients and buffers."""
    kinds = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(left.total, right.total, **kinds)
    assert (left.task is None) == (right.task is None)
    if left.task is not None:
        torch.testing.assert_close(left.task, right.task, **kinds)
        torch.testing.assert_close(left.outputs, right.outputs, **kinds)
    assert list(left.terms) == list(right.terms)
    for name, term in left.terms.items():
        assert term.weight == right.terms[name].weight
        for one in ("penalty", "contribution"):
            torch.testing.assert_close(getattr(term, one), getattr(right.terms[name], one), **kinds)
    assert eager.step == twin.step
    for one, other in zip(eager.parameters(), twin.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, **kinds)
    for one, other in zip(eager.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(one, other, **kinds)


def graphs(objective):
    """How many kinds of step were compiled."""
    return sum(graph is not None for graph in objective._compiled._graphs.values())


def train(eager, twin, steps, shape, tolerance=1e-10, dtype=torch.float64, **arguments):
    """The same steps of both, each with its own optimizer."""
    optimizers = [torch.optim.SGD(one.parameters(), 0.1) for one in (eager, twin)]
    for step in range(steps):
        both = [act(one, *batch(step, shape, dtype=dtype), **arguments) for one in (eager, twin)]
        check_equal(eager, twin, *both, tolerance)
        for optimizer in optimizers:
            optimizer.step()


VECTORS = {
    "expected gradients": EG,
    "gradient": rt.Gradient(output="log_prob_sum"),
    "loss gradient": rt.Gradient(output="loss"),
    "input times gradient": rt.InputXGradient(target="predicted"),
    "integrated": rt.IntegratedGradients(n_steps=4),
    "smooth": rt.SmoothGrad(n_samples=2),
    "sampled": rt.ExpectedGradients(rt.references.Sample(FIXED), n_samples=3, recentred=True),
    "noise": rt.ExpectedGradients(rt.references.Noise(0.3), n_samples=2),
    "layer": rt.ExpectedGradients(n_samples=2, space=rt.spaces.Layer("0")),
}


@pytest.mark.parametrize("name", VECTORS)
def test_every_step_is_the_eager_one(name):
    eager, twin = pair(rt.models.mlp(6, [8, 8], CLASSES, seed=0), rt.Term(VECTORS[name], rt.priors.L1(), 0.5))
    train(eager, twin, 5, (6,))
    assert graphs(twin) == 1


@pytest.mark.parametrize("engine", ["double-backward", "frozen-masks", "two-phase"])
def test_every_engine_compiles(engine):
    eager, twin = pair(rt.models.mlp(6, [8], CLASSES, seed=0), rt.Term(EG, rt.priors.Sparsity(), engine=engine))
    train(eager, twin, 4, (6,))
    assert graphs(twin) == 1


def test_an_image_network_with_batch_norm_in_training_mode():
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, CLASSES)]
    terms = rt.Term(EG, rt.priors.TotalVariation(), 0.5), rt.Term(rt.Gradient(), rt.priors.L2(), 0.1)
    eager, twin = pair(nn.Sequential(*layers), *terms, backend="aot_eager")
    train(eager, twin, 5, (1, 8, 8))
    assert float(eager.model[1].num_batches_tracked) == 5
    for one in (eager, twin):
        one.eval()
    train(eager, twin, 3, (1, 8, 8))
    assert graphs(twin) == 2


@pytest.mark.parametrize("inplace", [False, True])
def test_dropout_draws_what_it_would_have_drawn(inplace):
    first = nn.Linear(6, 8), nn.Dropout(0.5, inplace), nn.Tanh()
    layers = *first, nn.Linear(8, 8), nn.Dropout(0.2), nn.Linear(8, CLASSES)
    eager, twin = pair(nn.Sequential(*layers), rt.Term(EG, rt.priors.L2()))
    for step in range(5):
        both = []
        for one in (eager, twin):
            torch.manual_seed(step)
            both.append(act(one, *batch(step, (6,))))
            both.append(torch.rand(3))
        check_equal(eager, twin, both[0], both[2])
        assert torch.equal(both[1], both[3])  # the global state has moved alike
    assert graphs(twin) == 1


def test_float32_and_attention():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="gelu", batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(32, CLASSES))
    eager, twin = pair(model, rt.Term(EG, rt.priors.L2()), dtype=torch.float32)
    train(eager, twin, 4, (4, 8), 1e-5, torch.float32)
    assert graphs(twin) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_default_compiler_where_there_is_one():
    eager, twin = pair(rt.models.mlp(6, [8], CLASSES, seed=0), rt.Term(EG, rt.priors.L2()), backend="inductor")
    check_equal(eager, twin, *[act(one, *batch(0, (6,))) for one in (eager, twin)])
    try:
        right = act(twin, *batch(1, (6,)))
    except CompilationError as reason:  # a machine without: named, and the objective is eager again
        if "ompiler" not in str(reason):
            raise
        right = act(twin, *batch(1, (6,)))
    check_equal(eager, twin, act(eager, *batch(1, (6,))), right)
    train(eager, twin, 2, (6,))


def test_weights_and_schedules_are_no_constants():
    resting = rt.Term(EG, rt.priors.L2(), 0.5, name="resting", schedule=rt.Schedule(every=2, warmup=5))
    eager, twin = pair(vector_model(), resting, rt.Term(rt.Gradient(), rt.priors.L1(), "balance", name="balanced"))
    train(eager, twin, 6, (6,))
    for one in (eager, twin):
        one.set_weight("resting", 3.0)
        one.set_weight("balanced", 0.01)
    train(eager, twin, 4, (6,))
    assert eager.weights == twin.weights
    assert graphs(twin) == 2  # with the resting term and without
    for one in (eager, twin):
        one.set_weight("resting", 0.0)
    train(eager, twin, 2, (6,))
    assert graphs(twin) == 2


def test_the_halves_of_an_alternating_update():
    eager, twin = pair(vector_model(), rt.Term(EG, rt.priors.L2()))
    for step in range(4):
        for part in ("task", "prior"):
            both = [act(one, *batch(step, (6,)), part=part) for one in (eager, twin)]
            check_equal(eager, twin, *both)
    assert graphs(twin) == 2


def test_other_shapes_are_compiled_when_they_come_again():
    eager, twin = pair(vector_model(), rt.Term(EG, rt.priors.L2()))
    for step, size in enumerate([5, 5, 3, 5, 3, 5, 3, 2]):
        both = [act(one, *batch(step, (6,), size)) for one in (eager, twin)]
        check_equal(eager, twin, *both)
    assert graphs(twin) == 2


def test_too_many_shapes_stay_eager(monkeypatch):
    monkeypatch.setattr(compiled, "_GRAPHS", 1)
    eager, twin = pair(vector_model(), rt.Term(EG, rt.priors.L2()))
    for step, size in enumerate([5, 4, 4, 4, 5]):
        check_equal(eager, twin, *[act(one, *batch(step, (6,), size)) for one in (eager, twin)])
    assert graphs(twin) == 1


def test_annotations_and_fractions_go_in():
    terms = rt.Term(rt.Gradient(), rt.priors.Irrelevant()), rt.Term(EG, rt.priors.L2(), fraction=0.5)
    eager, twin = pair(vector_model(), *terms)
    for step in range(5):
        x, y = batch(step, (6,))
        known = rt.Annotation(irrelevant=batch(50 + step, (6,))[0] > 0)
        check_equal(eager, twin, *[act(one, x, y, known) for one in (eager, twin)])
    assert graphs(twin) == 1


def test_inputs_in_a_tuple_and_labels_that_are_the_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(12, 6)

        def forward(self, x, extra, twice):
            return torch.tanh(self.inner(torch.cat([x, extra], 1))) * (2 if twice else 1)

    def loss(outputs, labels):
        return ((outputs - labels) ** 2).mean()

    term = rt.Term(rt.Gradient(output=lambda outputs, labels: outputs.sum(1), space=rt.spaces.Input(0)), rt.priors.L2())
    eager, twin = pair(Two(), term, loss=loss)
    for step in range(8):
        x, other = batch(step, (6,))[0], batch(50 + step, (6,))[0]
        inputs = (x, other, step % 4 < 2)
        labels = x if step < 4 else other
        check_equal(eager, twin, *[act(one, inputs, labels) for one in (eager, twin)])


def test_a_generator_of_the_users():
    eager, twin = pair(vector_model(), rt.Term(EG, rt.priors.L2()), rt.Term(EG, rt.priors.L1()))
    left, right = draws(7), draws(7)
    for step in range(4):
        both = act(eager, *batch(step, (6,)), generator=left), act(twin, *batch(step, (6,)), generator=right)
        check_equal(eager, twin, *both)
        assert torch.equal(left.get_state(), right.get_state())


def test_resuming_copying_and_checking():
    eager, twin = pair(vector_model(), rt.Term(EG, rt.priors.L2()))
    train(eager, twin, 3, (6,))
    other = copy.deepcopy(twin)
    assert graphs(other) == 0
    other.load_state_dict(eager.state_dict())
    train(eager, other, 3, (6,))
    assert graphs(other) == 1
    assert rt.check(twin, *batch(0, (6,))).ok
    with torch.no_grad():
        assert not twin(*batch(0, (6,))).total.requires_grad


def test_fit_gives_the_same_history():
    eager, twin = pair(vector_model(), rt.Term(EG, rt.priors.L2(), 0.1))
    x, y = batch(0, (6,), 11)
    runs = [rt.fit(one, (x, y), epochs=4, batch_size=4, seed=1) for one in (eager, twin)]
    assert graphs(twin) == 2
    for left, right in zip(*[run.history for run in runs], strict=True):
        assert left["task"] == pytest.approx(right["task"], rel=1e-12)


def test_the_total_scales_and_adds_up_like_any_loss():
    eager, twin = pair(vector_model(), rt.Term(EG, rt.priors.L2()))
    train(eager, twin, 2, (6,))
    for one in (eager, twin):
        one.zero_grad()
        for step in range(2):
            (3 * one(*batch(step, (6,))).total + sum(p.sum() for p in one.parameters())).backward()
    for left, right in zip(eager.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad, rtol=1e-10, atol=1e-12)


def test_a_check_that_comes_out_otherwise_is_made_eagerly():
    eager, twin = pair(vector_model(), rt.Term(EG, rt.priors.L2()))
    train(eager, twin, 3, (6,))
    x, y = batch(9, (6,))
    with pytest.raises(ArgumentError, match="does not have"):
        twin(x, y + 2)
    train(eager, twin, 2, (6,))


class Deciding(nn.Module):
    """Takes another way for some batches."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, CLASSES)

    def forward(self, x):
        return torch.tanh(self.inner(x)) if x.sum() > 0 else self.inner(x) ** 2


def test_a_model_that_decides_by_its_data_goes_its_own_way():
    eager, twin = pair(Deciding(), rt.Term(rt.Gradient(), rt.priors.L2()))
    for step in range(8):
        x, y = batch(step, (6,))
        x = x.abs() * (-1) ** (step // 3)
        check_equal(eager, twin, *[act(one, x, y) for one in (eager, twin)])
    assert graphs(twin) == 1


class Odd(nn.Module):
    """A linear map, and something that a graph would keep as it was when it was written down."""

    def __init__(self, how):
        super().__init__()
        self.inner, self.how = nn.Linear(6, CLASSES), how

    def forward(self, x):
        return self.how(torch.tanh(self.inner(x)))


OWN = torch.Generator().manual_seed(0)
ODD = {
    "number": (lambda h: h * h.detach().mean().item(), "number"),
    "array": (lambda h: h * torch.as_tensor(h.detach().numpy().mean()), "number"),
    "list": (lambda h: h * max(h.detach().flatten().tolist()), "number"),
    "mask": (lambda h: h + h[h > 0].mean(), "shape"),
    "noisy kinks": (lambda h: F.rrelu(h, training=True), "random"),
    "noise": (lambda h: h + torch.randn(len(h), CLASSES, dtype=h.dtype), "random"),
    "own generator": (lambda h: h + torch.randn(len(h), CLASSES, dtype=h.dtype, generator=OWN), "generator"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_a_graph_would_freeze_is_refused(name):
    how, why = ODD[name]
    _, twin = pair(Odd(how), rt.Term(rt.Gradient(), rt.priors.L2(), engine="double-backward"))
    act(twin, *batch(0, (6,)))
    with pytest.raises(CompilationError, match=why):
        act(twin, *batch(1, (6,)))
    assert act(twin, *batch(1, (6,))).outputs.requires_grad  # eager again


def test_what_was_made_of_the_parameters_before_the_step_is_refused():
    model = vector_model().double()
    kept = model[0].weight * 2

    def loss(outputs, labels):
        return F.cross_entropy(outputs, labels) + kept.sum()

    twin = rt.Objective(model, loss, [rt.Term(EG, rt.priors.L2())])
    twin.compile(backend="eager")
    twin(*batch(0, (6,)))
    with pytest.raises(CompilationError, match="before the step"):
        twin(*batch(1, (6,)))


def test_half_precision_is_refused():
    _, twin = pair(vector_model(), rt.Term(EG, rt.priors.L2()), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        act(twin, *batch(0, (6,), dtype=torch.float32))
        with pytest.raises(CompilationError, match="half precision"):
            act(twin, *batch(1, (6,), dtype=torch.float32))


def test_what_is_no_gradient_is_refused():
    _, twin = pair(vector_model(), rt.Term(rt.Occlusion(), rt.priors.L2()))
    act(twin, *batch(0, (6,)))
    with pytest.raises(CompilationError, match="number"):
        act(twin, *batch(1, (6,)))


def test_differences_are_refused():
    _, twin = pair(
        nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, CLASSES)),
        rt.Term(EG, rt.priors.L2(), engine="finite-differences"),
    )
    act(twin, *batch(0, (6,)))
    with pytest.raises(CompilationError, match="number"):
        act(twin, *batch(1, (6,)))


def wrong(graph, inputs):
    """A compiler that gets the last gradient slightly wrong."""

    def run(*given):
        *first, last = graph(*given)
        return (*first, last * (1 + 1e-6))

    return run


def forgetful(graph, inputs):
    """A compiler that answers every question as it answered the first one."""
    known = []

    def run(*given):
        known.append(known[0] if known else graph(*given))
        return known[0]

    return run


def absent(graph, inputs):
    raise FileNotFoundError("no C++ compiler")


@pytest.mark.parametrize(("backend", "why"), [(wrong, "differs"), (forgetful, "differ"), (absent, "no C")])
def test_a_compiler_that_is_wrong_is_found_out(backend, why):
    _, twin = pair(vector_model(), rt.Term(EG, rt.priors.L2()), backend=backend)
    act(twin, *batch(0, (6,)))
    if backend is forgetful:  # right at its first step
        act(twin, *batch(1, (6,)))
    with pytest.raises(CompilationError, match=why):
        act(twin, *batch(2, (6,)))
