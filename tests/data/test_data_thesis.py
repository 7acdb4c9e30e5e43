"""Iris-Cancer and the newsgroups: what they hold is what the thesis says."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_iris

import rightly as rt
from rightly.core.errors import ArgumentError, DataError

#: the module: the package's name for it is the function's
module = import_module("rightly.data.newsgroups")


def test_iris_cancer_holds_two_data_sets_side_by_side():
    data, iris, cancer = rt.data.iris_cancer(), load_iris(), load_breast_cancer()
    assert data.inputs.shape == (100, 34)
    assert data.inputs.dtype == np.float32
    assert data.labels.tolist() == [0] * 50 + [1] * 50
    assert np.array_equal(data.inputs[:50, :4], iris.data[50:100].astype(np.float32))
    assert np.array_equal(data.inputs[50:, :4], iris.data[100:].astype(np.float32))
    for label in (0, 1):
        first = [row for row, target in zip(cancer.data, cancer.target, strict=True) if target == label][:50]
        assert np.array_equal(data.inputs[data.labels == label, 4:], np.asarray(first, dtype=np.float32))
    assert len(data.features) == len(set(data.features)) == 34
    assert [name.split()[0] for name in data.features] == ["iris"] * 4 + ["tumour"] * 30


def test_without_iris_only_the_iris_is_gone():
    data = rt.data.iris_cancer()
    before = data.inputs.copy()
    bare = data.without_iris(data.inputs)
    assert (bare[:, data.irrelevant] == 0).all()
    assert np.array_equal(bare[:, ~data.irrelevant], before[:, ~data.irrelevant])
    assert np.array_equal(data.inputs, before)
    assert bare.dtype == np.float32


POSTS = [
    ("train", "alt.atheism", "From: a@host.edu\nSubject: proof\n\nno proof of grace\n\nreally none"),
    ("train", "soc.religion.christian", "From: b@host.org\tSubject: grace\t\tgrace and grace\there"),
    ("test", "soc.religion.christian", "From: c@host.com\nSubject: x\n\ngrace\n"),
    ("test", "alt.atheism", "no empty line, so all of it is a header"),
]


@pytest.fixture
def posts(monkeypatch):
    frame = pd.DataFrame(POSTS, columns=["split", "group", "text"]).assign(doc=range(4))
    monkeypatch.setattr(module, "load_frame", lambda name, data_dir: frame)
    return rt.data.newsgroups(words=8)


def test_posts_are_vectors_of_the_most_frequent_words(posts):
    assert posts.words == tuple(sorted(posts.words))
    assert len(posts.words) == 8
    assert {"from", "grace", "host", "proof", "subject"} <= set(posts.words)
    assert posts.train.labels.tolist() == [0, 1]
    assert posts.test.labels.tolist() == [1, 0]
    for part in (posts.train, posts.test):
        assert part.inputs.dtype == np.float32
        assert np.linalg.norm(part.inputs[0]) == pytest.approx(1, abs=1e-6)
        assert np.array_equal(posts.vectorize(part.texts), part.inputs)


def test_a_post_of_other_words_is_zero(posts):
    assert (posts.test.inputs[1] == 0).all()


def test_headers_end_at_the_first_empty_line(posts):
    assert module.header(POSTS[0][2]) == "From: a@host.edu\nSubject: proof"
    assert module.body(POSTS[0][2]) == "no proof of grace\n\nreally none"
    assert module.header(POSTS[1][2]) == "From: b@host.org\tSubject: grace"
    assert module.body(POSTS[1][2]) == "grace and grace\there"
    assert (module.header(POSTS[3][2]), module.body(POSTS[3][2])) == (POSTS[3][2], "")
    at = {word: place for place, word in enumerate(posts.words)}
    assert posts.test.bare[0, at["grace"]] == pytest.approx(1)
    assert posts.test.bare[0, at["host"]] == 0 < posts.test.inputs[0, at["host"]]
    assert (posts.test.bare[1] == 0).all()


def test_words_know_how_often_they_stand_in_headers(posts):
    share = dict(zip(posts.words, posts.in_headers.tolist(), strict=True))
    assert share["from"] == share["host"] == share["subject"] == 1
    assert share["proof"] == 0.5
    assert share["grace"] == pytest.approx(1 / 4)
    with pytest.raises(ArgumentError, match="words counts"):
        rt.data.newsgroups(words=0)


def test_absent_posts_are_named(monkeypatch, tmp_path):
    monkeypatch.delenv("RIGHTLY_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    with pytest.raises(DataError, match="newsgroups_atheism_christian"):
        rt.data.newsgroups()


def test_the_stored_posts_are_the_thesis(monkeypatch):
    place = rt.data.available()["newsgroups_atheism_christian"]
    if place.startswith("not here"):
        pytest.skip("set RIGHTLY_DATA to a folder that holds newsgroups_atheism_christian.csv.gz")
    found = rt.data.newsgroups()
    assert (found.train.inputs.shape, found.test.inputs.shape) == ((1079, 5000), (717, 5000))
    assert found.train.labels.sum() == 599
    headers = [len(module.header(text)) / len(text) for text in found.train.texts]
    assert 0.05 < np.mean(headers) < 0.4  # as many have tabs for line breaks, a plain split would find no body
    assert 200 < (found.in_headers > 0.5).sum() < 500
