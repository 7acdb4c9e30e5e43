"""Agreement with quantus on what both define alike; runs where quantus is installed, which no extra of ours brings."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rightly as rt
from rightly.core import seeding
from rightly.core.gini import gini
from rightly.evaluation import (
    energy_pointing_game,
    infidelity,
    pointing_game,
    rank_accuracy,
    top_k_intersection,
)
from rightly.evaluation.sanity import model_randomisation
from rightly.evaluation.similarity import rank_correlation

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    quantus = pytest.importorskip("quantus", reason="quantus is not installed: pip install quantus")

pytestmark = pytest.mark.filterwarnings("default")
SIDE = 8


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()


@pytest.fixture(scope="module")
def given(net: nn.Module) -> dict[str, Any]:
    generator = seeding.generator("quantus")
    x = torch.randn(5, 1, SIDE, SIDE, generator=generator)
    y = torch.arange(5) % 3
    region = torch.rand(5, 1, SIDE, SIDE, generator=generator) < 0.3
    phi = rt.attribute(net, x, "integrated_gradients", labels=y).attributions
    return {"x": x, "y": y, "region": region, "phi": phi}


def theirs(metric: Any, net: nn.Module, given: dict[str, Any], phi: Tensor, **more: Any) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(
            metric(
                model=net,
                x_batch=given["x"].numpy(),
                y_batch=given["y"].numpy(),
                a_batch=phi.numpy(),
                s_batch=given["region"].numpy(),
                **more,
            ),
            dtype=float,
        )


PLAIN = {"abs": False, "normalise": False, "disable_warnings": True, "display_progressbar": False}


def test_gini_is_their_sparseness(net: nn.Module, given: dict[str, Any]) -> None:
    """Theirs divides ranks by n + 1/2 - k over the sorted values, which is the same number."""
    phi = given["phi"].abs()
    found = theirs(quantus.Sparseness(**PLAIN), net, given, phi)
    assert gini(phi.flatten(1).double()).tolist() == pytest.approx(found.tolist(), abs=1e-5)


@pytest.mark.parametrize("name", ["pointing", "mass", "rank", "top"])
def test_places_agree(net: nn.Module, given: dict[str, Any], name: str) -> None:
    phi, region = given["phi"], given["region"]
    if name == "mass":
        # the energy pointing game counts positive attribution only, as theirs does when all of it is positive
        phi = phi.abs()
    metric, ours = {
        "pointing": (quantus.PointingGame(**PLAIN), pointing_game(phi, region)),
        "mass": (quantus.RelevanceMassAccuracy(**PLAIN), energy_pointing_game(phi, region)),
        "rank": (quantus.RelevanceRankAccuracy(**PLAIN), rank_accuracy(phi, region)),
        "top": (quantus.TopKIntersection(k=7, **PLAIN), top_k_intersection(phi, region, 7)),
    }[name]
    assert ours.tolist() == pytest.approx(theirs(metric, net, given, phi).tolist(), abs=1e-5)


def test_infidelity_agrees_for_the_same_changes(net: nn.Module, given: dict[str, Any]) -> None:
    """Theirs blackens one block after the other and never restores one; ours is given the changes that this makes."""
    x, y, phi, size = given["x"], given["y"], given["phi"], 4
    metric = quantus.Infidelity(perturb_baseline="black", n_perturb_samples=1, perturb_patch_sizes=[size], **PLAIN)
    seen: list[np.ndarray] = []
    usual = metric.perturb_func

    def watched(arr: np.ndarray, **more: Any) -> np.ndarray:
        changed = usual(arr=arr, **more)
        seen.append(changed.reshape(x.shape).copy())
        return changed

    metric.perturb_func = watched
    found = theirs(metric, net, given, phi, softmax=False)
    changes = iter([x - torch.from_numpy(changed).to(x) for changed in seen])
    assert len(seen) == (SIDE // size) ** 2

    def values(points: Tensor) -> Tensor:
        with torch.no_grad():
            return net(points).gather(1, y[:, None])[:, 0]

    ours = infidelity(phi, values, x, lambda inputs, generator: next(changes), n_samples=len(seen))
    assert ours.values.tolist() == pytest.approx(found.tolist(), rel=1e-4)


@pytest.mark.parametrize("kind", ["MaxSensitivity", "AvgSensitivity"])
def test_sensitivity_agrees_for_the_same_noise(net: nn.Module, given: dict[str, Any], kind: str) -> None:
    x, y = given["x"], given["y"]
    radius, count = 0.2, 4
    generator = seeding.generator("sensitivity", 0)
    noise = [
        radius * (2 * torch.rand(x.shape, generator=generator, dtype=torch.float64) - 1).float() for _ in range(count)
    ]
    told = iter(noise)

    def explain(inputs: Tensor) -> Tensor:
        return rt.attribute(net, inputs, "gradient", labels=y, diagnostics=False).attributions

    def explained(model: Any, inputs: np.ndarray, targets: np.ndarray, **more: Any) -> np.ndarray:
        return explain(torch.from_numpy(inputs).float()).numpy()

    metric = getattr(quantus, kind)(
        nr_samples=count,
        perturb_func=lambda arr, indices, **more: arr + next(told).flatten(1).numpy(),
        perturb_func_kwargs={},
        **PLAIN,
    )
    found = theirs(metric, net, given, explain(x), explain_func=explained, softmax=False)
    ours = rt.evaluation.attribution_sensitivity(explain, x, radius=radius, n_samples=count)
    chosen = ours.largest if kind == "MaxSensitivity" else ours.mean
    assert chosen.tolist() == pytest.approx(found.tolist(), rel=1e-4)


def test_random_layers_are_the_same_layers_in_the_same_order(net: nn.Module, given: dict[str, Any]) -> None:
    """Their draws differ from ours; layers, order and the falling of the gradient's likeness do not."""
    x, y = given["x"], given["y"]

    def explained(model: Any, inputs: np.ndarray, targets: np.ndarray, **more: Any) -> np.ndarray:
        labels = torch.as_tensor(targets)
        return rt.attribute(model, torch.from_numpy(inputs).float(), "gradient", labels=labels).attributions.numpy()

    metric = quantus.MPRT(
        layer_order="top_down",
        similarity_func=quantus.similarity_func.correlation_spearman,
        return_average_correlation=False,
        skip_layers=False,
        **PLAIN,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = metric(
            model=net,
            x_batch=x.numpy(),
            y_batch=y.numpy(),
            a_batch=explained(net, x.numpy(), y.numpy()),
            explain_func=explained,
        )
    ours = model_randomisation(net, lambda m: rt.attribute(m, x, "gradient", labels=y).attributions)
    layers = [name for name in found if name not in ("original", "orig")]
    assert [one.layer for one in ours] == layers
    for one in ours:
        assert float(one.similarity.mean()) == pytest.approx(float(np.mean(found[one.layer])), abs=0.35)


def test_their_spearman_is_ours(given: dict[str, Any]) -> None:
    a, b = given["phi"], given["x"]
    found = [
        quantus.similarity_func.correlation_spearman(u.flatten().numpy(), v.flatten().numpy())
        for u, v in zip(a, b, strict=True)
    ]
    assert rank_correlation(a, b).tolist() == pytest.approx(found, abs=1e-6)
