"""The frozen-mask engine from inside: what the tape keeps, what it costs, and what it does not accept."""

import gc
import warnings
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from contracts.engines import check_engine, explain
from contracts.problems import initialised, normal
from contracts.zoo import FITS, Case, case, piecewise
from rightly.attributions import ExpectedGradients, Gradient, InputXGradient
from rightly.core import autodiff
from rightly.core.frozen import FrozenMasks, FrozenStack, fits, kernels, work
from rightly.core.frozen.rules import RULES
from rightly.core.frozen.tape import Tape, Traced, Weighted
from rightly.core.frozen.work import Work
from rightly.core.intercept import Unsupported
from rightly.spaces import Layer


def walked(model, points, output=lambda outputs: outputs[:, 0]):
    with autodiff.reading(model, trainable=False):
        return Work(model, output, points)


def test_a_tangent_goes_as_the_directional_derivative():
    subject = piecewise()
    points, tangent = subject.inputs, normal(*subject.inputs.shape, seed=5)
    seen = walked(subject.model, points)
    found, _ = seen.tape.push(tangent, seen.output)
    with autodiff.reading(subject.model, trainable=False):
        leaf = points.clone().requires_grad_()
        expected = along(subject.model(leaf.clone()), leaf, tangent)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_each_weight_meets_the_tangent_that_enters_it():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    points, tangent = normal(5, 4, seed=1), normal(5, 4, seed=2)
    seen = walked(model, points)
    _, entering = seen.tape.push(tangent, seen.output)
    first = tangent @ model[0].weight.T
    assert torch.equal(entering[0], tangent)
    assert torch.allclose(entering[1], first * (model[0](points) > 0), atol=1e-14)
    assert len(seen.tape.weighted) == 2


def test_tangents_are_dropped_when_nothing_reads_them_any_more():
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) if i % 2 else nn.ReLU() for i in range(12))).double()
    seen = walked(model, normal(3, 4, seed=1))
    alive = []
    for step in seen.tape.steps:
        run = step.run

        def watched(*tangents, run=run):
            result = run(*tangents)
            alive.append((weakref.ref(result), sum(ref() is not None for ref, _ in alive)))
            return result

        object.__setattr__(step, "run", watched)
    seen.tape.weighted.clear()
    for step in seen.tape.steps:
        object.__setattr__(step, "weighted", None)
    seen.tape.push(normal(3, 4, seed=2), seen.output)
    assert max(count for _, count in alive) <= 2


def test_a_pass_is_freed_with_its_gradient():
    subject = piecewise()
    known, own = [], Tape.__init__

    def noted(self, *args):
        own(self, *args)
        known.append(weakref.ref(self))

    gc.collect()
    gc.disable()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Tape, "__init__", noted)
            for trained in (True, False):
                phi = explain(ExpectedGradients(n_samples=2, output="loss"), subject, FrozenMasks())
                if trained:
                    (phi**2).sum().backward()
                del phi
        assert len(known) == 2
        assert [ref() for ref in known] == [None, None]
    finally:
        gc.enable()


def test_the_batch_is_a_pass_for_the_task_too():
    subject = case("pools")
    engine = FrozenMasks()
    engine.start(subject.inputs)
    phi = explain(Gradient(output="loss"), subject, engine)
    parameters = list(subject.model.parameters())
    total = (phi**2).sum() + F.cross_entropy(engine.outputs, subject.labels)
    found = torch.autograd.grad(total, parameters, retain_graph=True)
    apart = [
        torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        for value in ((phi**2).sum(), F.cross_entropy(subject.model(subject.inputs), subject.labels))
    ]
    for whole, prior, task in zip(found, *apart, strict=True):
        assert torch.allclose(whole, prior + task, rtol=0, atol=1e-12)
    assert torch.equal(engine.outputs, subject.model(subject.inputs))


def test_a_pass_elsewhere_does_not_serve_the_task():
    subject = case("pools")
    engine = FrozenMasks()
    engine.start(subject.inputs)
    with pytest.raises(Unsupported, match="not taken at the batch"):
        explain(ExpectedGradients(), subject, engine)
    engine.start()
    explain(ExpectedGradients(), subject, engine)
    assert engine.outputs is None


def test_autocast_is_refused():
    subject = piecewise()
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(Unsupported, match="autocast"):
        explain(Gradient(), subject, FrozenMasks())


class Remembering(nn.Module):
    def __init__(self, read):
        super().__init__()
        self.inner, self.before, self.read = nn.Linear(4, 4).double(), None, read

    def forward(self, x):
        now = self.inner(x)
        result = now if self.before is None or not self.read else now + self.before
        self.before = now
        return result.relu()


@pytest.mark.parametrize("read", [True, False])
def test_nothing_that_is_carried_leaves_the_pass(read):
    with pytest.raises(Unsupported, match="the model keeps what it computed"):
        walked(Remembering(read), normal(3, 4, seed=1))


def test_what_an_earlier_pass_left_is_not_mixed_in():
    model = Remembering(True)
    for _ in range(2):
        with pytest.raises(Unsupported):
            walked(model, normal(3, 4, seed=1))
    with pytest.raises(Unsupported, match="an earlier pass"):
        walked(model, normal(3, 4, seed=1))
    kept = model.before
    with pytest.raises(Unsupported, match="do not come from its inputs"):
        walked(lambda x: kept, normal(3, 4, seed=1))


def test_statistics_of_the_batch_are_refused_also_when_they_are_kept():
    mean, variance = torch.zeros(4).double(), torch.ones(4).double()
    with pytest.raises(Unsupported, match="statistics of the batch"):
        walked(lambda x: F.batch_norm(x, mean, variance, training=True), normal(3, 4, seed=1))
    assert torch.equal(mean, torch.zeros(4).double())


def _mlp():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Dropout(), nn.Sequential(nn.Linear(3, 2))
    ).double()


def test_a_plain_stack_is_known():
    assert fits(_mlp())
    assert not fits(nn.Sequential(nn.ReLU()))
    assert not fits(nn.Sequential(nn.Linear(2, 2), nn.GELU()))
    assert not fits(nn.Sequential(nn.Linear(2, 2), nn.Flatten(0)))
    assert not fits(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))))


@pytest.mark.parametrize(
    "watch",
    [
        lambda layer: layer.register_forward_hook(lambda *_: None),
        lambda layer: layer.register_forward_pre_hook(lambda *_: None),
        lambda layer: layer.register_full_backward_hook(lambda *_: None),
        lambda layer: layer.register_full_backward_pre_hook(lambda *_: None),
        lambda layer: setattr(layer, "forward", lambda x: 2 * x),
    ],
)
def test_a_stack_that_somebody_watches_is_called(watch):
    model = _mlp()
    watch(model[1])
    assert not fits(model)
    with pytest.raises(Unsupported, match="not a plain stack any more"):
        FrozenStack(model)


def test_a_stack_with_one_weight_in_two_places():
    first = nn.Linear(6, 6)
    model = initialised(nn.Sequential(first, nn.ReLU(), first, nn.ReLU(), nn.Linear(6, 3)))
    subject = Case(model, normal(3, 6, seed=1), torch.tensor([0, 1, 2]))
    assert fits(model)
    check_engine(FrozenStack(model), subject, ExpectedGradients(n_samples=2, output="loss"))
    with pytest.raises(Unsupported, match="depend on parameters"):
        explain(InputXGradient(space=Layer("0")), subject, FrozenStack(model))


def test_errors_on_the_way_are_told():
    with pytest.raises(Unsupported, match="ZeroDivisionError on the way"):
        walked(lambda x: x * (1 / 0), normal(3, 4, seed=1))
    with pytest.raises(Unsupported, match="do not come from its inputs"):
        walked(lambda x: torch.ones(3, 2), normal(3, 4, seed=1))
    with pytest.raises(Unsupported, match="does not depend on the points"):
        walked(lambda x: Traced(x.detach() + 0 * LEAF, x.tape, x.slot), normal(3, 4, seed=1))


LEAF = torch.zeros((), dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("size", [(6, 6), (7, 5), (4, 9)])
@pytest.mark.parametrize("ties", [True, False])
def test_pooling_takes_torchs_winners(size, ties):
    source = normal(2, 3, *size, seed=1)
    source = source.round() if ties else source
    for arguments in ((2, 2, 0, 1, False), (3, 2, 1, 1, False), (2, 1, 0, 2, False), (2, 2, 0, 1, True)):
        found = kernels.max_pool(source, 2, arguments)
        kernel, stride, padding, dilation, ceil_mode = arguments
        expected = F.max_pool2d(source, kernel, stride, padding, dilation, ceil_mode, return_indices=True)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("geometry", [(1, 0, 1), (2, 1, 1), (3, 2, 2), ((2, 1), (0, 2), (1, 2))])
@pytest.mark.parametrize("channels", [1, 2, 40])
def test_convolutions_have_torchs_adjoints(channels, geometry):
    stride, padding, dilation = geometry
    source, weight = normal(2, channels, 9, 8, seed=1).requires_grad_(), normal(4, channels, 3, 2, seed=2)
    bias = normal(4, seed=3)
    shape = kernels.Geometry.of(2, stride, padding, dilation, 1)
    found = kernels.convolve(source, weight, bias, shape)
    leaf = weight.clone().requires_grad_()
    expected = F.conv2d(source, leaf, bias, stride, padding, dilation)
    assert torch.equal(found, expected)
    cotangent = normal(*found.shape, seed=4)
    (adjoint,) = torch.autograd.grad(found, source, cotangent)
    wanted, of_weight = torch.autograd.grad(expected, (source, leaf), cotangent)
    assert torch.allclose(adjoint, wanted, atol=1e-12)
    pulled = kernels.convolution_pull(weight, shape)(cotangent, source.detach())
    assert torch.allclose(pulled, of_weight, atol=1e-12)


def test_matrix_products_of_one_weight_are_added():
    sums = work.Sums([torch.zeros(2, 3)])
    places = [(normal(5, 2, seed=i), normal(5, 3, seed=i + 9)) for i in range(3)]
    for cotangent, source in places:
        sums.weigh(Weighted(0, cotangent, source, None), cotangent, source)
    sums.weigh(Weighted(None, *places[0], None), *places[0])
    (found,) = sums.close()
    assert torch.allclose(found, sum(c.T @ s for c, s in places), atol=1e-12)


W = normal(6, 6, seed=3)


def scaled(x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's, about a scalar that loses its gradient
        return x * float(x.sum())


#: rules that no model of the zoo calls: other spellings, on (4, 2, 6, 6)
SPELLINGS = {
    "T": lambda x: x[0, 0].T,
    "mT": lambda x: x.mT,
    "absolute": lambda x: x.absolute(),
    "adaptive_avg_pool1d": lambda x: F.adaptive_avg_pool1d(x[0], 4),
    "adaptive_avg_pool3d": lambda x: F.adaptive_avg_pool3d(x, (1, 2, 4)),
    "alpha_dropout": lambda x: F.alpha_dropout(x, 0.5, False),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2),
    "clamp_max": lambda x: x.clamp_max(0.1),
    "clone": lambda x: x.clone(),
    "concat": lambda x: torch.concat([x, x.relu()]),
    "concatenate": lambda x: torch.concatenate([x, W.expand(4, 2, 6, 6)], 1),
    "divide": lambda x: x.divide(3.0),
    "dropout1d": lambda x: F.dropout1d(x[0], 0.5, False),
    "dropout2d": lambda x: F.dropout2d(x, training=False),
    "dropout3d": lambda x: F.dropout3d(x, 0.0),
    "expand": lambda x: x[:, :1].expand(-1, 3, -1, -1),
    "expand_as": lambda x: x[:, :1].expand_as(torch.zeros(4, 2, 6, 6)),
    "feature_alpha_dropout": lambda x: F.feature_alpha_dropout(x, 0.5, False),
    "float": scaled,
    "fold": lambda x: F.fold(x[:, 0], (4, 2), (2, 1)),
    "moveaxis": lambda x: x.moveaxis(1, 3),
    "movedim": lambda x: x.movedim(0, 1),
    "multiply": lambda x: torch.multiply(W, x),
    "narrow": lambda x: x.narrow(2, 1, 3),
    "negative": lambda x: x.negative(),
    "positive": lambda x: x.positive(),
    "rmatmul": lambda x: torch.Tensor.__rmatmul__(x, W),
    "select": lambda x: x.select(1, 1),
    "subtract": lambda x: torch.subtract(W, x, alpha=2),
    "swapaxes": lambda x: x.swapaxes(1, 2),
    "swapdims": lambda x: x.swapdims(0, 3),
    "tensor_split": lambda x: x.tensor_split(3, 2)[1],
    "threshold": lambda x: torch.threshold(x, 0.1, 0.5),
    "tile": lambda x: x.tile(1, 1, 2, 1),
    "true_divide": lambda x: x.true_divide(4),
    "type": lambda x: x.type(torch.float64),
    "type_as": lambda x: W.float().type_as(x)[0] * x.type_as(W),
    "upsample": lambda x: F.interpolate(x, scale_factor=2),
    "view_as": lambda x: x.view_as(torch.zeros(8, 6, 6)),
    "vstack": lambda x: torch.vstack([x, x * 2]),
}

#: questions about a value, and values that have no derivative
QUESTIONS = {
    "all": lambda x: (x > 0).all() | x.all(),
    "any": lambda x: x.any(),
    "argmax": lambda x: x.argmax(1),
    "argmin": lambda x: torch.argmin(x),
    "bool": lambda x: bool(x.sum()),
    "ceil": lambda x: x.ceil(),
    "data": lambda x: x.data,
    "device": lambda x: x.device,
    "element_size": lambda x: x.element_size(),
    "empty_like": lambda x: torch.empty_like(x).shape,
    "eq": lambda x: x == x.round(),
    "floor": lambda x: torch.floor(x),
    "full_like": lambda x: torch.full_like(x, 2.0),
    "ge": lambda x: x >= 0,
    "get_device": lambda x: x.get_device(),
    "is_complex": lambda x: x.is_complex(),
    "is_contiguous": lambda x: x.is_contiguous(),
    "is_cpu": lambda x: x.is_cpu,
    "is_cuda": lambda x: x.is_cuda,
    "is_floating_point": lambda x: x.is_floating_point(),
    "is_leaf": lambda x: isinstance(x.is_leaf, bool),
    "is_mps": lambda x: x.is_mps,
    "is_nested": lambda x: x.is_nested,
    "is_quantized": lambda x: x.is_quantized,
    "is_sparse": lambda x: x.is_sparse,
    "isfinite": lambda x: torch.isfinite(x),
    "isinf": lambda x: torch.isinf(x),
    "isnan": lambda x: x.isnan(),
    "layout": lambda x: x.layout,
    "le": lambda x: x <= 0,
    "ndim": lambda x: x.ndim,
    "ne": lambda x: x != 0,
    "new_empty": lambda x: x.new_empty(3).shape,
    "new_full": lambda x: x.new_full((2,), 3.0),
    "new_tensor": lambda x: x.new_tensor([1.0, 2.0]),
    "new_zeros": lambda x: x.new_zeros(2, 2),
    "numel": lambda x: x.numel(),
    "ones_like": lambda x: torch.ones_like(x),
    "requires_grad": lambda x: x.requires_grad,
    "shape": lambda x: x.shape,
    "sign": lambda x: x.sign(),
    "stride": lambda x: x.stride(),
    "tolist": lambda x: x.tolist(),
}

#: where nothing on this machine, or in float64, can call them
ELSEWHERE = {"half", "bfloat16", "positive", "upsample"}


class Watching(dict):
    """A table of rules that remembers what was looked up."""

    def __init__(self):
        super().__init__(RULES)
        self.met = set()

    def get(self, name, default=None):
        self.met.add(name)
        return super().get(name, default)


@pytest.fixture
def watched(monkeypatch):
    table = Watching()
    monkeypatch.setattr(Traced, "rules", table)
    return table


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_does_what_it_does(name, watched):
    func = SPELLINGS[name]
    points, tangent = normal(4, 2, 6, 6, seed=1), normal(4, 2, 6, 6, seed=2)
    tape = Tape(points)
    found = func(tape.start())
    assert name in watched.met or name in ELSEWHERE
    leaf = points.clone().requires_grad_()
    expected = func(leaf)
    assert torch.equal(found.total, expected)
    assert torch.allclose(tape.push(tangent, found)[0], along(expected, leaf, tangent), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_question_has_its_plain_answer(name, watched):
    func = QUESTIONS[name]
    points = normal(4, 2, 6, 6, seed=1)
    found, expected = func(Tape(points).start()), func(points.clone().requires_grad_())
    assert name in watched.met or name == "shape"
    assert not isinstance(found, Traced)
    if isinstance(found, torch.Tensor):
        assert not found.requires_grad
        assert torch.equal(found, expected.detach())
    else:
        assert found == expected


def test_every_rule_is_tried(watched):
    """A rule that nothing tries is not known to be right."""
    for name in FITS:
        explain(Gradient(), case(name), FrozenMasks())
    assert set(RULES) - watched.met - set(SPELLINGS) - set(QUESTIONS) == {"half", "bfloat16"}


def along(value, leaf, tangent):
    """The derivative along a tangent: the adjoint's adjoint."""
    cotangent = torch.zeros_like(value, requires_grad=True)
    (adjoint,) = torch.autograd.grad(value, leaf, cotangent, create_graph=True)
    return torch.autograd.grad(adjoint, cotangent, tangent)[0]
