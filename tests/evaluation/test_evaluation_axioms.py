"""The axioms as measurements: rounding for methods that keep them, about 1 for planted ones that do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rightly as rt
from rightly.attributions.base import Attribution, Explanation
from rightly.core import seeding
from rightly.core.errors import ArgumentError
from rightly.evaluation import axioms
from rightly.evaluation.explainer import Explainer

ROUNDING = 1e-10
HONEST = {
    "expected_gradients": rt.ExpectedGradients(rt.references.InBatch(), n_samples=7),
    "sample": rt.ExpectedGradients(rt.references.Sample(torch.linspace(-1, 1, 30).double().reshape(5, 6)), n_samples=4),
    "integrated_gradients": rt.IntegratedGradients(n_steps=9),
    "gradient": rt.Gradient(),
    "probability": rt.Gradient(output="prob"),
    "occlusion": rt.Occlusion(),
}
AXIOMS = {
    "sensitivity": axioms.sensitivity,
    "implementation_invariance": axioms.implementation_invariance,
    "linearity": axioms.linearity,
    "symmetry": axioms.symmetry,
}


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeding.generator("axioms", seed), dtype=torch.float64)


def network(features: int = 6, classes: int = 3, seed: int = 0) -> nn.Module:
    return rt.models.mlp(features, [8, 5], classes, seed=seed).double()


class Planted(Attribution):
    """A method that breaks what ``how`` says, on any model."""

    def __init__(self, how: str) -> None:
        super().__init__(rt.spaces.Input(), "logit", "label")
        self.how = how
        self.reference = rt.references.Constant(0.0)

    def _explain(self, problem: Any, generator: torch.Generator, diagnostics: bool) -> Explanation:
        x = problem.view.coordinates
        honest = problem.average(lambda rows, s: (x[rows], lambda g: g), 1)
        if self.how == "sensitivity":  # looks at the input only
            return Explanation(x.abs() + 0.1)
        if self.how == "symmetry":  # a feature's place counts
            return Explanation(honest * torch.arange(1, x.shape[1] + 1))
        if self.how == "linearity":  # squares
            return Explanation(honest**2)
        # the sign of what PyTorch calls the output's parts: reads the wiring
        return Explanation(honest * wiring())


_SEEN: list[nn.Module] = []


def wiring() -> float:
    return float(len(list(_SEEN[-1].modules())))


def explained(method: Any, model: Any, x: Tensor, **given: Any) -> Explainer:
    return Explainer.of(method, model, x, torch.arange(len(x)) % 3, **given)


@pytest.mark.parametrize("axiom", AXIOMS)
@pytest.mark.parametrize("method", HONEST)
def test_methods_that_keep_an_axiom_show_rounding(method: str, axiom: str) -> None:
    model, x = network(), draws(5, 6)
    found = AXIOMS[axiom](explained(HONEST[method], model, x), model, x)
    assert found.values.shape == (5,)
    assert found.scale > 1e-3
    assert found.largest < ROUNDING


@pytest.mark.parametrize("axiom", ["sensitivity", "linearity", "symmetry"])
def test_a_method_that_breaks_it_is_seen(axiom: str) -> None:
    model, x = network(), draws(5, 6)
    assert AXIOMS[axiom](explained(Planted(axiom), model, x), model, x).mean > 0.1


def test_a_method_that_reads_the_wiring_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network(), draws(5, 6)
    asked = explained(Planted("implementation_invariance"), model, x)
    usual = Explainer.result

    def told(self: Explainer, model: Any, inputs: Any, *, diagnostics: bool = True) -> Any:
        _SEEN.append(model)
        return usual(self, model, inputs, diagnostics=diagnostics)

    monkeypatch.setattr(Explainer, "result", told)
    assert axioms.implementation_invariance(asked, model, x).mean > 0.1


def test_even_attribution_is_one_by_the_scale_of_sensitivity() -> None:
    class Even(Planted):
        def _explain(self, problem: Any, generator: torch.Generator, diagnostics: bool) -> Explanation:
            return Explanation(torch.ones_like(problem.view.coordinates))

    model, x = network(8), draws(4, 8)
    found = axioms.sensitivity(explained(Even(""), model, x), model, x)
    assert torch.allclose(found.relative, torch.ones(4, dtype=torch.float64))


def test_sensitivity_ignores_a_quarter_of_the_features_and_reports_what_they_get() -> None:
    class Indexed(Planted):
        def _explain(self, problem: Any, generator: torch.Generator, diagnostics: bool) -> Explanation:
            return Explanation(2.0 ** torch.arange(8.0).double().expand(len(problem.view.coordinates), 8))

    model, x = network(8), draws(2, 8)
    seen = {float(axioms.sensitivity(explained(Indexed(""), model, x), model, x, seed=s).values[0]) for s in range(40)}
    assert all(bin(int(total)).count("1") == 2 for total in seen)
    assert len(seen) > 10


def test_completeness_is_a_plain_loop() -> None:
    model, x = network(), draws(6, 6)
    labels = torch.arange(6) % 3
    method = rt.IntegratedGradients(n_steps=2, rule="left")
    found = axioms.completeness(explained(method, model, x), model, x)
    phi = rt.attribute(model, x, method, labels=labels).attributions
    with torch.no_grad():
        rise = [float((model(x[i : i + 1]) - model(torch.zeros(1, 6).double()))[0, labels[i]]) for i in range(6)]
    gaps = [abs(float(phi[i].sum()) - rise[i]) for i in range(6)]
    assert found.values.tolist() == pytest.approx(gaps, abs=1e-12)
    assert found.scale == pytest.approx(sum(abs(r) for r in rise) / 6)
    assert found.largest == pytest.approx(max(gaps) / found.scale)
    assert found.mean > 0.01
    exact = axioms.completeness(explained(rt.IntegratedGradients(n_steps=300), model, x), model, x)
    assert exact.mean < 0.02


def test_no_attribution_at_all_misses_one_of_completeness() -> None:
    class Nothing(Planted):
        def _explain(self, problem: Any, generator: torch.Generator, diagnostics: bool) -> Explanation:
            x = problem.view.coordinates
            return Explanation(torch.zeros_like(x), None, self.reference.draw(problem.view, 1, generator))

    model, x = network(), draws(6, 6)
    assert axioms.completeness(explained(Nothing(""), model, x), model, x).mean == pytest.approx(1)


@pytest.mark.parametrize("bias", [True, False])
def test_a_rewritten_model_is_the_same_function_and_other_layers(bias: bool) -> None:
    conv = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=bias, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 3, bias=bias)
    )
    for model, x in (
        (network(), draws(5, 6)),
        (conv.double(), draws(3, 2, 8, 8)),
        (nn.Linear(6, 2), draws(5, 6).float()),
    ):
        state = {k: v.clone() for k, v in model.state_dict().items()}
        other = axioms.rewritten(model, x)
        assert torch.allclose(other(x), model(x), atol=1e-5 if x.dtype == torch.float32 else 1e-12)
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
        shapes = [p.shape for p in other.parameters()]
        assert len(shapes) > len(state)
        inner = {p.data_ptr() for p in other.parameters()}
        assert not inner & {p.data_ptr() for p in model.parameters()}
        assert not any(type(part) is nn.ReLU for part in other.modules())
        first = next(p for p in model.parameters())
        assert not any(p.shape == first.shape and torch.allclose(p, first) for p in other.parameters())


def test_a_model_that_is_no_function_of_its_layers_is_refused() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 2).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if isinstance(self.layer, nn.Linear) else 2 * self.layer(x)

    with pytest.raises(ArgumentError, match="written otherwise"):
        axioms.rewritten(Odd(), draws(3, 6))


def test_callables_and_images_are_measured_too() -> None:
    images, model = (
        draws(3, 2, 5, 5),
        nn.Sequential(nn.Flatten(), nn.Linear(50, 8), nn.ReLU(), nn.Linear(8, 3)).double(),
    )
    for subject in (model, lambda x: model(x)):
        asked = explained(HONEST["expected_gradients"], subject, images)
        assert all(axiom(asked, subject, images).largest < ROUNDING for axiom in AXIOMS.values())


def test_single_outputs_and_losses_are_measured_too() -> None:
    model, x, labels = network(classes=1), draws(5, 6), torch.tensor([0, 1, 1, 0, 1])
    for output in ("logit", "loss"):
        asked = Explainer.of(rt.Gradient(output=output), model, x, labels)
        assert all(axiom(asked, model, x).largest < ROUNDING for axiom in AXIOMS.values())


def test_linearity_takes_another_model() -> None:
    model, other, x = network(), network(seed=5), draws(5, 6)
    asked = explained(HONEST["gradient"], model, x)
    assert axioms.linearity(asked, model, x, other=other).largest < ROUNDING
    assert axioms.linearity(explained(Planted("linearity"), model, x), model, x, other=other).mean > 0.1


def test_the_model_is_left_as_it_was() -> None:
    model, x = network(), draws(5, 6)
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    for axiom in AXIOMS.values():
        axiom(explained(HONEST["expected_gradients"], model, x), model, x)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


def test_what_cannot_be_measured_is_refused() -> None:
    model, x = network(), draws(5, 6)
    layer = explained(rt.Gradient(space=rt.spaces.Layer("0")), model, x)
    for axiom in AXIOMS.values():
        with pytest.raises(ArgumentError, match="layer"):
            axiom(layer, model, x)
    one = network(1)
    for axiom in (axioms.sensitivity, axioms.symmetry):
        with pytest.raises(ArgumentError, match="tell apart"):
            axiom(explained(HONEST["gradient"], one, x[:, :1]), one, x[:, :1])
    pair = (x, x)
    two = Explainer(HONEST["gradient"], torch.arange(5) % 3)
    with pytest.raises(ArgumentError, match="one tensor"):
        axioms.linearity(two, lambda a, b: model(a + b), pair)


def test_the_explained_class_is_settled_once() -> None:
    model, x = network(), draws(5, 6)
    for target, expected in (
        ("predicted", model(x).argmax(1)),
        (1, torch.ones(5, dtype=torch.long)),
        (torch.tensor([2, 1, 0, 1, 2]), torch.tensor([2, 1, 0, 1, 2])),
    ):
        method = rt.Gradient(target=target)
        asked = Explainer.of(method, model, x)
        assert method.target is target  # the user's own is not changed
        assert asked.labels is not None
        assert asked.labels.tolist() == expected.tolist()
        assert torch.equal(asked(model, x + 3), rt.attribute(model, x + 3, "gradient", target=expected).attributions)
        assert torch.allclose(asked.values(model, x + 3), model(x + 3).gather(1, expected[:, None])[:, 0])
        few = asked.take(torch.tensor([1, 3]))
        assert torch.allclose(few(model, x[[1, 3]]), asked(model, x)[[1, 3]])
