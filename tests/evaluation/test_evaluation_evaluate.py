"""The table: every cell is its measure taken alone, what cannot be taken is said, and mistakes are named errors."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rightly as rt
from rightly.core import registry, seeding
from rightly.core.citations import CITATIONS
from rightly.core.errors import AnnotationError, ArgumentError, ShapeError
from rightly.evaluation import (
    ABLATION_METRICS,
    MEASURES,
    Explainer,
    Gaussian,
    ablation,
    axioms,
    energy_pointing_game,
    infidelity,
    interval,
    rank_correlation,
    share_inside,
)

WHOLE = {"expected_gradients", "integrated_gradients", "gradient", "input_x_gradient", "smooth_grad", "occlusion"}


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeding.generator("evaluate", seed), dtype=torch.float64)


@pytest.fixture
def model() -> nn.Module:
    return rt.models.mlp(5, [8], 1, seed=0).double()


@pytest.fixture
def table(model: nn.Module) -> tuple[Tensor, Tensor]:
    x = draws(30, 5)
    return x, (x[:, 0] + x[:, 1] > 0).long()


@pytest.fixture
def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 6 * 6, 3)).double()


def regions() -> Tensor:
    region = torch.zeros(6, 1, 8, 8, dtype=torch.bool)
    for row in range(6):
        region[row, 0, row : row + 3, 1:5] = True
    return region


def test_a_table_of_numbers_gets_axioms_faithfulness_sanity_and_ablation(model: nn.Module, table: Any) -> None:
    found = rt.evaluate(model, table, sorted(WHOLE), n_samples=8)
    masks = {name for name in ABLATION_METRICS if name.endswith("mask")}
    basic = {"gini", "completeness", "sensitivity", "implementation_invariance", "linearity", "symmetry"}
    assert set(found.metrics) == masks | basic | {"infidelity", "max_sensitivity", "model_randomisation"}
    assert [cell.method for cell in found.rows[:: len(found.metrics)]] == sorted(WHOLE)
    assert all(cell.missing == "" and cell.mean is not None for cell in found.rows)
    for cell in found.rows:
        assert cell.low is not None
        assert cell.low <= cell.mean <= cell.high
        assert cell.n == 30
        low, high = MEASURES[cell.metric].bounds
        assert low <= cell.low
        assert cell.high <= high
    for method in WHOLE - {"smooth_grad", "occlusion"}:
        for axiom in ("sensitivity", "implementation_invariance", "linearity", "symmetry"):
            assert found[method, axiom].mean < 1e-10
    assert set(found.seconds) == WHOLE
    assert found["gradient", "completeness"].mean > 10 * found["integrated_gradients", "completeness"].mean


def test_a_cell_is_its_measure_taken_alone(model: nn.Module, table: Any) -> None:
    x, labels = table
    reference = rt.references.Sample(x)
    found = rt.evaluate(
        model,
        table,
        ["expected_gradients"],
        [*[*MEASURES][:7], "keep_absolute_impute"],
        reference=reference,
        n_samples=6,
        seed=4,
    )
    explainer = Explainer.of("expected_gradients", model, x, labels, seed=4, reference=reference, n_samples=6)
    phi = rt.attribute(
        model, x, "expected_gradients", labels=labels, reference=reference, n_samples=6, seed=4
    ).attributions
    assert torch.equal(found.attributions["expected_gradients"], phi)
    change = Gaussian(0.1 * float(x.std()))
    told = infidelity(phi, partial(explainer.values, model), x, change, n_samples=6, scaled=True, seed=4)
    area = ablation(model, x, phi, x, labels, metrics=["keep_absolute_impute"], score="auc", seed=4)[
        "keep_absolute_impute"
    ].area
    expected = {
        "completeness": axioms.completeness(explainer, model, x).relative,
        "symmetry": axioms.symmetry(explainer, model, x, seed=4).relative,
        "infidelity": told.relative,
        "gini": rt.functional.gini(phi.abs()),
    }
    for name, values in expected.items():
        one = interval(values.tolist())
        cell = found["expected_gradients", name]
        assert cell.mean == pytest.approx(one.mean, abs=1e-14)
        assert cell.high == pytest.approx(one.high, abs=1e-14)
    cell = found["expected_gradients", "keep_absolute_impute"]
    assert (cell.mean, cell.low, cell.high) == (area, area, area)


def test_places_are_measured_where_there_is_an_annotation(net: nn.Module) -> None:
    x, region = draws(6, 2, 8, 8), regions()
    labels = torch.arange(6) % 3
    found = rt.evaluate(net, (x, labels, rt.Annotation(relevant=region)), ["gradient"])
    assert {"energy_pointing_game", "random_annotation", "pointing_game", "rank_accuracy", "iou"} <= set(found.metrics)
    assert "inside" not in found.metrics
    phi = rt.attribute(net, x, "gradient", labels=labels).attributions.sum(1, keepdim=True)
    assert found["gradient", "energy_pointing_game"].mean == pytest.approx(
        float(energy_pointing_game(phi, region).mean())
    )
    inside = rt.evaluate(net, (x, labels, rt.Annotation(irrelevant=region)), ["gradient"], ["inside"])
    assert inside["gradient", "inside"].mean == pytest.approx(float(share_inside(phi, region).mean()))


def test_examples_without_annotation_do_not_count(net: nn.Module) -> None:
    x, region = draws(6, 2, 8, 8), regions()
    known = [region[row].double() if row % 2 else None for row in range(6)]
    found = rt.evaluate(net, (x, torch.arange(6) % 3, rt.Annotation(relevant=known)), ["gradient"])
    places = ["energy_pointing_game", "random_annotation", "pointing_game", "rank_accuracy", "iou"]
    assert [found["gradient", name].n for name in places] == [3] * 5
    phi = found.attributions["gradient"].sum(1, keepdim=True)[1::2]
    assert found["gradient", "energy_pointing_game"].mean == pytest.approx(
        float(energy_pointing_game(phi, region[1::2]).mean())
    )


def test_attributions_from_elsewhere_and_layers_have_what_they_can(net: nn.Module) -> None:
    x = draws(6, 2, 8, 8)
    methods = {"mine": draws(6, 2, 8, 8, seed=1), "cam": rt.GradCam(rt.spaces.Layer("0"), target="predicted")}
    found = rt.evaluate(net, x, methods, n_samples=5)
    assert found["mine", "completeness"].missing
    assert found["mine", "infidelity"].mean is not None
    assert found["cam", "completeness"].mean is not None
    assert found["cam", "infidelity"].missing
    assert "linearity" not in found.metrics  # neither can have it
    third = rt.evaluate(net, x, {**methods, "gradient": "gradient"}, ["linearity"], n_samples=5)
    assert third["cam", "linearity"].missing == "the method does not explain the inputs"
    assert third["mine", "linearity"].missing.startswith("the attributions came from elsewhere")
    assert third["gradient", "linearity"].mean is not None
    assert found.seconds["mine"] == 0
    assert "infidelity of cam: the attributions are not shaped like the inputs" in str(found)


def test_the_class_explained(net: nn.Module) -> None:
    x, labels = draws(6, 2, 8, 8), torch.arange(6) % 3
    with torch.no_grad():
        predicted = net(x).argmax(1)
    cases: list[tuple[Any, Any, Tensor]] = [((x, labels), None, labels), (x, None, predicted)]
    cases += [((x, labels), "predicted", predicted), (x, 1, torch.ones(6, dtype=torch.long))]
    for data, target, expected in cases:
        found = rt.evaluate(net, data, ["gradient"], ["gini"], target=target)
        phi = rt.attribute(net, x, "gradient", target=expected).attributions
        assert torch.equal(found.attributions["gradient"], phi)


def test_the_table_prints_and_is_a_dict(model: nn.Module, table: Any) -> None:
    found = rt.evaluate(model, table, ["gradient", "input_x_gradient"], ["gini", "completeness", "keep_positive_mask"])
    told = str(found).split("\n")
    assert told[0].split() == ["measure", "gradient", "input_x_gradient"]
    assert [line.split()[0] for line in told[1:]] == ["gini", "completeness", "keep_positive_mask", "seconds"]
    assert "completeness (lower is better)" in told[2]
    assert " to " in told[1]
    assert " to " not in told[3]
    made = found.as_dict()
    assert len(made["rows"]) == 6
    assert made["rows"][0]["method"] == "gradient"
    assert list(made["seconds"]) == ["gradient", "input_x_gradient"]
    with pytest.raises(KeyError):
        found["gradient", "infidelity"]


def test_the_seed_decides(model: nn.Module, table: Any) -> None:
    def means(seed: int) -> list[float | None]:
        found = rt.evaluate(model, table, ["smooth_grad"], ["infidelity", "completeness", "symmetry"], seed=seed)
        return [cell.mean for cell in found.rows]

    state = torch.get_rng_state()
    assert means(0) == means(0)
    assert all(a != b for a, b in zip(means(0), means(1), strict=True))
    assert torch.equal(state, torch.get_rng_state())


def test_chunks_are_memory_only(model: nn.Module, table: Any) -> None:
    whole, parts = (
        rt.evaluate(model, table, ["expected_gradients"], ["completeness", "infidelity"], chunk_size=size)
        for size in (None, 7)
    )
    for a, b in zip(whole.rows, parts.rows, strict=True):
        assert a.mean == pytest.approx(b.mean, rel=1e-9)


def test_every_measure_is_described_and_found_by_its_name() -> None:
    assert len(MEASURES) == 18 + 18
    for name, measure in MEASURES.items():
        assert name == measure.name
        assert measure.citation in CITATIONS
        assert 10 < len(measure.summary) < 120
        assert not measure.summary.endswith(".")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"metrics": ["gin"]}, ArgumentError, "unknown measure"),
        ({"metrics": []}, ArgumentError, "unknown measure"),
        ({"methods": ["gradients"]}, ArgumentError, "no attribution called"),
        ({"methods": []}, ArgumentError, "at least one method"),
        ({"methods": [rt.Gradient(), rt.Gradient(output="prob")]}, ArgumentError, "one name"),
        ({"methods": [3]}, ArgumentError, "method"),
        ({"methods": {"a": 3}}, ArgumentError, "a method cannot be read"),
        ({"methods": [torch.ones(3, 5)]}, ShapeError, "do not fit"),
        ({"methods": [torch.ones(30, 5) / 0]}, ShapeError, "do not fit"),
        ({"metrics": ["iou"]}, ArgumentError, "no annotation"),
        ({"metrics": ["completeness"], "methods": [torch.ones(30, 5)]}, ArgumentError, "from elsewhere"),
        ({"data": (draws(30, 5), [0] * 30)}, ArgumentError, "labels cannot be read"),
        ({"data": (draws(30, 5), torch.zeros(29))}, ShapeError, "label"),
        ({"data": (draws(30, 5), torch.zeros(30), torch.ones(30, 5))}, ArgumentError, "annotation"),
        ({"data": (1, 2, 3, 4)}, ArgumentError, "a tuple of 4"),
        ({"n_samples": 0}, ArgumentError, "n_samples"),
    ],
)
def test_mistakes_are_named(model: nn.Module, table: Any, change: dict[str, Any], error: Any, words: str) -> None:
    given = {"data": table, "methods": ["gradient"], "metrics": ["gini"]} | change
    with pytest.raises(error, match=words):
        rt.evaluate(model, **given)


def test_an_annotation_that_does_not_fit_is_refused(net: nn.Module) -> None:
    with pytest.raises(AnnotationError, match="fit"):
        rt.evaluate(net, (draws(6, 2, 8, 8), None, rt.Annotation(relevant=torch.ones(6, 1, 4, 4))), ["gradient"])


def test_every_registered_method_can_be_asked_for() -> None:
    assert set(registry.family("attribution")) >= WHOLE


def test_the_model_is_left_as_it_was(net: nn.Module) -> None:
    net.insert(1, nn.BatchNorm2d(3).double())
    net.train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    rt.evaluate(net, draws(6, 2, 8, 8), ["gradient"], n_samples=3)
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_a_measure_that_fails_costs_no_other_cell() -> None:
    """A model that reads its own layers cannot be rewritten: an empty cell with the reason, and the table stands."""

    class Reads(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.fc.weight.T + self.fc.bias

    inputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    table = rt.evaluate(Reads(), inputs, ["gradient"])
    assert "gini" in table.metrics
    assert "implementation_invariance" not in table.metrics
    with pytest.raises(ArgumentError, match="written otherwise"):
        rt.evaluate(Reads(), inputs, ["gradient"], ["implementation_invariance"])


def test_an_example_without_attribution_has_no_relative_sensitivity() -> None:
    inputs = torch.tensor([[1.0, 1.0], [-9.0, -9.0]])
    table = rt.evaluate(lambda x: torch.relu(x.sum(1)) * 50, inputs, ["gradient"], ["max_sensitivity"])
    assert table["gradient", "max_sensitivity"].n == 1


@pytest.mark.parametrize("output", ["logit", "prob", "log_prob"])
def test_ablation_of_a_classifier_follows_the_class_and_the_number_that_are_explained(output: Any) -> None:
    model, x, background = rt.models.mlp(5, [8], 3, seed=1).double(), draws(30, 5), draws(12, 5, seed=1)
    labels = torch.arange(30) % 3
    scales = {"logit": lambda o: o, "prob": lambda o: o.softmax(1), "log_prob": lambda o: o.log_softmax(1)}
    for target in ("label", "predicted", 2):
        method = rt.Gradient(output=output, target=target)
        found = rt.evaluate(model, (x, labels), {"it": method}, ABLATION_METRICS, background=background)
        with torch.no_grad():
            chosen = {"label": labels, "predicted": model(x).argmax(1), 2: torch.full((30,), 2)}[target]
        expected = ablation(
            lambda rows: scales[output](model(rows)), x, found.attributions["it"], background, labels, target=chosen
        )
        for name in ABLATION_METRICS:
            assert found["it", name].mean == pytest.approx(expected[name].area, rel=1e-12)


def test_what_is_explained_of_no_class_is_not_ablated() -> None:
    model, x = rt.models.mlp(5, [8], 3, seed=1).double(), draws(30, 5)
    with pytest.raises(ArgumentError, match="none of a class"):
        rt.evaluate(model, (x, torch.arange(30) % 3), [rt.Gradient(output="loss")], ["keep_positive_mask"])
    # a classifier of three has its masks by default, and those that need labels with labels only
    masks = [name for name in rt.evaluate(model, x, ["gradient"], n_samples=4).metrics if name.endswith("mask")]
    assert masks == [name for name in ABLATION_METRICS if name.endswith("mask") and "absolute" not in name]


def test_other_models_are_compared_with_where_they_are_given(model: nn.Module, table: Any) -> None:
    x, labels = table
    others = [rt.models.mlp(5, [8], 1, seed=seed).double() for seed in (1, 2)]
    found = rt.evaluate(model, table, ["gradient"], n_samples=4, seeds=others, relabelled=others[0])
    phi = [rt.attribute(one, x, "gradient", labels=labels).attributions for one in (model, *others)]
    pairs = [rank_correlation(phi[a], phi[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert found["gradient", "seed_agreement"].mean == pytest.approx(float(torch.stack(pairs).mean()))
    assert found["gradient", "label_randomisation"].mean == pytest.approx(
        float(rank_correlation(phi[0].abs(), phi[1].abs()).mean())
    )
    twin = rt.evaluate(model, table, ["gradient"], ["seed_agreement"], seeds=[model])
    assert twin["gradient", "seed_agreement"].mean == pytest.approx(1)
    for name, words in (("seed_agreement", "no models of other seeds"), ("label_randomisation", "in random order")):
        with pytest.raises(ArgumentError, match=words):
            rt.evaluate(model, table, ["gradient"], [name])


def test_large_changes_ask_for_sums_and_small_ones_for_slopes() -> None:
    """Each of the two infidelities prefers the method that answers its question."""
    x = draws(40, 3)

    def model(rows: Tensor) -> Tensor:
        return (rows**2).sum(1)

    whole = rt.IntegratedGradients(rt.references.Constant(x.mean(0)), n_steps=20)
    table = rt.evaluate(
        model, x, {"slopes": rt.Gradient(), "sums": whole}, ["infidelity", "infidelity_removal"], n_samples=200
    )
    assert table["slopes", "infidelity"].mean < 0.3 * table["sums", "infidelity"].mean
    assert table["sums", "infidelity_removal"].mean < 1e-12
    assert table["slopes", "infidelity_removal"].mean > 0.1
    assert "infidelity_removal" not in rt.evaluate(model, x, ["gradient"], n_samples=4).metrics
