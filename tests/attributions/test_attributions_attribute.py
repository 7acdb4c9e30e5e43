"""The post-hoc door, and what every attribution shares."""

import io
import sys

import pytest
import torch

import rightly as rt
from contracts.agreement import check_close
from contracts.problems import components, draws, images, normal, tokens, vectors
from rightly.core.errors import ArgumentError, NotConnectedError


@pytest.mark.parametrize("entry", components("attribution"), ids=lambda e: e.name)
def test_every_method_is_reached_by_its_name(entry):
    problem = images()
    arguments = {**entry.example((2, 6, 6)), "space": rt.spaces.Layer("0")}
    found = rt.attribute(problem.model, problem.inputs, entry.name, target=problem.labels, **arguments)
    assert isinstance(found, rt.AttributionResult)
    assert found.outputs.shape == (3, 3)
    assert found.completeness_gap.shape == (3,)
    assert found.target.tolist() == problem.labels.tolist()
    assert found.space == rt.spaces.Layer("0")


def test_the_target_follows_the_labels_or_the_prediction():
    problem = vectors()
    predicted = rt.attribute(problem.model, problem.inputs, "gradient")
    assert predicted.target.tolist() == predicted.outputs.argmax(1).tolist()
    assert rt.attribute(problem.model, problem.inputs, "gradient", labels=problem.labels).target.tolist() == [
        0,
        2,
        1,
        1,
    ]
    both = rt.attribute(problem.model, problem.inputs, "gradient", labels=problem.labels, target=2)
    assert both.target.tolist() == [2, 2, 2, 2]
    assert rt.attribute(problem.model, problem.inputs, "gradient", output="log_prob_sum").target is None


def test_along_a_path_the_class_stays_that_of_the_input():
    problem = vectors()
    chosen = rt.IntegratedGradients(target="predicted", n_steps=30)
    classes = problem.model.eval()(problem.inputs).argmax(1)
    expected = rt.IntegratedGradients(target=classes, n_steps=30)
    call = (problem.model, problem.inputs)
    check_close(chosen(*call).attributions, expected(*call).attributions)


def test_the_seed_decides():
    problem = vectors()
    first, again, other = (
        rt.attribute(problem.model, problem.inputs, "expected_gradients", n_samples=3, seed=seed).attributions
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_automatic_chunk_size_changes_nothing():
    problem = images(8)
    call = {"method": "expected_gradients", "n_samples": 200, "reference": rt.references.Constant(0.0)}
    automatic = rt.attribute(problem.model, problem.inputs, **call)
    whole = rt.attribute(problem.model, problem.inputs, chunk_size=10**9, **call)
    check_close(automatic.attributions, whole.attributions)
    check_close(automatic.standard_error, whole.standard_error, tolerance=1e-9)


def test_large_requests_run_in_passes():
    sizes = []

    def model(x):
        sizes.append(len(x))
        return x.flatten(1)[:, :2]

    rt.attribute(model, torch.zeros(1, 3, 100, 100), "integrated_gradients", n_steps=50, target=0)
    assert max(sizes) < 50


def test_a_graph_is_kept_when_asked_for():
    problem = vectors()
    kept = rt.attribute(problem.model, problem.inputs, "gradient", create_graph=True)
    assert torch.autograd.grad(kept.attributions.sum(), problem.model[0].weight)[0].abs().sum() > 0
    assert not rt.attribute(problem.model, problem.inputs, "gradient").attributions.requires_grad


def test_an_attribution_can_be_passed_ready_made():
    problem = vectors()
    method = rt.Gradient(target=1)
    found = rt.attribute(problem.model, problem.inputs, method)
    assert torch.equal(found.attributions, method(problem.model, problem.inputs).attributions)
    with pytest.raises(ArgumentError, match="already"):
        rt.attribute(problem.model, problem.inputs, method, target=2)


def test_inputs_may_be_several_tensors():
    problem = tokens()
    found = rt.attribute(problem.model, problem.inputs, "integrated_gradients", space=problem.space)
    assert found.attributions.shape == (3, 4, 4)
    x, y = normal(3, 4, seed=1), normal(3, 4, seed=2)
    for inputs, space in (((x, y), rt.spaces.Input(1)), ({"a": x, "b": y}, rt.spaces.Input("b"))):
        found = rt.attribute(lambda a, b: a * b, inputs, "gradient", space=space, target=2)
        assert torch.equal(found.attributions[:, 2], x[:, 2])


def test_progress_reaches_the_end(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    problem = vectors()
    rt.attribute(problem.model, problem.inputs, "integrated_gradients", progress=True, chunk_size=7)
    assert "IntegratedGradients" in stream.getvalue()
    assert "100 %" in stream.getvalue()


def test_calls_without_a_generator_repeat():
    problem = vectors()
    method = rt.ExpectedGradients(n_samples=2)
    call = (problem.model, problem.inputs, problem.labels)
    assert torch.equal(method(*call).attributions, method(*call).attributions)
    assert not torch.equal(method(*call).attributions, method(*call, generator=draws(1)).attributions)


def test_reprs_show_the_arguments():
    text = repr(rt.ExpectedGradients(rt.references.Constant(0.5), n_samples=3, target=torch.tensor([1])))
    assert text.startswith("ExpectedGradients(")
    assert "n_samples=3" in text
    assert "Constant(value=0.5)" in text


def test_rounding_is_named():
    problem = vectors()
    with pytest.raises(NotConnectedError, match="does not depend"):
        rt.Gradient()(lambda x: problem.model(x.round().long().double()), problem.inputs, problem.labels)
