"""The ablation metrics against plain loops, with and without the published code's habits, and what must not matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import rightly as rt
from evaluation.ablation_reference import slow_area
from rightly.core import seeding
from rightly.core.errors import ArgumentError, ShapeError
from rightly.evaluation import ABLATION_METRICS, AblationCurve, ablation

N, T, F = 7, 23, 9


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Curved(nn.Module):
    """Something that is neither linear nor additive, with dropout that must be off."""

    def __init__(self, features=F):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("weights", numbers(features, 5, seed=3))

    def forward(self, rows):
        return self.dropout(torch.tanh(rows @ self.weights.to(rows))).sum(1, keepdim=True) + rows[:, :1] * rows[:, 1:2]


@pytest.fixture
def case():
    mixing = torch.eye(F, dtype=torch.float64) + 0.4 * numbers(F, F, seed=4)
    return {
        "predict": Curved().double(),
        "inputs": numbers(N, F, seed=1) @ mixing + 0.3,
        "attributions": numbers(N, F, seed=5),
        "background": numbers(T, F, seed=2) @ mixing + 0.5,
        "labels": torch.tensor([0.0, 1, 1, 0, 1, 0, 1], dtype=torch.float64),
    }


def areas(case, **arguments):
    return {name: curve.area for name, curve in ablation(**case, **arguments).items()}


def slow(case, *, published=False, seed=0, r2=True):
    """All areas by plain loops."""
    if published:
        drawn = np.random.RandomState(seed).randint(0, N, size=100)
        noise = np.random.RandomState(23980).rand(F) * 1e-6

        def order_of(values):
            return np.argsort(-values + noise)
    else:
        generator = seeding.generator("ablation", seed)
        drawn = torch.randint(T, (100,), generator=generator).numpy()
        tie = torch.rand(F, generator=generator, dtype=torch.float64).numpy()

        def order_of(values):
            return sorted(range(F), key=lambda j: (-values[j], tie[j]))

    arrays = {name: case[name].numpy() for name in ("inputs", "attributions", "background", "labels")}
    weights = case["predict"].weights.numpy()

    def predict(row):
        return np.tanh(row @ weights).sum() + row[0] * row[1]

    return {
        metric: slow_area(metric, predict, **arrays, drawn=drawn, order_of=order_of, r2=r2)
        for metric in ABLATION_METRICS
    }


def test_the_names_are_the_papers():
    assert len(set(ABLATION_METRICS)) == 18
    short = ["".join(part[0] for part in name.split("_")) for name in ABLATION_METRICS]
    assert " ".join(short[:9]) == "kpm kpr kpi knm knr kni kam kar kai"


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("seed", [0, 3])
def test_all_metrics_are_the_plain_loops(case, published, seed):
    found = areas(case, published=published, seed=seed)
    expected = slow(case, published=published, seed=seed)
    assert list(found) == list(ABLATION_METRICS)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert len(set(found.values())) == 18


def test_the_published_code_gives_other_numbers(case):
    ours, theirs = areas(case), areas(case, published=True)
    for metric in ABLATION_METRICS:
        assert (ours[metric] == pytest.approx(theirs[metric], abs=1e-6)) == ("resample" not in metric), metric
    case["attributions"] *= 1e-9
    assert areas(case) == pytest.approx(ours)
    ranked_by_noise = areas(case, published=True)
    assert ranked_by_noise["keep_positive_mask"] != pytest.approx(theirs["keep_positive_mask"], abs=1e-3)
    assert ranked_by_noise == pytest.approx(slow(case, published=True))


def test_the_area_under_the_roc_curve_is_the_plain_loop(case):
    found, expected = areas(case, score="auc"), slow(case, r2=False)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert found["keep_absolute_mask"] != pytest.approx(areas(case)["keep_absolute_mask"], abs=1e-3)


def test_equal_attributions_do_not_depend_on_the_order_of_the_table(case):
    case["attributions"] = case["attributions"].round()
    assert areas(case) == pytest.approx(slow(case), abs=1e-9)
    case["attributions"] = torch.zeros(N, F, dtype=torch.float64)
    assert areas(case, seed=1)["keep_positive_mask"] != pytest.approx(areas(case, seed=2)["keep_positive_mask"])


def test_chunks_arrays_and_callables_change_nothing(case):
    expected = areas(case)
    assert areas(case, chunk_size=1) == pytest.approx(expected)
    arrays = {name: part.numpy() for name, part in case.items() if name != "predict"}
    model = case["predict"].eval()
    as_array = {"predict": lambda rows: model(rows)[:, 0].detach().numpy(), **arrays}
    assert areas(as_array) == pytest.approx(expected)
    assert areas(case, metrics=["remove_absolute_impute"]) == pytest.approx(
        {"remove_absolute_impute": expected["remove_absolute_impute"]}
    )


def test_a_scikit_learn_model_takes_the_rows_as_they_come(case):
    forest = pytest.importorskip("sklearn.ensemble").RandomForestRegressor(5, random_state=0)
    forest.fit(case["background"].numpy(), case["background"].numpy().sum(1))
    case["predict"] = forest.predict
    assert all(np.isfinite(list(areas(case).values())))


def test_nothing_is_changed(case):
    model, before = case["predict"].train(), {name: case[name].clone() for name in case if name != "predict"}
    state = torch.get_rng_state()
    first = areas(case)
    assert first == areas(case)
    assert model.training
    assert model.dropout.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(case[name], part) for name, part in before.items())


def test_a_monotone_transform_of_the_attributions_changes_nothing(case):
    expected = areas(case)
    for transform in (lambda a: 7 * a, lambda a: a**3, torch.sinh):
        assert areas({**case, "attributions": transform(case["attributions"])}) == pytest.approx(expected)


@pytest.mark.parametrize("published", [False, True])
def test_the_order_of_the_features_changes_nothing(case, published):
    order = torch.randperm(F, generator=torch.Generator().manual_seed(9))
    model, back = case["predict"], order.argsort()
    moved = {name: case[name][:, order] for name in ("inputs", "attributions", "background")}
    moved |= {"predict": lambda rows: model(rows[:, back]), "labels": case["labels"]}
    model.eval()
    assert areas(moved, published=published) == pytest.approx(areas(case, published=published))


def test_the_order_of_the_examples_changes_nothing(case):
    order = torch.tensor([4, 2, 6, 0, 1, 5, 3])
    moved = {name: part if name in ("predict", "background") else part[order] for name, part in case.items()}
    assert areas(moved) == pytest.approx(areas(case))


@pytest.mark.parametrize("published", [False, True])
def test_the_right_ranking_beats_chance_and_chance_its_reverse(published):
    weights = torch.linspace(-2, 3, 12, dtype=torch.float64)
    inputs, background = numbers(60, 12, seed=1), numbers(200, 12, seed=2)
    right = weights * (inputs - background.mean(0))
    rest = {
        "predict": lambda rows: rows @ weights,
        "inputs": inputs,
        "background": background,
        "labels": inputs @ weights,
    }
    good, chance, bad, backwards = (
        areas({**rest, "attributions": phi}, published=published)
        for phi in (right, numbers(60, 12, seed=3), -right, 1 / right)
    )
    for metric in ABLATION_METRICS:
        # the size says nothing of the sign: there the reverse is the inverse
        worst = backwards if "absolute" in metric else bad
        assert good[metric] > chance[metric] + 0.05, metric
        assert chance[metric] > worst[metric] + 0.05, metric


def test_imputing_independent_features_is_masking_them():
    """In closed form: with a diagonal covariance, what stays says nothing about what is gone."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4)
    case = {
        "predict": Curved(4).double().eval(),
        "inputs": numbers(5, 4, seed=1),
        "attributions": numbers(5, 4, seed=2),
        "background": corners,
    }
    metrics = [name for name in ABLATION_METRICS if "absolute" not in name]
    found = areas(case, metrics=metrics)
    for name in metrics:
        if name.endswith("impute"):
            assert found[name] == pytest.approx(found[name.replace("impute", "mask")], rel=1e-9)


def test_imputing_a_repeated_feature_gives_it_back():
    """Two features that are one: the second, taken away, is known from the first."""
    first = numbers(40, 1, seed=1)
    background = torch.cat([first, first], 1)
    rows = background[:5]
    curve = ablation(
        lambda rows: rows[:, 1],
        rows,
        torch.tensor([[0.0, 1.0]]).expand(5, 2),
        background,
        metrics=["remove_positive_impute"],
    )["remove_positive_impute"]
    # of none, one and both features removed the answer is the row's, the row's, and the mean
    assert curve.fractions == (0.0, 0.5, 1.0)
    mean = float(rows[:, 1].mean())
    assert curve.scores == pytest.approx((-mean, -mean, -float(background[:, 1].mean())), abs=1e-4)


def test_the_area_of_a_line():
    assert AblationCurve((0.0, 0.25, 1.0), (0.0, 1.0, 4.0)).area == pytest.approx(2.0)


def test_the_counts_are_the_published_ones():
    curve = ablation(lambda rows: rows[:, 0], *[numbers(2, 60)] * 3, metrics=["keep_positive_mask"])
    counts = [round(60 * fraction) for fraction in curve["keep_positive_mask"].fractions]
    assert counts == [0, 2, 4, 7, 10, 14, 20, 27, 35, 46, 60]


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"metrics": ["keep_positive_blur"]}, ArgumentError, "keep_positive_mask"),
        ({"score": "accuracy"}, ArgumentError, "auc"),
        ({"labels": None}, ArgumentError, "labels"),
        ({"labels": torch.zeros(N, 1)}, ShapeError, "label"),
        ({"attributions": torch.zeros(N, F - 1)}, ShapeError, "attributions"),
        ({"background": torch.zeros(T, F + 1)}, ShapeError, "background"),
        ({"background": torch.zeros(1, F)}, ShapeError, "2 rows"),
        ({"inputs": torch.zeros(N, F, dtype=torch.long)}, ArgumentError, "finite"),
        ({"attributions": torch.full((N, F), torch.nan)}, ArgumentError, "finite"),
        ({"predict": lambda rows: rows}, ShapeError, "one number an example"),
        ({"chunk_size": 0}, ArgumentError, "chunk_size"),
        ({"published": True, "background": torch.zeros(N - 1, F)}, ArgumentError, "published"),
    ],
)
def test_what_cannot_be_ablated_is_refused(case, changes, error, said):
    arguments = {**case, **changes}
    with pytest.raises(error, match=said):
        ablation(**arguments)


def test_explanations_of_the_library_go_straight_in():
    model = rt.models.mlp(6, (8,), 1, seed=0)
    rows = numbers(40, 6).float()
    phi = rt.attribute(model, rows[:5], reference=rt.references.Sample(rows), n_samples=20).attributions
    assert len(ablation(model, rows[:5], phi, rows, rows[:5].sum(1))) == 18


class Three(nn.Module):
    """Scores of three classes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weights", 0.6 * numbers(F, 3, seed=8))

    def forward(self, rows):
        return torch.tanh(rows @ self.weights.to(rows)) * 3 + rows[:, :3] * rows[:, 3:6]


@pytest.mark.parametrize("scale", ["logit", "prob"])
@pytest.mark.parametrize("metric", ABLATION_METRICS)
def test_of_a_classifier_the_class_of_every_example_is_followed(case, metric, scale):
    model = Three()
    labels, target = torch.tensor([0, 1, 2, 0, 1, 2, 0]), torch.tensor([1, 1, 0, 2, 0, 2, 2])
    weights = model.weights.numpy()

    def predict(row):
        found = np.tanh(row @ weights) * 3 + row[:3] * row[3:6]
        return found if scale == "logit" else np.exp(found) / np.exp(found).sum()

    generator = seeding.generator("ablation", 3)
    drawn = torch.randint(T, (100,), generator=generator).numpy()
    tie = torch.rand(F, generator=generator, dtype=torch.float64).numpy()
    arrays = {name: case[name].numpy() for name in ("inputs", "attributions", "background")}
    expected = slow_area(
        metric,
        predict,
        **arrays,
        labels=labels.numpy(),
        drawn=drawn,
        order_of=lambda values: sorted(range(F), key=lambda j: (-values[j], tie[j])),
        r2=False,
        target=target.numpy(),
    )
    given = case | {"labels": labels, "predict": model if scale == "logit" else lambda rows: model(rows).softmax(1)}
    for chunk in (2**11, 3):
        found = ablation(**given, target=target, metrics=[metric], seed=3, chunk_size=chunk)[metric].area
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_classifier_of_one_score_and_its_mirror_image_is_followed_as_the_one_score(case):
    single = case["predict"].eval()
    double = case | {"predict": lambda rows: torch.cat([-single(rows), single(rows)], 1)}
    signed = [metric for metric in ABLATION_METRICS if "absolute" not in metric]
    ones, zeros = (torch.full((N,), label) for label in (1, 0))
    plain = areas(case, metrics=signed)
    assert areas(double, metrics=signed, target=ones) == pytest.approx(plain)
    assert areas(double, metrics=signed, target=zeros) == pytest.approx({name: -v for name, v in plain.items()})


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"predict": Three()}, ShapeError, "say which class"),
        ({"predict": Three(), "target": torch.zeros(N)}, ShapeError, "whole numbers"),
        ({"predict": Three(), "target": torch.zeros(N - 1, dtype=torch.long)}, ShapeError, "whole numbers"),
        ({"predict": Three(), "target": torch.full((N,), 3)}, ArgumentError, "0 to 2"),
        ({"predict": Three(), "target": torch.zeros(N, dtype=torch.long), "score": "auc"}, ArgumentError, "several"),
        ({"score": "accuracy"}, ArgumentError, "of one number"),
        ({"labels": torch.arange(N), "score": "auc"}, ArgumentError, "class numbers 0 to 1"),
        ({"labels": torch.arange(N), "predict": Three(), "target": torch.zeros(N).long()}, ArgumentError, "0 to 2"),
    ],
)
def test_classes_that_do_not_fit_are_named(case, change, error, words):
    with pytest.raises(error, match=words):
        ablation(**case | change)


def test_what_needs_no_covariance_makes_none(case, monkeypatch):
    monkeypatch.setattr(torch, "cov", lambda *_: pytest.fail("a matrix of all features"))
    others = [metric for metric in ABLATION_METRICS if not metric.endswith("impute")]
    assert len(ablation(**case, metrics=others)) == 12
