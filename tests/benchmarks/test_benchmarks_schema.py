"""The suite runs, its files are checked, and the page says what the files say. No timing is judged here."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import rightly as rt
from benchmarks import __main__ as command
from benchmarks import cases, harness, posthoc, steps, targets
from benchmarks.page import committed, page
from benchmarks.schema import validate
from rightly.core.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
SPREAD = {"median": 2.0, "low": 1.9, "high": 2.1}


def step(ratio: float, megabytes: float = 10.0, error: float | None = 0.0) -> dict:
    spread = {"median": ratio, "low": ratio - 0.1, "high": ratio + 0.1}
    found = {"milliseconds": SPREAD, "ratio": spread, "megabytes": megabytes, "repeats": 5}
    return found if error is None else {**found, "gradient_error": error}


def case(kind: str, **more) -> dict:
    return {"kind": kind, "title": kind, "date": "2026-01-01", "commit": "abc", "seconds": 1.0, **more}


def made() -> dict:
    """A result file that has one of everything."""
    machine = {"torch": "2", "python": "3", "device": "cpu", "processor": "any", "accelerator": None, "cores": 1}
    variants = {"plain": step(1.0, error=None), "by hand": step(3.2, error=None), "auto": step(2.3)}
    variants |= {"finite-differences": {"refused": "kinks"}, "attributionpriors": step(3.3, error=None)}
    hundred = {"plain": step(1.0, error=None), "auto": step(60.0, 90.0), "attributionpriors": step(150.0, error=None)}
    errors = {
        "rightly": {"evaluations": [16, 256], "error": [0.1, 0.02]},
        "captum": {"evaluations": [16, 256], "error": [0.2, 0.1]},
    }
    rate = {
        "rightly": {"rate": SPREAD, "evaluations": 16, "error": 0.1},
        "captum": {"rate": SPREAD, "evaluations": 256, "error": 0.1},
    }
    return {
        "schema": 1,
        "quick": False,
        "machine": {**machine, "threads": 1, "memory": "any", "clock": "any"},
        "peers": {"captum": "1", "shap": None},
        "cases": {
            "cnn": case("steps", batch=5, k=1, floor=2.33, variants=variants),
            "mlp-100": case("steps", batch=5, k=100, floor=134.0, variants=hundred),
            "error-mlp": case("error", variants=errors),
            "bulk-mlp": case("bulk", unit="examples/s", variants=rate),
            "sweep": case("sweep", unit="models/s", variants={"rightly": {"rate": SPREAD}}),
        },
    }


def row(results: dict, start: str) -> targets.Row:
    return next(row for row in targets.rows(results) if row.case.startswith(start))


class TestSchema:
    def test_good_results_pass(self):
        validate(made())

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("schema",), 2),
            (("quick",), "no"),
            (("machine", "threads"), 0),
            (("machine", "device"), "tpu"),
            (("cases", "cnn", "kind"), "guess"),
            (("cases", "cnn", "floor"), 0.5),
            (("cases", "cnn", "variants"), {}),
            (("cases", "cnn", "variants", "auto", "ratio", "median"), float("nan")),
            (("cases", "cnn", "variants", "auto", "repeats"), 0),
            (("cases", "cnn", "variants", "finite-differences", "refused"), None),
            (("cases", "error-mlp", "variants", "rightly", "error"), []),
            (("cases", "sweep", "unit"), 3),
        ],
        ids=str,
    )
    def test_each_defect_is_named(self, path, value):
        results = made()
        inner = results
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        with pytest.raises(DataError, match=path[-1] if path[-1] != "variants" else "at least 1"):
            validate(results)
        del inner[path[-1]]
        with pytest.raises(DataError):
            validate(results)


class TestPage:
    def test_the_page_is_made_from_the_committed_results(self):
        text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
        assert text == page(committed()), "run: python -m benchmarks.page > docs/benchmarks.md"

    def test_it_shows_everything(self):
        text = page({"made-up": made()})
        for word in ("made-up", "`finite-differences` refuses: kinks", "not measured", "2.30", "0.020", "examples/s"):
            assert word in text

    def test_losses_stand_beside_wins(self):
        results = made()
        assert row(results, "CNN, k = 1").met is True
        results["cases"]["cnn"]["variants"]["auto"] = step(2.5)
        assert row(results, "CNN, k = 1").met is False
        assert "**no**" in page({"made-up": results})
        results["cases"]["cnn"]["variants"]["auto"] = step(2.3, error=0.1)
        assert row(results, "CNN, k = 1").met is False  # fast and wrong


class TestTargets:
    def test_what_is_not_measured_says_why(self):
        results = made()
        assert row(results, "ResNet-18").measured == "not run"
        assert row(results, "sweep").measured == "attributionpriors: not run"
        results["cases"]["cnn"]["variants"]["auto"] = {"refused": "broken"}
        assert row(results, "CNN, k = 1").measured == "auto: broken"
        assert row(results, "CNN, k = 1").met is None

    def test_a_third_of_the_time_or_little_memory(self):
        results = made()
        assert row(results, "MLP, k = 100")[4:] == (0.4, "<= 1/3; or <= 30 MB at <= 0.7", False)
        variants = results["cases"]["mlp-100"]["variants"]
        for ratio, megabytes, error, met in (
            (100, 29, 1e-6, True),
            (110, 29, 1e-6, False),
            (100, 31, 0, False),
            (100, 29, 0.01, False),
        ):
            variants["two-phase"] = step(ratio, megabytes, error)
            assert row(results, "MLP, k = 100").met is met
        variants["auto"] = step(49.0, 90.0)
        assert row(results, "MLP, k = 100").met is True

    def test_differences_have_to_be_accurate(self):
        results = made()
        variants = {"plain": step(1.0), "auto": step(3.0), "finite-differences": step(2.8, error=0.004)}
        results["cases"]["transformer"] = case("steps", batch=5, k=1, floor=3.0, variants=variants)
        assert row(results, "transformer encoder, k = 1, by differences").met is True
        variants["finite-differences"] = step(2.8, error=0.006)
        assert row(results, "transformer encoder, k = 1, by differences").met is False

    def test_equal_error_is_needed(self):
        results = made()
        assert row(results, "bulk explanation at equal error, MLP").measured == 1.0
        results["cases"]["bulk-mlp"]["variants"]["rightly"]["error"] = 0.2
        assert row(results, "bulk explanation at equal error, MLP").measured == "captum's error was not reached"


class TestHarness:
    def test_what_raises_is_refused_with_its_reason(self):
        def broken():
            raise ValueError("kinks\nand more")

        timings, running = harness.measure(
            {"good": lambda: lambda: None, "bad": lambda: broken, "worse": broken}, harness.Effort(0.0, 3, 9), CPU
        )
        assert timings["bad"] == timings["worse"] == harness.Refused("ValueError: kinks")
        assert len(timings["good"]) == 3
        assert list(timings) == ["good", "bad", "worse"]
        assert list(running) == ["good"]

    def test_variants_take_turns(self):
        order = []
        variants = {name: lambda name=name: lambda: order.append(name) for name in "ab"}
        harness.measure(variants, harness.Effort(0.0, 2, 2), CPU)
        assert order[4:] == ["a", "b", "b", "a"]

    def test_memory_is_that_of_the_step(self):
        def step():
            large = torch.ones(1_000_000)
            return (large * 2).sum()

        assert harness.peak_megabytes(step, CPU) == pytest.approx(8, rel=0.01)

    def test_ratios_are_taken_round_by_round(self):
        assert harness.ratios([2.0, 30.0, 4.0], [1.0, 10.0, 1.0]) == {"median": 3.0, "low": 2.5, "high": 3.5}


SMALL = steps.Case("small", lambda seed: rt.models.mlp(6, [5], 1, seed=seed), (6,), 4, "sparsity", 2.33)


class TestSteps:
    def test_by_hand_is_the_prior_that_rightly_trains(self):
        """On a linear model one reference gives phi = (x - x') w wherever the path is read."""
        case = steps.Case("linear", lambda seed: nn.Linear(6, 1).double(), (6,), 4, "l2", 2.33)
        bench = steps.Bench(case, CPU)
        model = copy.deepcopy(bench.first)
        bench.background = torch.zeros(1, 6, dtype=torch.float64)
        penalty = bench._penalty(model, bench.inputs.double())
        expected = (bench.inputs.double() * model.weight).square().sum(1).mean()
        assert torch.allclose(penalty, expected, rtol=1e-6)
        term = rt.Term(rt.ExpectedGradients(rt.references.Constant(0.0)), rt.priors.L2(), 1.0)
        objective = rt.Objective(model, bench.loss, [term])
        ours = objective(bench.inputs.double(), bench.labels, part="prior").total
        (by_hand,), (by_rightly,) = (torch.autograd.grad(value, model.weight) for value in (penalty, ours))
        assert torch.allclose(by_hand, by_rightly, rtol=1e-5)

    def test_a_step_trains_and_double_backward_agrees_with_itself(self):
        bench = steps.Bench(SMALL, CPU)
        for name in ("plain", "by hand", "double-backward"):
            bench.variants()[name]()()
        assert bench.gradient_error("double-backward") < 1e-6
        assert bench.gradient_error("auto") < 1e-4
        assert "asked for" in bench.picked("double-backward")

    def test_without_the_peers_code_it_is_refused(self):
        with pytest.raises(FileNotFoundError, match="--peer"):
            steps.Bench(SMALL, CPU).attributionpriors()

    def test_every_case_can_be_built(self):
        for name, case in cases.STEPS.items():
            if name != "resnet":  # seconds
                bench = steps.Bench(case, CPU)
                assert bench.first(bench.inputs[:2]).shape == (2, 1 if case.tabular else 10)


def test_the_truth_is_complete():
    """Exact expected gradients sum to f(x) - E f(x')."""
    model = nn.Sequential(nn.Linear(5, 4), nn.Softplus(), nn.Linear(4, 1)).double()
    inputs, background = torch.randn(3, 5).double(), torch.randn(7, 5).double()
    found = posthoc.truth(posthoc.Trained(model, inputs, background))
    with torch.no_grad():
        expected = (model(inputs) - model(background).mean(0))[:, 0]
    assert torch.allclose(found.sum(1), expected, atol=1e-12)


def test_the_command_writes_after_every_case_and_goes_on(tmp_path, monkeypatch, capsys):
    ran = []

    def run(name, settings):
        ran.append(name)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return {key: value for key, value in made()["cases"]["cnn"].items() if key not in ("date", "commit", "seconds")}

    monkeypatch.setattr(cases, "run", run)
    monkeypatch.setattr(cases, "names", lambda: ["a", "b", "c"])
    out = tmp_path / "results.json"
    with pytest.raises(KeyboardInterrupt):
        command.main(["--out", str(out)])
    assert list(json.loads(out.read_text())["cases"]) == ["a"]
    assert command.main(["--out", str(out)]) == 0
    assert ran == ["a", "b", "b", "c"]
    assert command.main(["--out", str(out), "--only", "b"]) == 0
    assert ran[4:] == ["b"]
    assert list(json.loads(out.read_text())["cases"]) == ["a", "b", "c"]
    assert command.main(["--out", str(out), "--quick"]) == 2
    assert "measured otherwise (quick)" in capsys.readouterr().out


def test_the_list(capsys):
    assert command.main(["--list"]) == 0
    assert {"cnn", "mlp-100", "error-cnn", "bulk-mlp", "sweep"} <= set(capsys.readouterr().out.split())
