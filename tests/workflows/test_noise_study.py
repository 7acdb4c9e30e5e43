"""Noise studies: how weights are chosen, when a claim holds, and what a trial measures."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

import rightly as rt
from rightly.evaluation import adjust, compare
from rightly.workflows import reproduce as reproductions
from rightly.workflows.noise_report import Statement, claims, figures, hard_levels
from rightly.workflows.noise_study import Arm, Found, Study, choose, mistakes, run_study
from rightly.workflows.reproduce import Settings, Trials

PLAIN = {"arm": "plain", "weight": 0.0, "validation": 0.97, "penalty": 0.0}


def tried(*pairs):
    return [{"weight": i, "validation": v, "penalty": p} for i, (v, p) in enumerate(pairs)]


def test_the_smallest_penalty_within_the_allowed_loss_is_chosen():
    rows = tried((0.97, 9.0), (0.96, 5.0), (0.96, 6.0), (0.95, 1.0))
    assert choose(PLAIN, rows, 0.01)["weight"] == 1
    # exactly within, though 0.8 - 0.1 is more than 0.7 in floating point
    assert choose(PLAIN | {"validation": 0.8}, tried((0.8, 9.0), (0.7, 5.0)), 0.1)["weight"] == 1
    assert choose(PLAIN, rows, 0.02)["weight"] == 3
    assert choose(PLAIN, rows, 0.0)["weight"] == 0


def test_where_all_cost_too_much_the_least_costly_is_chosen():
    assert choose(PLAIN, tried((0.5, 1.0), (0.9, 7.0), (0.8, 2.0)), 0.01)["weight"] == 1


def study(**changes):
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    inputs = torch.rand(60, 1, 6, 6, generator=draws) + labels[:, None, None, None]
    parts = dict.fromkeys(("train", "validation", "test"), (inputs, labels)) | {"references": inputs}
    made = {
        "arms": {
            "before": Arm("Before", trained=False),
            "plain": Arm("Plain"),
            "eg": Arm("Smooth EG", rt.ExpectedGradients()),
            "gradient": Arm("Smooth gradients", rt.Gradient()),
        },
        "weights": [0.1, 1.0],
        "seeds": [0, 1, 2],
        "allowed": 0.5,
        "noise": {"gaussian": [0.5, 2.0], "salt_and_pepper": [0.3]},
        "span": (0.0, 3.0),
        "parts": lambda: parts,
        "model": lambda seed: rt.models.mlp(36, (8,), 3, seed=seed),
        "fit": lambda objective, parts, seed, checkpoint: rt.fit(
            objective, parts["train"], parts["validation"], epochs=2, lr=0.01, monitor=mistakes, seed=seed
        ),
        "explained": 4,
        "samples": 3,
        "classes": ["a", "b", "c"],
    }
    return Study(**(made | changes))


def settings(folder):
    return Settings("reduced", 0, None, None, "auto", Trials(folder / "t", {}, resume=False, progress=False))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run_study(study(), settings(tmp_path_factory.mktemp("study")))


def test_a_study_trains_every_arm_with_every_seed(found):
    assert list(found.rows) == list(study().arms)
    assert all([row["seed"] for row in rows] == [0, 1, 2] for rows in found.rows.values())
    assert [(row["arm"], row["weight"]) for row in found.tried] == [
        ("plain", 0.0),
        *((arm, weight) for weight in (0.1, 1.0) for arm in ("eg", "gradient")),
    ]
    weights = {arm: {row["weight"] for row in rows} for arm, rows in found.rows.items()}
    assert weights["plain"] == weights["before"] == {0.0}
    assert all(len(weights[arm]) == 1 and weights[arm] < {0.1, 1.0} for arm in ("eg", "gradient"))
    assert "history" not in found.rows["before"][0]
    assert all(row["engines"] for row in found.rows["eg"])


def test_a_trial_measures_what_it_says(found):
    """Against the network trained once more by hand."""
    row, made = found.rows["plain"][1], study()
    parts, model = made.parts(), made.model(1)
    run = made.fit(rt.Objective(model, nn.functional.cross_entropy, [], seed=1), parts, 1, None)
    inputs, labels = parts["test"]
    noisy = inputs + 0.5 * 3 * torch.randn(inputs.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert row["clean"] == float((model(inputs).argmax(1) == labels).double().mean())
        assert row["noise"]["gaussian"][0] == float((model(noisy).argmax(1) == labels).double().mean())
    assert row["history"]["validation"] == [1 - entry["validation"] for entry in run.history]
    assert row["validation"] == pytest.approx(max(row["history"]["validation"]))
    assert row["penalty"] == 0


def test_maps_are_of_every_class_and_of_every_output(found):
    maps = found.rows["eg"][0]["maps"]
    assert "maps" not in found.rows["eg"][1]
    assert [(entry["label"], entry["target"]) for entry in maps] == [(0, 0), (1, 1), (2, 2), (0, 0), (0, 1), (0, 2)]
    assert maps[3]["image"] == maps[0]["image"] == maps[5]["image"]
    assert maps[3]["map"] != maps[4]["map"]
    told = figures(study(), found, [("plain", "eg")])["maps"]
    assert [entry["title"] is None for entry in told] == [True] * 3 + [False] * 3
    assert all(list(entry["runs"]) == list(study().arms) for entry in told)


def test_mistakes_counts():
    outputs = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert mistakes(outputs, torch.tensor([1, 0, 0, 1])) == 0.25


# ---- claims, on results made by hand


def rows(clean, *levels, roughness=10.0):
    return [
        {
            "seed": i,
            "weight": 0.1,
            "clean": c,
            "noise": {"gaussian": list(ys)},
            "roughness": roughness * (1 + i / 10),
            "maps": [],
        }
        for i, (c, *ys) in enumerate(zip(clean, *levels, strict=True))
    ]


def judged(eg, points=0.02, gradient=None, roughness=5.0, eg_clean=(0.95, 0.96, 0.95)):
    plain = rows([0.96, 0.95, 0.96], [0.9, 0.91, 0.9], [0.5, 0.51, 0.5], [0.3, 0.3, 0.31])
    arms = {"plain": plain, "eg": rows(eg_clean, *eg, roughness=roughness)}
    arms["gradient"] = plain if gradient is None else rows([0.95] * 3, *gradient)
    made = study(noise={"gaussian": [0.1, 0.2, 0.3]}, allowed=0.01)
    statements = [Statement("plain", "eg", "gaussian", "greatly", points), Statement("gradient", "eg", "gaussian", "-")]
    return claims(made, Found([], arms), statements, "eg", "chosen so")


BETTER = ([0.5, 0.5, 0.5], [0.6, 0.62, 0.59], [0.4, 0.4, 0.42])


def test_levels_are_hard_where_plain_has_lost_twenty_points():
    plain = rows([0.9, 0.9], [0.71, 0.71], [0.7, 0.7], [0.69, 0.69])
    assert hard_levels({"plain": plain}, "gaussian") == [1, 2]


def test_a_claim_holds_where_the_gain_over_hard_levels_is_large_and_shown():
    found = judged(BETTER)
    assert [claim.holds for claim in found] == [True, True, True, True]
    assert "at 0.2, 0.3" in found[0].ours  # the level where plain has lost 5 points does not count
    p = adjust([compare([0.4, 0.405, 0.405], [0.5, 0.51, 0.505]).p] * 2)[0]
    assert f"p = {p:.2g}" in found[0].ours
    assert "by at least 2 points" in found[0].claim


def test_p_values_of_the_claims_are_corrected_together():
    gradient = ([0.5] * 3, [0.6, 0.3, 0.5], [0.4, 0.2, 0.5])
    p = compare([0.4, 0.405, 0.405], [0.5, 0.51, 0.505]).p
    other = compare([0.5, 0.25, 0.5], [0.5, 0.51, 0.505]).p
    assert adjust([p, other])[0] > 1.9 * p
    assert f"p = {adjust([p, other])[0]:.2g}" in judged(BETTER, gradient=gradient)[0].ours


def test_a_small_gain_does_not_hold_and_an_uncertain_one_is_not_shown():
    small = ([0.9] * 3, [0.505, 0.516, 0.506], [0.306, 0.305, 0.316])
    assert [claim.holds for claim in judged(small)][:2] == [False, True]
    wild = ([0.9] * 3, [0.9, 0.3, 0.7], [0.9, 0.1, 0.3])
    assert judged(wild)[0].holds is None
    assert judged(([0.9] * 3, [0.3, 0.32, 0.3], [0.1, 0.11, 0.12]))[1].holds is False


def test_without_hard_levels_nothing_is_shown():
    made = study(noise={"gaussian": [0.1]})
    arms = {arm: rows([0.9, 0.9], [0.8, 0.85]) for arm in ("plain", "eg")}
    (first, *_) = claims(made, Found([], arms), [Statement("plain", "eg", "gaussian", "-")], "eg", "-")
    assert first.holds is None
    assert "loses less" in first.ours


def test_cost_and_smoothness_are_judged():
    dear = judged(BETTER, eg_clean=(0.94, 0.94, 0.94))
    assert dear[2].holds is False
    assert dear[3].holds is True
    assert judged(BETTER, roughness=20.0)[3].holds is False


def test_p_values_of_the_table_are_corrected_together():
    arms = {"plain": rows([0.9] * 4, [0.5, 0.52, 0.5, 0.53], [0.3, 0.3, 0.31, 0.3])}
    arms["eg"] = rows([0.9] * 4, [0.53, 0.56, 0.52, 0.55], [0.32, 0.35, 0.33, 0.33])
    made = study(noise={"gaussian": [0.1, 0.2]}, arms={k: v for k, v in study().arms.items() if k in arms})
    table = figures(made, Found([], arms), [("plain", "eg")])["tables"][-2]
    tests = [compare(*([row["noise"]["gaussian"][i] for row in arms[a]] for a in ("plain", "eg"))) for i in (0, 1)]
    assert [line[5] for line in table["rows"]] == [pytest.approx(test.p, rel=0.05) for test in tests]
    assert [line[6] for line in table["rows"]] == [pytest.approx(p, rel=0.05) for p in adjust([t.p for t in tests])]


# ---- black pixels


@pytest.fixture(scope="module")
def black():
    path = reproductions.EXPERIMENTS / "erion2021" / "black_pixels.py"
    spec = importlib.util.spec_from_file_location("black pixels", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_region_of_a_digit_is_dark_and_inside_the_box_around_it(black):
    image = torch.zeros(1, 1, 6, 7)
    image[0, 0, 1, 2] = image[0, 0, 3, 5] = 1
    image[0, 0, 2, 3] = 0.5
    region = torch.zeros(1, 6, 7, dtype=torch.bool)
    region[0, 1:4, 2:6] = True
    region[0, 1, 2] = region[0, 3, 5] = region[0, 2, 3] = False
    assert torch.equal(black._region("mnist", image), region)
    assert torch.equal(black._region("cifar", image), image[:, 0] <= 0.1)


def test_an_even_map_has_concentration_one(black):
    dark = torch.zeros(2, 4, 4, dtype=torch.bool)
    dark[:, 0] = True
    maps = torch.stack([torch.full((4, 4), -2.0), torch.zeros(4, 4)])
    maps[1, 0, 1] = 3.0
    assert black._share(maps, dark).tolist() == [1.0, 4.0]


def test_the_strongest_dark_pixels_are_first_and_ties_are_drawn(black):
    strength = torch.tensor([[[9.0, 1.0, 3.0], [2.0, 8.0, 0.0]]])
    dark = torch.tensor([[[False, True, True], [True, True, True]]])
    noise = torch.rand(1, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert black._first(strength, dark, noise, 2).nonzero()[:, 1:].tolist() == [[0, 2], [1, 1]]
    tied = torch.zeros(400, 2, 3)
    noise = torch.rand(400, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chosen = black._first(tied, dark.expand(400, -1, -1), noise, 2).double()
    assert chosen.flatten(1).sum(1).unique().tolist() == [2.0]
    assert chosen.mean(0).tolist() == [pytest.approx([0, 0.4, 0.4], abs=0.08), pytest.approx([0.4] * 3, abs=0.08)]


def test_the_fall_is_that_of_the_labels_logit(black):
    draws = torch.Generator().manual_seed(0)
    inputs, others = torch.rand(3, 1, 2, 2, generator=draws), torch.rand(5, 1, 2, 2, generator=draws)
    weight = torch.randn(2, 4, generator=draws)
    model = lambda x: x.flatten(1) @ weight.T  # noqa: E731
    labels = torch.tensor([0, 1, 1])
    gone = torch.tensor([[[True, False], [False, True]]]).expand(3, -1, -1)
    found = black._fall(model, inputs, labels, gone, others)
    for k, other in enumerate(others):
        for i in range(3):
            by_hand = sum(weight[labels[i], j] * (inputs[i].flatten()[j] - other.flatten()[j]) for j in (0, 3))
            assert float(found[k, i]) == pytest.approx(float(by_hand), abs=1e-5)
