"""Sanity checks: honest explanations fall, planted ones that look at the input alone do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import rightly as rt
from rightly.core import seeding
from rightly.core.errors import ArgumentError
from rightly.evaluation import (
    Explainer,
    cosine,
    energy_pointing_game,
    label_randomisation,
    model_randomisation,
    random_annotation_control,
    randomised_copy,
    rank_correlation,
    without_biases,
)
from rightly.evaluation.sanity import others_regions, placed_anywhere, randomisable


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeding.generator("sanity", seed), dtype=torch.float64)


@pytest.fixture
def model() -> nn.Module:
    return rt.models.mlp(20, [30, 30], 3, seed=0).double()


@pytest.mark.parametrize("mode", ["cascading", "independent"])
def test_an_honest_method_falls_and_one_that_reads_the_input_stays(model: nn.Module, mode: str) -> None:
    x = draws(40, 20)
    explainer = Explainer.of("gradient", model, x)
    honest = model_randomisation(model, lambda m: explainer(m, x), mode=mode)
    assert [found.layer for found in honest] == ["5", "3", "1"]
    assert all(abs(float(found.similarity.mean())) < 0.5 for found in honest)
    assert abs(float(honest[-1].similarity.mean())) < 0.1
    edges = model_randomisation(model, lambda m: x.abs(), mode=mode)
    assert all(float(found.similarity.min()) == pytest.approx(1) for found in edges)


def test_biases_are_taken_away_and_nothing_else() -> None:
    both = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2), "gates": nn.LSTM(4, 3), "last": nn.Linear(3, 2)})
    for value in both.parameters():
        nn.init.uniform_(value, 1, 2)
    before = {name: value.clone() for name, value in both.state_dict().items()}
    changed = without_biases(both).state_dict()
    assert {name for name, value in changed.items() if not value.any()} == {
        *("attention.in_proj_bias", "attention.out_proj.bias", "gates.bias_ih_l0", "gates.bias_hh_l0", "last.bias")
    }
    assert all(torch.equal(value, before[name]) for name, value in changed.items() if value.any())
    assert all(torch.equal(value, before[name]) for name, value in both.state_dict().items())
    with pytest.raises(ArgumentError, match="no bias to take away"):
        without_biases(nn.Sequential(nn.Linear(3, 2, bias=False)))


class Plain(nn.Module):
    """Layers written by hand: weights and biases in lists, further ones in a dict, and a module of a deceptive name."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList([torch.ones(3, 3), torch.ones(3, 3)])
        self.biases = nn.ParameterList([torch.ones(3), torch.ones(3)])
        self.further = nn.ParameterDict({"bias": torch.ones(3), "scale": torch.ones(3)})
        self.bias_net = nn.Linear(3, 3)
        self.inner = nn.ModuleDict({"gates": nn.LSTM(3, 2)})


class Positive(nn.Module):
    """A parametrisation under which zero is not zero."""

    def forward(self, value: Tensor) -> Tensor:
        return value.exp()


def test_biases_in_lists_dicts_and_parametrisations_are_found() -> None:
    both = nn.ModuleDict({"plain": Plain(), "last": nn.Linear(3, 2)})
    nn.utils.parametrize.register_parametrization(both["last"], "bias", Positive())
    nn.utils.parametrize.register_parametrization(both["last"], "weight", Positive())
    state = {name: value.clone() for name, value in both.state_dict().items()}
    changed = without_biases(both)
    found = {name for name, value in changed.named_parameters() if not value.any()}
    assert found == {
        *("plain.biases.0", "plain.biases.1", "plain.further.bias", "last.bias"),
        *("plain.bias_net.bias", "plain.inner.gates.bias_ih_l0", "plain.inner.gates.bias_hh_l0"),
    }
    torch.testing.assert_close(changed["last"](torch.zeros(1, 3)), torch.zeros(1, 2))
    assert torch.equal(changed["last"].weight, both["last"].weight)
    assert all(torch.equal(value, state[name]) for name, value in both.state_dict().items())


def test_a_randomised_copy_is_the_last_of_the_cascade(model: nn.Module) -> None:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    seen: list[dict[str, Tensor]] = []

    def explain(m: nn.Module) -> Tensor:
        seen.append({k: v.clone() for k, v in m.state_dict().items()})
        return draws(2, 3)

    model_randomisation(model, explain, seed=3)
    copied = randomised_copy(model, seed=3).state_dict()
    assert all(torch.equal(value, seen[-1][name]) for name, value in copied.items())
    assert not any(torch.equal(value, before[name]) for name, value in copied.items())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(randomised_copy(model, seed=4).state_dict()["1.weight"], copied["1.weight"])
    with pytest.raises(ArgumentError, match="nothing to randomise"):
        randomised_copy(nn.ReLU())


def test_layers_are_randomised_as_said(model: nn.Module) -> None:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    for mode, changed in (("cascading", [{"5"}, {"5", "3"}, {"5", "3", "1"}]), ("independent", [{"5"}, {"3"}, {"1"}])):
        seen: list[set[str]] = []

        def explain(m: nn.Module, seen: list[set[str]] = seen) -> Tensor:
            seen.append({k.split(".")[0] for k, v in m.state_dict().items() if not torch.equal(v, before[k])})
            return draws(2, 3)

        model_randomisation(model, explain, mode=mode)
        assert seen == [set(), *changed]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_the_seed_decides_and_parts_without_a_way_to_start_are_shuffled() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.arange(50.0))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale

    def scales(seed: int) -> Tensor:
        found: list[Tensor] = []

        def explain(m: nn.Module) -> Tensor:
            found.append(m.scale.detach().clone())
            return draws(2, 3)

        model_randomisation(Odd(), explain, seed=seed)
        return found[1]

    assert torch.equal(scales(0), scales(0))
    assert not torch.equal(scales(0), scales(1))
    assert torch.equal(scales(0).sort().values, torch.arange(50.0))
    assert randomisable(Odd()) == [""]


def test_random_labels_change_what_is_explained() -> None:
    x, truth = draws(200, 5), (draws(200, 5)[:, 0] > 0).long()
    trained: list[Tensor] = []

    def train(labels: Tensor) -> nn.Module:
        """Least squares, in one step."""
        trained.append(labels)
        layer = nn.Linear(5, 1).double()
        with torch.no_grad():
            layer.weight.copy_(torch.linalg.lstsq(x, 2 * labels[:, None].double() - 1).solution.T)
        return layer

    honest = label_randomisation(train, truth, lambda m: (m.weight * x).detach(), similarity=cosine)
    assert torch.equal(trained[0], truth)
    assert torch.equal(trained[1].sort().values, truth.sort().values)
    assert not torch.equal(trained[1], truth)
    assert float(honest.mean()) < 0.8
    edges = label_randomisation(train, truth, lambda m: x)
    assert float(edges.min()) == pytest.approx(1)


@pytest.mark.parametrize("batch", [2, 3, 10])
def test_regions_of_others_are_everybody_s_but_one_s_own(batch: int) -> None:
    region = torch.eye(batch, dtype=torch.bool)
    dealt = {tuple(others_regions(region, seed=seed).double().argmax(1).tolist()) for seed in range(30)}
    for order in dealt:
        assert sorted(order) == list(range(batch))
        assert all(own != got for own, got in enumerate(order))
    assert len(dealt) >= min(batch - 1, 6)


def test_regions_anywhere_keep_their_size() -> None:
    region = torch.zeros(500, 1, 2, 5, dtype=torch.bool)
    region[:, 0, 0, :3] = True
    placed = placed_anywhere(region)
    assert placed.flatten(1).sum(1).tolist() == [3] * 500
    assert placed.double().mean(0).flatten().tolist() == pytest.approx([0.3] * 10, abs=0.08)


@pytest.mark.parametrize("kind", ["other", "place"])
def test_the_control_is_lower_for_the_right_place_and_no_lower_for_chance(kind: str) -> None:
    region = torch.zeros(60, 100, dtype=torch.bool)
    for row in range(60):
        region[row, row : row + 20] = True
    right = random_annotation_control(energy_pointing_game, region.double(), region, kind=kind, repeats=20)
    assert float(right.values.min()) == 1
    assert float(right.control.mean()) < 0.6
    chance = random_annotation_control(energy_pointing_game, draws(60, 100).abs(), region, kind=kind, repeats=20)
    assert float((chance.values - chance.control).mean()) == pytest.approx(0, abs=0.03)
    if kind == "place":
        assert float(right.control.mean()) == pytest.approx(0.2, abs=0.02)


def test_what_cannot_be_checked_is_refused(model: nn.Module) -> None:
    with pytest.raises(ArgumentError, match="mode"):
        model_randomisation(model, lambda m: draws(2, 3), mode="all")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="nothing to randomise"):
        model_randomisation(nn.ReLU(), lambda m: draws(2, 3))
    with pytest.raises(ArgumentError, match="control"):
        random_annotation_control(rank_correlation, draws(2, 3), draws(2, 3) > 0, kind="none")  # type: ignore[arg-type]
