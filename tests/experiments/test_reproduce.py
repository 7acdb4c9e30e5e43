"""Every reproduction runs from end to end in seconds, goes on after a kill, and tells what it cannot do."""

import ast
import itertools
import json
import os
import shutil
import signal
import time

import numpy as np
import pandas
import pytest

import rightly as rt
from rightly.core.errors import ArgumentError, CheckpointError, DataError, RightlyError
from rightly.report import read_figures, read_record
from rightly.workflows import reproduce as reproductions
from rightly.workflows import resumable
from rightly.workflows.reproduce import Trials, names, reproduce, summary

load_frame = rt.data.load_frame

RECIPES = {
    "awd-cosmology": None,
    "awd-filters": None,
    "awd-heartbeats": None,
    "benchmark-18": None,
    "black-pixels": None,
    "cdep-compas": None,
    "cdep-decoy-mnist": None,
    "cdep-patches": "stand-in",
    "cdep-sst-decoy": None,
    "cd-shapley": None,
    "cifar-attacks": None,
    "cifar-noise": None,
    "color-mnist": None,
    "convergence-two-features": None,
    "decoy-mnist": None,
    "decoy-mnist-ladder": None,
    "drug-response-graph": "simulated",
    "fashion-free": None,
    "hessian-2d": None,
    "imagenet-finetune": "stand-in",
    "iris-cancer": None,
    "latent-squares": None,
    "leukemia-graph": None,
    "lime-speed": None,
    "mnist-attacks": None,
    "mnist-hierarchy": None,
    "mnist-noise": None,
    "newsgroups": None,
    "nhanes-sparsity": "nhefs",
    "nhanes-sparsity-2019": "nhefs",
    "notmnist-attacks": "stand-in",
    "planted-interactions": None,
    "sampling-convergence": None,
    "sst-hierarchy": None,
    "sst-phrases": None,
    "toy-colors": None,
    "tree-signal": None,
    "trim-cosmology": None,
    "trim-frequency": None,
    "trim-topics": None,
    "two-moons": None,
    "two-quadrants": None,
}


def drawn_arrays(name, *, data_dir=None):
    """What a recipe loads, drawn: digits, untrained weights; CIFAR-10's pictures are drawn by ``drawn_pictures``."""
    if name == "cifar10_resnet20":
        state = rt.models.ResNet20(seed=0).state_dict()
        return {key: value.numpy() for key, value in state.items() if "num_batches" not in key}
    if name == "lognormal_kappa_cls":
        grid = np.array([(0.2, 0.7), (0.2, 0.8), (0.25, 0.7), (0.25, 0.8)])
        ell = np.arange(0, 6010, 10)
        return {"params": grid, "ell": ell, "cl": grid[:, :1] ** 2 * grid[:, 1:] * 1e-5 / (1 + ell) ** 2}
    if name == "ecg5000_train":
        return drawn_beats()
    if name == "leukemia_all_vs_aml":
        return drawn_expression()
    return drawn_digits() if name == "mnist" else {}


def drawn_beats():
    """Series like ECG5000's in shape, but few: a bump that comes late in every other one."""
    labels = np.arange(80) % 2
    bumps = np.exp(-(((np.arange(140) - 40 - 60 * labels[:, None]) / 8) ** 2))
    noise = np.random.default_rng(1).normal(0, 0.3, bumps.shape)
    return {"x": (bumps + noise).astype(np.float32), "y": (1 + labels).astype(np.uint8)}


def drawn_expression():
    """48 samples of 60 genes like the leukaemia data's in shape: pairs of linked genes, of which ten tell the class."""
    draws = np.random.default_rng(2)
    labels = np.arange(48) % 2
    logs = draws.normal(9, 1, (48, 60))
    logs[:, :10] += 2 * labels[:, None]
    genes = np.array(["FAH", "ZYX", *(f"G{i}" for i in range(2, 60))])
    return {"x": 2**logs, "y": labels.astype(np.uint8), "genes": genes, "edges": np.arange(60).reshape(30, 2)}


def drawn_posts(*, words=5000, data_dir=None):
    """Posts like the newsgroups' in shape: two words tell the group, one of them in the header."""
    draws = np.random.default_rng(3)
    names = ("host", "grace", *(f"word{i}" for i in range(28)))

    def vectors(texts):
        counts = np.array([[text.split().count(name) for name in names] for text in texts], dtype=np.float32)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1)

    def part(count):
        labels = np.arange(count) % 2
        heads = ["host" if label == 0 else "" for label in labels]
        bodies = [" ".join([*draws.choice(names[2:], 12), *["grace"] * int(label)]) for label in labels]
        texts = [f"{head}\n\n{body}" for head, body in zip(heads, bodies, strict=True)]
        return rt.data.Posts(tuple(texts), vectors(texts), vectors(bodies), labels.astype(np.int64))

    inside = np.array([1.0, *[0.0] * 29])
    return rt.data.Newsgroups(part(120), part(60), names, inside, ("alt.atheism", "soc.religion.christian"), vectors)


def drawn_pictures(arrays, part, *, classes=tuple(range(10)), most=None):
    """Pictures like CIFAR-10's in shape, ordered by class: a bright bar of a colour and a place that tell the class."""
    draws = np.random.default_rng(len(part))
    labels = np.arange(100) // 10
    images = draws.integers(0, 60, (len(labels), 3, 32, 32))
    for image, label in zip(images, labels, strict=True):
        image[label % 3, 6 + label : 14 + label, 6:26] += 150
    kept = np.concatenate([np.flatnonzero(labels == name)[:most] for name in sorted(classes)])
    return images.astype(np.uint8)[kept], labels[kept]


def drawn_treebank(*, data_dir=None):
    """Sentences like the treebank's in shape: what is good and what is bad, with and without "not", and all phrases."""
    draws = np.random.default_rng(4)

    def part(count):
        texts = []
        for number in range(count):
            head = ["not", "very"][: number % 3]
            texts.append([*draws.choice(["the", "film", "it"], 12), *head, ["bad", "good"][number % 2], "."])
        return rt.data.Sentences(texts, np.array([1 + 2 * (number % 2) for number in range(count)]))

    train = part(120)
    spans = [text[i:j] for text in train.texts for i in range(len(text)) for j in range(i + 1, len(text) + 1)]
    phrases = {" ".join(span): int(draws.integers(5)) for span in spans}
    return rt.data.SentimentTreebank(train, part(30), part(30), phrases)


def drawn_frame(name, *, data_dir=None):
    """COMPAS, drawn: more earlier charges of one race, which tell; other tables as they are."""
    if name != "compas_two_years":
        return load_frame(name, data_dir=data_dir)
    draws, rows = np.random.default_rng(6), np.arange(240)
    black = rows % 2
    priors = draws.poisson(1 + 2 * black)
    return pandas.DataFrame(
        {
            "race": np.where(black == 1, "African-American", "Caucasian"),
            "sex": np.where(rows % 3 == 0, "Female", "Male"),
            "age_cat": np.array(["Less than 25", "25 - 45", "Greater than 45"])[rows % 3],
            "c_charge_degree": np.where(rows % 5 == 0, "M", "F"),
            "c_charge_desc": np.where(rows % 4 == 0, "Grand Theft", None),
            "priors_count": priors,
            "days_b_screening_arrest": np.where(rows % 40 == 39, np.nan, -1.0),
            "is_recid": 0,
            "two_year_recid": (priors + draws.normal(0, 1, len(rows)) > 2).astype(int),
        }
    )


def drawn_vectors(vocabulary, *, data_dir=None):
    return np.random.default_rng(5).normal(size=(len(vocabulary), 8)).astype(np.float32)


def draw_data(patch):
    patch.setattr(rt.data, "sentiment_treebank", drawn_treebank)
    patch.setattr(rt.data.Vocabulary, "vectors", drawn_vectors)
    patch.setattr(rt.data, "load_arrays", drawn_arrays)
    patch.setattr(rt.data, "load_frame", drawn_frame)
    patch.setattr(rt.data, "cifar10_images", drawn_pictures)
    patch.setattr(rt.data, "newsgroups", drawn_posts)
    patch.setattr(time, "perf_counter", itertools.count().__next__)  # what the clock says is the same in every run


def drawn_digits():
    """Pictures like MNIST's in shape: a bright bar at a place that tells the class."""
    draws = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 320), ("test", 300)):
        labels = np.arange(count) % 10
        images = draws.integers(0, 60, (count, 28, 28))
        for image, label in zip(images, labels, strict=True):
            image[6 + label : 12 + label, 6:22] += 150
        arrays |= {f"x_{part}": images.astype(np.uint8), f"y_{part}": labels.astype(np.uint8)}
    return arrays


@pytest.fixture
def digits(monkeypatch):
    draw_data(monkeypatch)


def smoke(name, out, **arguments):
    return reproduce(name, out=out, dataset=RECIPES[name], smoke=True, progress=False, **arguments)


def without_times(value):
    """A record without what the clock wrote."""
    if isinstance(value, dict):
        return {key: without_times(entry) for key, entry in value.items() if key not in ("created", "seconds")}
    return [without_times(entry) for entry in value] if isinstance(value, list) else value


class Finished(dict):
    """Each recipe's folder, run once, when it is first asked for."""

    def __init__(self, factory):
        super().__init__()
        self.factory = factory

    def __missing__(self, name):
        with pytest.MonkeyPatch.context() as patch:
            draw_data(patch)
            self[name] = smoke(name, self.factory.mktemp(name))
        return self[name]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return Finished(tmp_path_factory)


def test_every_recipe_is_tested():
    assert set(names()) == set(RECIPES)
    assert all(40 < len(line) < 125 for line in names().values())


@pytest.mark.parametrize("name", RECIPES)
def test_runs_from_end_to_end(name, finished):
    folder = finished[name]
    record, figures = read_record(folder), read_figures(folder)
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert record["rerun"].startswith(f"rightly reproduce {name}")
    assert record["notes"][0] == record["reduction"]
    assert figures["tables"][0]["columns"] == ["Claim", "Paper", "Ours", "Verdict"]
    assert not (folder / "checkpoints").exists() or not list((folder / "checkpoints").iterdir())
    told = summary(folder)
    for claim in record["claims"]:
        assert claim["claim"] in told
        assert claim["verdict"] in told
        assert claim["published"] is reproductions.is_published(claim["paper"])
        assert not (claim["published"] and "(ours)" in claim["claim"])
    assert record["reduction"] in told


@pytest.mark.parametrize("name", RECIPES)
def test_a_killed_run_goes_on_to_the_same_record(name, finished, digits, tmp_path):
    lines = (finished[name] / "trials.jsonl").read_text().splitlines(keepends=True)
    kept = len(lines) - 2
    (tmp_path / "trials.jsonl").write_text("".join(lines[:kept]) + lines[kept][:40])
    smoke(name, tmp_path, resume=True)
    assert without_times(read_record(tmp_path)) == without_times(read_record(finished[name]))
    assert without_times(read_figures(tmp_path)) == without_times(read_figures(finished[name]))
    assert len((tmp_path / "trials.jsonl").read_text().splitlines()) == len(lines)


#: for each recipe, its runs with a term
TRAINED = {
    "awd-cosmology": (),
    "awd-filters": (),
    "awd-heartbeats": (),
    "cd-shapley": (),
    "tree-signal": (),
    # pixels drawn at random and parts of decompositions take no engine; the others are few steps of little data
    "color-mnist": (),
    "trim-cosmology": (),
    "trim-frequency": (),
    "trim-topics": ("topics", "random", "words"),
    "benchmark-18": (),
    "black-pixels": (),
    "convergence-two-features": (
        *(f"eg{k}" for k in range(1, 6)),
        *("gradient", "log_gradient", "ig2", "ig4", "ig4_gauss"),
    ),
    "sampling-convergence": (),
    "mnist-hierarchy": (),
    "sst-hierarchy": (),
    "sst-phrases": (),
    "cdep-compas": ("right_reasons",),
    "cdep-decoy-mnist": ("right_reasons", "eg"),
    "cdep-patches": ("right_reasons",),
    # an LSTM has one engine only
    "cdep-sst-decoy": (),
    "cifar-attacks": ("l1_1", "l2_1"),
    "cifar-noise": ("eg", "eg_black", "ig", "gradient"),
    "hessian-2d": (),
    "imagenet-finetune": ("eg", "gradient"),
    "decoy-mnist": ("right_reasons", "balance"),
    "decoy-mnist-ladder": (
        *("right_reasons", "reasons_loss", "reasons_logit", "reasons_predicted", "energy", "hint"),
        *("random_other", "random_place", "small_reasons", "cnn_reasons", "cnn_grad_cam"),
    ),
    "fashion-free": ("right_reasons", "grad_cam", "energy", "random"),
    "latent-squares": (),
    "toy-colors": ("right_reasons", "always_50"),
    "two-quadrants": (),
    "drug-response-graph": ("graph_lasso", "graph_eg", "graph_gradient", "random_eg", "l2_eg"),
    "iris-cancer": ("right_reasons", "random"),
    "lime-speed": (),
    "newsgroups": ("headers", "leaned_on", "random"),
    "leukemia-graph": ("graph_lasso", "graph_eg", "graph_gradient", "random_eg", "l2_eg"),
    "mnist-attacks": ("certainty", "double", "both"),
    "mnist-noise": ("eg", "eg_black", "ig", "gradient"),
    "notmnist-attacks": ("certainty", "double", "both"),
    "nhanes-sparsity": (
        *("l1_eg", "l2_eg", "gini_eg", "mixed_eg"),
        *("l1_grad", "gini_grad", "l1_ross", "gini_ross"),
    ),
    "nhanes-sparsity-2019": ("gini_eg",),
    # a prior on interactions knows one engine, which its record does not name
    "planted-interactions": (),
    "two-moons": ("dapr", "l1", "gini"),
}


def learned(record, run):
    """What tells two trained networks apart most finely: how concentrated or smooth their explanations are."""
    explanations = record["runs"][run]["explanations"].values()
    return [value for entry in explanations if isinstance(entry, dict) for value in entry["values"]]


@pytest.mark.parametrize("name", [name for name, runs in TRAINED.items() if runs])
def test_no_engine_changes_what_is_learned(name, finished, digits, tmp_path):
    own, asked = (read_record(f) for f in (finished[name], smoke(name, tmp_path, engine="double-backward")))
    assert "--engine double-backward" in asked["rerun"]
    assert "--engine" not in own["rerun"]
    for run, record in asked["runs"].items():
        if run not in TRAINED[name]:
            assert record["engines"] == own["runs"][run]["engines"] == {}
            assert learned(asked, run) == learned(own, run)
            continue
        assert set(record["engines"].values()) == {"double-backward: asked for"}
        assert all(text.startswith("frozen-masks: ") for text in own["runs"][run]["engines"].values())
        assert learned(asked, run) == pytest.approx(learned(own, run), rel=1e-5)
        # fine enough to see the prior itself, at this size as well
        assert learned(asked, run) != pytest.approx(learned(own, "plain"), rel=1e-4)
        for metric, found in record["metrics"]["test"].items():
            expected = own["runs"][run]["metrics"]["test"][metric]["values"]
            assert found["values"] == pytest.approx(expected, abs=0.01), (run, metric)


def test_the_engine_belongs_to_the_run(finished, tmp_path):
    with pytest.raises(CheckpointError, match="another run"):
        smoke("decoy-mnist", finished["decoy-mnist"], resume=True, engine="double-backward")
    with pytest.raises(ArgumentError, match="frozen-masks"):
        reproduce("decoy-mnist", out=tmp_path, engine="turbo")
    assert not list(tmp_path.iterdir())


def test_finished_trials_are_not_repeated(finished, tmp_path, monkeypatch):
    shutil.copy(finished["mnist-noise"] / "trials.jsonl", tmp_path)
    monkeypatch.setattr(rt, "fit", lambda *_, **__: pytest.fail("trained again"))
    smoke("mnist-noise", tmp_path, resume=True)


def test_an_earlier_run_is_not_overwritten(finished):
    with pytest.raises(ArgumentError, match="earlier run"):
        smoke("nhanes-sparsity", finished["nhanes-sparsity"])


def test_another_runs_trials_are_refused(finished):
    with pytest.raises(CheckpointError, match="another run"):
        smoke("nhanes-sparsity", finished["nhanes-sparsity"], resume=True, seed=1)


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match="decoy-mnist"):
        reproduce("decoy-minst", out=tmp_path)
    with pytest.raises(ArgumentError, match="of its own"):
        reproduce("decoy-mnist", out=tmp_path, dataset="nhefs")
    with pytest.raises(ArgumentError, match="nhanes, nhanes-15-years"):
        reproduce("nhanes-sparsity", out=tmp_path, dataset="titanic")
    assert not list(tmp_path.iterdir())


def test_an_installed_copy_says_where_the_recipes_are(tmp_path, monkeypatch):
    monkeypatch.setattr(reproductions, "EXPERIMENTS", tmp_path / "experiments")
    assert names() == {}
    with pytest.raises(RightlyError, match="source checkout"):
        reproduce("decoy-mnist", out=tmp_path)


def test_real_data_fits_the_recipe(tmp_path):
    place = rt.data.available()["nhanes1_shap_subset"]
    if place.startswith("not here"):
        pytest.skip("NHANES I is not here: set RIGHTLY_DATA to a folder that holds nhanes1_shap_subset.csv.gz")
    record = read_record(reproduce("nhanes-sparsity", out=tmp_path, smoke=True, progress=False))
    assert record["data"]["rows"] == 9535
    assert record["data"]["split"] == {"train": 100, "validation": 100, "test": 9335}


def test_absent_data_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("RIGHTLY_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    with pytest.raises(DataError, match="RIGHTLY_DATA"):
        reproduce("nhanes-sparsity", out=tmp_path / "run", smoke=True, progress=False)


def test_trials_are_kept_as_they_finish(tmp_path):
    path, seen = tmp_path / "trials.jsonl", []

    def work(key):
        seen.append(key["x"])
        if key["x"] == 2:
            raise KeyboardInterrupt
        return {"y": key["x"] / 3}

    keys = [{"x": x} for x in range(4)]
    with pytest.raises(KeyboardInterrupt):
        Trials(path, {"name": "t"}, resume=False, progress=False).run("t", keys, work)
    rows = Trials(path, {"name": "t"}, resume=True, progress=False).run("t", keys, lambda key: {"y": key["x"] / 3})
    assert seen == [0, 1, 2]
    assert [row["y"] for row in rows] == [x / 3 for x in range(4)]
    assert [json.loads(line).get("trial") for line in path.read_text().splitlines()] == [None, *keys]


def slow(key):
    return {"y": key["x"] / 3, "process": os.getpid()}


def test_workers_share_the_trials_and_one_writes_them(tmp_path):
    keys = [{"x": x} for x in range(7)]
    rows = Trials(tmp_path / "trials.jsonl", {}, resume=False, progress=False, workers=3).run("t", keys, slow)
    assert [(row["x"], row["y"]) for row in rows] == [(x, x / 3) for x in range(7)]
    assert len({row["process"] for row in rows}) == 3
    assert os.getpid() not in {row["process"] for row in rows}
    assert len((tmp_path / "trials.jsonl").read_text().splitlines()) == 1 + 7
    again = Trials(tmp_path / "trials.jsonl", {}, resume=True, progress=False).run("t", keys, lambda key: {}["again"])
    assert again == rows


@pytest.mark.parametrize("how", ["raises", "is killed"])
def test_a_worker_that_fails_is_told_and_what_came_before_is_kept(tmp_path, monkeypatch, how):
    monkeypatch.setattr(resumable, "_LOOK", 0.1)
    path = tmp_path / "trials.jsonl"

    def work(key):
        if key["x"] == 3:
            os.kill(os.getpid(), signal.SIGKILL) if how == "is killed" else {}["planted"]
        return slow(key)

    keys = [{"x": x} for x in range(4)]
    with pytest.raises(RightlyError, match="planted" if how == "raises" else "exit code -9"):
        Trials(path, {}, resume=False, progress=False, workers=2).run("t", keys, work)
    kept = len(path.read_text().splitlines()) - 1
    assert 1 <= kept <= 3
    rows = Trials(path, {}, resume=True, progress=False, workers=2).run("t", keys, slow)
    assert [row["y"] for row in rows] == [x / 3 for x in range(4)]


def test_workers_change_no_result(finished, tmp_path):
    shared = smoke("nhanes-sparsity", tmp_path, workers=2)
    assert without_times(read_record(shared)) == without_times(read_record(finished["nhanes-sparsity"]))
    assert without_times(read_figures(shared)) == without_times(read_figures(finished["nhanes-sparsity"]))


#: what a recipe may take from beside ``rt``: tests and intervals, trials and claims, what the noise studies share
PUBLIC = {
    # what an optional package is imported by, with the extra's name where it is missing
    "rightly.core.extras",
    "rightly.discovery",
    "rightly.evaluation",
    "rightly.integrations.lime",
    "rightly.workflows.attack_report",
    "rightly.workflows.attack_study",
    "rightly.workflows.attack_thesis",
    "rightly.workflows.contests",
    "rightly.workflows.cosmology_study",
    "rightly.workflows.exact_study",
    "rightly.workflows.group_report",
    "rightly.workflows.group_study",
    "rightly.workflows.noise_report",
    "rightly.workflows.noise_study",
    "rightly.workflows.reason_study",
    "rightly.workflows.reproduce",
    "rightly.workflows.sentiment_study",
    "rightly.workflows.sparsity_study",
    "rightly.workflows.wording",
}


def test_recipes_use_the_public_api_only():
    for path in reproductions.EXPERIMENTS.glob("*/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if module and module.startswith("rightly."):
                assert module in PUBLIC, (path.name, module)
                assert not any(alias.name.startswith("_") for alias in node.names), path.name


def test_recipes_cannot_be_imported():
    assert not list(reproductions.EXPERIMENTS.glob("**/__init__.py"))


def test_bounds_are_kept_broken_or_neither():
    for low, high, told in (
        (0.2, 0.3, True),
        (0.05, 0.3, None),
        (0.0, 0.05, False),
        (0.6, 0.7, False),
        (0.4, 0.6, None),
    ):
        assert reproductions.bounded({"low": low, "high": high}, least=0.1, most=0.5) is told
    assert reproductions.bounded({"low": 0.1, "high": 0.5}, least=0.1, most=0.5)


def test_several_claims_are_harder_to_show():
    tests = [rt.evaluation.compare([0.0] * 3, values) for values in ([0.8, 1, 1.2], [-1, 1, 2], [1, 1, 1])]
    found = reproductions.adjusted(tests)
    assert [one.p for one in found] == rt.evaluation.adjust([one.p for one in tests])
    assert found[0].p == pytest.approx(2 * tests[0].p)
    assert [one.difference for one in found] == [one.difference for one in tests]


def test_claims_of_ours_are_counted_apart():
    def told(*papers):
        claims = [reproductions.Claim("c", paper, "1", holds) for paper, holds in papers]
        outcome = reproductions.Outcome("t", "q", "Small.", {}, {}, {}, claims)
        return reproductions._conclusion(outcome)

    assert told(("5", True), ("none", False), ("not published", True))[0] == (
        "1 of 2 published claims, 1 of 1 claims that are ours alone hold here. Small."
    )
    assert told(("5", True))[0] == "1 of 1 published claims hold here. Small."
    assert told(("not given", None)) == [
        "0 of 1 claims that are ours alone hold here. Small.",
        "Not shown. c: 1.",
    ]


@pytest.mark.parametrize(
    ("paper", "expected"),
    [("-", False), ("not published", False), ("not in the paper", False), ("55 %", True), ("in words", True)],
)
def test_a_statement_of_ours_is_not_the_papers(paper, expected):
    assert reproductions.Claim("it works", paper, "it does", True).published is expected
