"""Corruptions do what they say, and curves are means over draws of the noise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import rightly as rt
from rightly.core import seeding
from rightly.core.errors import ArgumentError, ShapeError
from rightly.evaluation import Explainer, blur, cosine, occlusion, predicting, robustness_curve


def images(batch: int = 4, channels: int = 2, height: int = 10, width: int = 8) -> Tensor:
    generator = seeding.generator("robust")
    return torch.rand(batch, channels, height, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("corruption", [blur, occlusion, rt.data.NOISES["gaussian"], rt.data.NOISES["salt_and_pepper"]])
def test_no_severity_is_no_change(corruption) -> None:
    x = images()
    before = x.clone()
    assert torch.equal(corruption(x, 0.0, seeding.generator(0)), x)
    corruption(x, 0.5, seeding.generator(0))
    assert torch.equal(x, before)


@pytest.mark.parametrize("share", [0.1, 0.25, 1.0])
def test_occlusion_hides_a_square_of_each_picture_in_all_channels(share: float) -> None:
    x = images(50)
    hidden = (occlusion(x, share, seeding.generator(0)) == x.mean(0)).all(1)
    side = math.sqrt(share)
    places = set()
    for mask in hidden:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert len(rows) == round(side * 10)
        assert len(columns) == round(side * 8)
        assert bool(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all())
        assert int(mask.sum()) == len(rows) * len(columns)
        places.add((int(rows[0]), int(columns[0])))
    assert len(places) > 10 or share == 1


def test_occlusion_replaces_a_share_of_a_table_by_the_means() -> None:
    x = torch.randn(100, 10, generator=seeding.generator(1), dtype=torch.float64)
    found = occlusion(x, 0.3, seeding.generator(0))
    changed = found != x
    assert changed.sum(1).tolist() == [3] * 100
    assert torch.equal(found[changed], x.mean(0).expand_as(x)[changed])
    assert changed.double().mean(0).tolist() == pytest.approx([0.3] * 10, abs=0.15)


def test_blur_is_a_weighted_mean_of_the_neighbours() -> None:
    x = torch.zeros(1, 1, 21, 21, dtype=torch.float64)
    x[0, 0, 10, 10] = 1
    found = blur(x, 1.5, seeding.generator(0))
    assert float(found.sum()) == pytest.approx(1)
    assert float(found[0, 0, 10, 12] / found[0, 0, 10, 10]) == pytest.approx(math.exp(-0.5 * (2 / 1.5) ** 2))
    with pytest.raises(ShapeError, match="images"):
        blur(torch.ones(2, 3), 1, seeding.generator(0))


def test_a_curve_is_a_plain_loop_with_one_seed_a_repeat() -> None:
    x, noise = images(), rt.data.NOISES["gaussian"]
    found = robustness_curve(lambda moved: float(moved.std()), x, noise, [0.0, 0.5, 1.0], repeats=4, seed=3)
    for severity, one in zip(found.severities, found.intervals, strict=True):
        values = [float(noise(x, severity, seeding.generator("corruption", 3, k)).std()) for k in range(4)]
        assert list(one.values) == pytest.approx(values)
        assert one.mean == pytest.approx(sum(values) / 4)
    assert found.means == tuple(one.mean for one in found.intervals)
    assert found.means[0] < found.means[1] < found.means[2]


def test_noise_costs_accuracy_and_explanations_their_likeness() -> None:
    x = torch.randn(300, 6, generator=seeding.generator(5))
    labels = (x[:, 0] + x[:, 1] > 0).long()
    model = nn.Linear(6, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 1, 0, 0, 0, 0]]))
        model.bias.zero_()
    noise = rt.data.NOISES["gaussian"]
    judge = predicting(model, labels, "accuracy", "classification")
    curve = robustness_curve(judge, x, noise, [0, 0.5, 2], bounds=(0, 1))
    assert curve.means[0] == 1
    assert curve.means[0] > curve.means[1] > curve.means[2] > 0.5
    assert judge(-x) == 0
    net = rt.models.mlp(6, [16], 2, seed=0)
    explainer = Explainer.of("input_x_gradient", net, x)
    before = explainer(net, x)
    likeness = robustness_curve(lambda moved: float(cosine(explainer(net, moved), before).mean()), x, noise, [0, 1, 4])
    assert likeness.means[0] == pytest.approx(1, abs=1e-6)
    assert likeness.means[1] > likeness.means[2]


def test_bad_severities_are_refused() -> None:
    x = images()
    with pytest.raises(ArgumentError, match="severity"):
        robustness_curve(lambda moved: 0.0, x, blur, [-1])
    with pytest.raises(ArgumentError, match="share"):
        robustness_curve(lambda moved: 0.0, x, occlusion, [2])
    with pytest.raises(ArgumentError, match="repeats"):
        robustness_curve(lambda moved: 0.0, x, blur, [1], repeats=0)
