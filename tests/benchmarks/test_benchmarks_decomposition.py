"""The decomposition benchmarks do what they say, and published architectures come apart. No timing is judged here."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks import architectures, decomposition, targets
from benchmarks.schema import validate

SPREAD = {"median": 2.0, "low": 1.9, "high": 2.1}


def test_the_authors_code_is_refused_with_a_reason_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "acd", None)
    with pytest.raises(ImportError, match="acd"):
        decomposition.regions()["acd"]()


def test_a_case_is_a_result_that_passes_the_schema(monkeypatch):
    base = {"schema": 1, "quick": True, "peers": {}, "cases": {}}
    machine = {"torch": "2", "python": "3", "device": "cpu", "processor": "any", "accelerator": None, "cores": 1}
    steps = {"plain": lambda: lambda: None, "rightly": lambda: lambda: torch.ones(10), "acd": lambda: 1 / 0}
    monkeypatch.setitem(decomposition.CASES, "step", ("a step", "plain", lambda: steps, True))
    found = decomposition.run_decomposition("step", True, torch.device("cpu"))
    assert "refused" in found["variants"]["acd"]
    assert "megabytes" in found["variants"]["rightly"]
    case = {**found, "date": "2026-01-01", "commit": "abc", "seconds": 1.0}
    machine = {**machine, "threads": 1, "memory": "any", "clock": "any"}
    validate({**base, "machine": machine, "cases": {"decomposition-step": case}})


def test_targets_are_of_medians_and_memory():
    def timed(ratio: float, megabytes: float | None = None) -> dict:
        found = {"milliseconds": SPREAD, "ratio": {**SPREAD, "median": ratio}, "repeats": 3}
        return found if megabytes is None else {**found, "megabytes": megabytes}

    cases = {
        "decomposition-regions": {"variants": {"plain": timed(1), "rightly": timed(1.5), "acd": timed(60)}},
        "decomposition-step": {"variants": {"plain": timed(1, 10), "rightly": timed(2.5, 31)}},
    }
    rows = [row for row in targets.rows({"cases": cases}) if "784" in row.case or "one region" in row.case]
    assert [(row.measured, row.met) for row in rows] == [(1.5, True), (40.0, False), (2.5, True), (3.1, False)]


def test_the_steps_are_the_same_model(monkeypatch):
    monkeypatch.setattr(decomposition, "_BATCH", 4)
    steps = decomposition.step()
    for name in steps:
        steps[name]()()


class Rounded(nn.Module):
    def forward(self, x):
        return torch.special.i0(x.flatten(1))


class TestArchitectures:
    def test_what_adds_up_is_taken(self):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        found = architectures.try_model(model, torch.randn(4, 3, 8, 8).double(), (1, 8, 8))
        assert found.ok

    def test_what_has_no_rule_is_named(self):
        found = architectures.try_model(Rounded(), torch.randn(2, 3).double(), (3,))
        assert not found.ok
        assert found.unknown == ("special_i0",)

    @pytest.mark.parametrize(
        "broken", [{"total": 1e-9}, {"empty": 1e-9}, {"full": 1e-9}, {"part": 1e-4}, {"problem": "lost"}], ids=str
    )
    def test_each_defect_counts(self, broken):
        good = {"total": 0.0, "empty": 0.0, "full": 0.0, "part": 0.5}
        assert architectures.Tried(**good).ok
        assert not architectures.Tried(**{**good, **broken}).ok

    def test_a_missing_package_is_told(self, monkeypatch):
        for name in ("torchvision", "transformers"):
            monkeypatch.setitem(__import__("sys").modules, name, None)
        assert sum("Not tried" in line for line in architectures.page()) == 2


#: torch's own pooling of channels-last images, under vmap
SLOW = pytest.mark.filterwarnings("ignore:There is a performance drop")


@SLOW
@pytest.mark.parametrize("name", architectures.TORCHVISION)
def test_torchvision(name):
    pytest.importorskip("torchvision.models", reason="torchvision is not installed: no part of the library needs it")
    assert architectures.try_torchvision(name).ok


@SLOW
@pytest.mark.parametrize("name", architectures.TRANSFORMERS)
def test_transformers(name):
    pytest.importorskip("transformers", reason="transformers is not installed: no part of the library needs it")
    assert architectures.try_transformers(name).ok
