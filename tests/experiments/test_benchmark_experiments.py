"""The recipes that compare explanations: what they count, what they measure, and that their numbers are the paper's."""

from __future__ import annotations

import importlib.util
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import rightly as rt
from rightly.evaluation import ABLATION_METRICS, binomial
from rightly.report import read_figures, read_record
from rightly.workflows import reproduce as reproductions
from rightly.workflows.reproduce import reproduce


def recipe(path):
    spec = importlib.util.spec_from_file_location("recipe", reproductions.EXPERIMENTS / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def benchmark():
    return recipe("erion2019/benchmark_18.py")


@pytest.fixture(scope="module")
def two_features():
    return recipe("erion2021/convergence_two_features.py")


def as_rows(benchmark, tables, splits=3):
    """What ``measure`` would have found, had every split given these tables."""
    return [
        {
            "protocol": protocol,
            "set": name,
            "split": split,
            "seconds": 1.0,
            "r2": 0.9,
            "areas": {m: dict(zip(ABLATION_METRICS, line, strict=True)) for m, line in tables[name].items()},
            "error": dict.fromkeys(tables[name], 0.1),
            "local_accuracy": dict.fromkeys(tables[name], 0.1),
        }
        for protocol in benchmark.PROTOCOLS
        for name in benchmark.SETS
        for split in range(splits)
    ]


def paper_tables(benchmark):
    return {
        name: {method: [float(v) for v in line.split()] for method, line in table.items()}
        for name, table in benchmark.PAPER.items()
    }


def test_the_papers_own_tables_give_the_papers_own_count(benchmark):
    found = benchmark.Found(as_rows(benchmark, paper_tables(benchmark)), tuple(benchmark.PUBLISHED))
    first = found.first("defined", "corrgroups60")
    assert set(ABLATION_METRICS) - set(first) == {"keep_absolute_impute"}
    assert binomial(len(first), 18) == pytest.approx(7.2e-5, rel=0.01)
    # two are ties in the digits that are printed
    assert set(ABLATION_METRICS) - set(found.first("defined", "independentlinear60")) == {
        "keep_absolute_mask",
        "keep_absolute_impute",
    }


def test_a_worse_sampler_is_seen(benchmark):
    rng = np.random.default_rng(0)
    tables = paper_tables(benchmark)
    for table in tables.values():
        for method in ("lattice", "lattice_quarter", "limit"):
            table[method] = list(table["expected_gradients"])
    rows = as_rows(benchmark, tables, splits=6)
    for row in rows:
        for areas in row["areas"].values():
            for metric in areas:
                areas[metric] += 0.001 * rng.standard_normal()
        for metric in ABLATION_METRICS[:9]:
            row["areas"]["lattice_quarter"][metric] -= 0.05
    found = benchmark.Found(rows, (*benchmark.PUBLISHED, "lattice", "lattice_quarter", "limit"))
    claims = benchmark._claims(found, "defined", "corrgroups60")
    assert [claim.holds for claim in claims] == [True, True, True, False]
    assert "0 metrics better, 9 worse" in claims[3].ours


def test_the_splits_are_the_published_ones(benchmark):
    selection = pytest.importorskip("sklearn.model_selection")
    data = rt.data.corrgroups60()
    train, test, _, labels = selection.train_test_split(data.inputs, data.labels, test_size=100, random_state=4)
    sizes = benchmark.Sizes(epochs=1)
    split = benchmark._split("corrgroups60", 4, sizes, 0)
    assert np.allclose(split.train, train, atol=1e-6)
    assert np.allclose(split.test, test, atol=1e-6)
    assert np.allclose(split.labels, labels, atol=1e-6)
    assert [tuple(layer.weight.shape) for layer in split.model if isinstance(layer, nn.Linear)] == [
        (32, 60),
        (20, 32),
        (20, 20),
        (1, 20),
    ]


def test_the_benchmark_reports_both_sets_and_both_protocols(tmp_path):
    folder = reproduce("benchmark-18", out=tmp_path, smoke=True, progress=False)
    record, figures = read_record(folder), read_figures(folder)
    assert len(record["claims"]) == 16
    assert len(record["comparison"]) == 36
    assert len(record["runs"]["lattice_quarter"]["metrics"]["test"]) == 36
    titles = [table["title"] for table in figures["tables"]]
    assert len(titles) == 7
    assert any("captum" in note for note in record["notes"]) == (importlib.util.find_spec("captum") is None)
    areas = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()[1:]]
    kept = {(row["trial"]["protocol"], row["trial"]["set"]): row["result"]["areas"] for row in areas}
    for name in ("corrgroups60", "independentlinear60"):
        assert kept["defined", name] != kept["published", name]


def test_reliance_is_the_effect_of_the_second_feature_over_that_of_the_first(two_features):
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.fill_(10.0)
        model.bias.fill_(-6.0)
    assert two_features.reliance(model) == pytest.approx(1, abs=1e-6)
    with torch.no_grad():
        model.weight[0, 1] = 0.0
    assert two_features.reliance(model) == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, 1.0]]))
        model.bias.fill_(-1.0)

    def slow(first, second):
        return 1 / (1 + math.exp(-(2 * first + second - 1)))

    grid = [i / 100 for i in range(100)]
    expected = sum(slow(v, 1) - slow(v, 0) for v in grid) / sum(slow(1, v) - slow(0, v) for v in grid)
    assert two_features.reliance(model) == pytest.approx(expected, rel=1e-5)


def test_the_penalty_frees_the_model_and_none_leaves_it(two_features):
    freed = two_features.train({"arm": "eg1", "seed": 0}, 40, "auto")
    left = two_features.train({"arm": "plain", "seed": 0}, 3, "auto")
    assert freed["ratios"][-1] < 0.5 < freed["ratios"][0]
    assert left["ratios"] == pytest.approx([1, 1, 1], abs=1e-4)


def test_no_engine_changes_what_two_features_show(two_features):
    for arm in ("eg2", "ig4", "log_gradient"):
        own, asked = (two_features.train({"arm": arm, "seed": 1}, 3, engine) for engine in ("auto", "double-backward"))
        assert own["ratios"] == pytest.approx(asked["ratios"], abs=2e-5)
        assert own["engines"] != asked["engines"]


def test_draws_are_counted_against_the_published_sampler(tmp_path):
    record = read_record(reproduce("sampling-convergence", out=tmp_path, smoke=True, progress=False))
    assert record["runs"]["independent"]["metrics"]["test"]["draws"]["values"] == pytest.approx([200, 200])
    for name in ("latin", "lattice"):
        error = record["runs"][name]["metrics"]["test"]["error"]["mean"]
        assert error < record["runs"]["independent"]["metrics"]["test"]["error"]["mean"]
