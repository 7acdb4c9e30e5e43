"""How an engine is chosen at a term's first step, what is said about it, and what happens when the model changes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts.engines import explain, gradients
from contracts.problems import draws, initialised, normal
from contracts.zoo import Case, case, piecewise
from rightly.core.errors import ArgumentError
from rightly.core.frozen import FrozenMasks, table
from rightly.core.operators import saved_bytes
from rightly.objectives import engines

EG = rt.ExpectedGradients(n_samples=2, output="loss")


def objective(subject, method=EG, engine="auto", **arguments):
    return rt.Objective(
        subject.model, F.cross_entropy, [rt.Term(method, rt.priors.L2(), 2.0, engine=engine, **arguments)]
    )


def choice(whole):
    return whole.engines.choices["l2"]


def agree(found, expected):
    """Totals, outputs and gradients of the same steps."""
    for step, other in zip(found, expected, strict=True):
        for left, right in zip(step, other, strict=True):
            if left is not None and right is not None:
                assert torch.allclose(left, right, rtol=1e-10, atol=1e-13)


def test_the_choice_is_made_once_and_told():
    whole = objective(piecewise())
    assert whole.engines.choices == {}
    gradients(whole, piecewise())
    first = choice(whole)
    gradients(whole, piecewise())
    assert choice(whole) is first
    assert first.name == "frozen-masks"
    assert "piecewise linear" in first.why
    assert "proved against double backward" in first.why
    assert first.error < 1e-12


def test_what_was_asked_for_is_not_tried(monkeypatch):
    monkeypatch.setattr(engines, "_Trial", None)
    subject = piecewise()
    whole = objective(subject, engine="double-backward")
    gradients(whole, subject)
    assert choice(whole).why == "asked for"


def test_a_method_without_gradients_says_so():
    subject = piecewise()
    whole = objective(subject, rt.Occlusion())
    gradients(whole, subject)
    assert choice(whole).name == "double-backward"
    assert "Occlusion takes no input gradients" in choice(whole).why


@pytest.fixture
def wrong_relu(monkeypatch):
    """A rule that is wrong where a unit is off."""

    def relu(func, args, kwargs):
        return table.record(args[0], torch.relu(args[0].total), lambda t: t)

    monkeypatch.setitem(table.RULES, "relu", relu)


def test_an_engine_that_disagrees_is_not_taken(wrong_relu):
    subject = piecewise()
    whole = objective(subject)
    found = gradients(whole, subject)
    assert choice(whole).name == "double-backward"
    assert "differ from double backward" in choice(whole).why
    agree(found, gradients(objective(piecewise(), engine="double-backward"), piecewise()))


def test_an_engine_that_disagrees_is_refused_when_asked_for(wrong_relu):
    subject = piecewise()
    whole = objective(subject, engine="frozen-masks")
    with pytest.raises(ArgumentError, match="cannot use the frozen-mask engine") as found:
        whole(subject.inputs, subject.labels)
    assert "differ from double backward" in str(found.value.got)


def test_an_inner_engine_that_disagrees_is_not_taken_either(wrong_relu):
    subject = piecewise()
    whole = objective(subject, engine="two-phase")
    gradients(whole, subject)
    assert choice(whole).inner == "double-backward"


# --- models that change after they were proved


class Switching(nn.Module):
    """ReLU at first, something else from the n-th pass on."""

    def __init__(self, after, then):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.passes, self.after, self.then = 0, after, then

    def forward(self, x):
        h = self.first(x)
        return self.last(self.then(h) if self.now() else F.relu(h))

    def now(self):
        return self.after is not None and self.after()


def switching(then):
    switch = {"on": False}
    subject = Case(initialised(Switching(lambda: switch["on"], then)), normal(3, 6, seed=31), torch.tensor([2, 0, 1]))
    return subject, switch


THEN = {
    "gelu": F.gelu,
    "another slope": lambda h: F.leaky_relu(h, 0.3),
    "square": lambda h: h * h,
    "half of the batch": lambda h: F.relu(h - h.mean(0)),
}


@pytest.mark.parametrize("method", [EG, rt.Gradient(output="loss"), rt.Gradient()], ids=["eg", "loss", "logit"])
@pytest.mark.parametrize("then", THEN)
def test_a_model_that_changes_later_keeps_its_true_gradient(then, method):
    runs = []
    for engine in ("auto", "double-backward"):
        subject, switch = switching(THEN[then])
        whole = objective(subject, method, engine)
        found = gradients(whole, subject)
        switch["on"] = True
        runs.append(found + gradients(whole, subject, 2))
        if engine == "auto":
            smooth = then in ("gelu", "square")
            assert choice(whole).name == ("double-backward" if smooth else "frozen-masks")
            assert ("the model changed" in choice(whole).why) == smooth
    agree(*runs)


def test_an_output_that_bends_later_keeps_its_true_gradient():
    """An explained number that is linear in the outputs at the first steps, and is not later."""
    runs = []
    for engine in ("auto", "double-backward"):
        bent = {"on": False}

        def output(outputs, labels, bent=bent):
            return outputs[:, 0] ** 2 if bent["on"] else outputs[:, 0]

        subject = case("residual")
        subject.model.eval()
        whole = objective(subject, rt.Gradient(output=output), engine)
        found = gradients(whole, subject, 2)
        bent["on"] = True
        runs.append(found + gradients(whole, subject, 2))
    agree(*runs)


def test_a_branch_on_the_size_of_the_batch():
    """The proof runs on sixteen examples at most."""

    class Sized(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x):
            h = self.first(x)
            return self.last(F.relu(h) if len(x) <= 16 else torch.tanh(h))

    runs = []
    for engine in ("auto", "double-backward"):
        subject = Case(initialised(Sized()), normal(20, 6, seed=1), torch.arange(20) % 3)
        whole = objective(subject, rt.Gradient(), engine)
        runs.append(gradients(whole, subject, 2))
        if engine == "auto":
            assert choice(whole).name == "double-backward"
            assert "the model changed: no rule for tanh" in choice(whole).why
    agree(*runs)


def test_a_fall_back_draws_what_double_backward_draws():
    """Also from a generator of the user's."""
    totals = []
    for engine in ("auto", "double-backward"):
        subject, switch = switching(F.gelu)
        whole = objective(subject, EG, engine)
        generator = draws(3)
        whole(subject.inputs, subject.labels, None, generator)
        switch["on"] = True
        totals.append(float(whole(subject.inputs, subject.labels, None, generator).total.detach()))
        totals.append(float(torch.rand((), generator=generator)))
    assert totals[:2] == pytest.approx(totals[2:], rel=1e-12)


# --- memory decides


def test_auto_takes_chunks_where_one_graph_is_too_much(monkeypatch):
    monkeypatch.setattr(engines, "_BUDGET", 1000)
    for name, inner in (("pools", "frozen-masks"), ("gelu", "double-backward")):
        subject = case(name)
        whole = objective(subject)
        found = gradients(whole, subject)
        assert choice(whole).name == "two-phase"
        assert choice(whole).inner == inner
        assert choice(whole).chunk_size >= 16
        assert "GiB" in choice(whole).why
        agree(found, gradients(objective(case(name), engine="double-backward"), case(name)))


def test_the_chunk_follows_the_memory_of_a_point(monkeypatch):
    monkeypatch.setattr(engines, "_CHUNK", 2**16)
    sizes = []
    for width in (8, 64, 4096):
        model = nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 3))
        subject = Case(initialised(model), normal(3, 6, seed=1), torch.tensor([0, 1, 2]))
        whole = objective(subject, engine="two-phase")
        gradients(whole, subject)
        sizes.append(choice(whole).chunk_size)
    assert sizes[0] > sizes[1] > sizes[2] == 16


# --- differences


def test_differences_in_the_space_of_a_layer_are_refused():
    subject = case("gelu")
    whole = objective(subject, rt.InputXGradient(space=rt.spaces.Layer("0")), "finite-differences")
    with pytest.raises(ArgumentError, match="cannot use finite differences") as found:
        whole(subject.inputs, subject.labels)
    assert "depend on parameters" in str(found.value.got)


def test_differences_that_are_no_use_are_refused(monkeypatch):
    monkeypatch.setattr(engines, "_USELESS", 1e-12)
    subject = case("gelu")
    whole = objective(subject, engine="finite-differences")
    with pytest.raises(ArgumentError, match="no use") as found:
        whole(subject.inputs, subject.labels)
    assert found.value.got


# --- the objective around it


@pytest.mark.parametrize("engine", ["auto", "two-phase", "double-backward"])
@pytest.mark.parametrize("name", ["mlp", "pools", "gelu"])
@pytest.mark.parametrize("method", [rt.Gradient(), EG], ids=["gradient", "eg"])
def test_an_objective_is_copied_after_a_step(name, engine, method):
    subject = case(name)
    whole = objective(subject, method, engine)
    gradients(whole, subject)
    twin = copy.deepcopy(whole)
    with torch.no_grad():
        subject.model[-1].weight.mul_(3) if isinstance(subject.model, nn.Sequential) else None
        for parameter in whole.model.parameters():
            parameter.add_(0.1)
    found = gradients(twin, Case(twin.model, subject.inputs, subject.labels))
    fresh = objective(case(name), method, engine)
    fresh.step = twin.step - 1
    agree(found, gradients(fresh, Case(fresh.model, subject.inputs, subject.labels)))


def test_a_saved_objective_chooses_again():
    subject = piecewise()
    whole = objective(subject)
    gradients(whole, subject)
    saved = {name: value.clone() for name, value in whole.state_dict().items()}
    expected = gradients(whole, subject)
    other = objective(piecewise(3))
    other.load_state_dict(saved)
    assert other.engines.choices == {}
    found = gradients(other, Case(other.model, subject.inputs, subject.labels))
    agree(found, expected)


def test_a_choice_disturbs_no_generator():
    subject = piecewise()
    whole = objective(subject)
    generator = draws(3)
    with torch.random.fork_rng():
        torch.manual_seed(11)
        whole(subject.inputs, subject.labels, None, generator, "prior")
        after = torch.rand(3)
        torch.manual_seed(11)
        assert torch.equal(after, torch.rand(3))
    plain = draws(3)
    objective(piecewise(), engine="double-backward")(subject.inputs, subject.labels, None, plain, "prior")
    assert torch.equal(generator.get_state(), plain.get_state())


def test_reports_without_a_graph_need_no_engine():
    subject = piecewise()
    whole = objective(subject)
    with torch.no_grad():
        whole(subject.inputs, subject.labels)
    assert whole.engines.choices == {}


def test_an_engine_is_none_of_the_attributions_business():
    """Without a graph the engine is not asked."""

    class Never(FrozenMasks):
        def gradient(self, read, value_of, points):
            raise AssertionError

    subject = piecewise()
    EG(subject.model, subject.inputs, subject.labels, engine=Never())
    with pytest.raises(AssertionError):
        explain(EG, subject, Never())


def test_another_model_is_the_one_that_is_trained():
    subject = piecewise()
    whole = rt.Objective(subject.model, F.cross_entropy, [rt.Term(rt.Gradient(), rt.priors.L2(), 1.0)])
    whole(subject.inputs, subject.labels)
    whole.model = piecewise().model
    whole(subject.inputs, subject.labels, part="prior").total.backward()
    assert all(p.grad is None for p in subject.model.parameters())
    assert any(p.grad is not None and p.grad.any() for p in whole.model.parameters())


def test_an_engine_is_picked_for_each_precision():
    subject = piecewise()
    model, inputs = subject.model.float(), subject.inputs.float()
    whole = rt.Objective(model, F.cross_entropy, [rt.Term(rt.Gradient(), rt.priors.L2(), 1.0, name="l2")])
    whole(inputs, subject.labels)
    assert whole.engines.choices["l2"].name == "frozen-masks"
    with torch.autocast("cpu", torch.bfloat16):
        whole(inputs, subject.labels)
        assert whole.engines.choices["l2"].name == "double-backward"
    whole(inputs, subject.labels)
    assert whole.engines.choices["l2"].name == "frozen-masks"


def test_differences_are_not_taken_under_autocast():
    subject = case("gelu")
    model, inputs = subject.model.float(), subject.inputs.float()
    term = rt.Term(rt.ExpectedGradients(), rt.priors.L2(), 1.0, name="l2", engine="finite-differences")
    whole = rt.Objective(model, F.cross_entropy, [term])
    whole(inputs, subject.labels)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ArgumentError, match="finite differences"):
        whole(inputs, subject.labels)


@pytest.mark.parametrize("where", [0, 1])
def test_what_is_no_number_does_not_agree(where):
    right, wrong = torch.ones(3), torch.tensor([1.0, float("nan"), 1.0])
    pair = [right, right]
    pair[where] = wrong
    assert engines.relative([pair[0]], [pair[1]]) == float("inf")
    assert engines.relative([right, None], [right, None]) == 0
    assert engines.relative([None], [right]) == engines.relative([2 * right], [right]) == 1


def test_an_engine_that_gives_nan_is_not_used(monkeypatch):
    class Broken(FrozenMasks):
        def gradient(self, read, value_of, points):
            return super().gradient(read, value_of, points) * float("nan")

    monkeypatch.setattr(engines, "FrozenMasks", Broken)
    monkeypatch.setattr(engines, "fits", lambda model: False)
    subject = piecewise()
    whole = rt.Objective(subject.model, F.cross_entropy, [rt.Term(rt.Gradient(), rt.priors.L2(), 1.0, name="l2")])
    whole(subject.inputs, subject.labels)
    assert whole.engines.choices["l2"].name == "double-backward"
    assert "differ" in whole.engines.choices["l2"].why


def test_weights_are_no_memory_of_a_pass():
    """A wide model on few points is not taken in chunks for its weights' sake."""
    layer = nn.Linear(50, 4000)
    x = torch.randn(2, 50, requires_grad=True)
    passes = saved_bytes(lambda: layer(x).relu(), but=layer.parameters())
    assert 2 * 4000 * 4 <= passes <= 3 * 2 * 4000 * 4
    assert saved_bytes(lambda: layer(x).relu()) >= 50 * 4000 * 4
