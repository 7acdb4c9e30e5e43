"""Posts of two newsgroups as TF-IDF vectors, with which words stand in their headers (Ross 2018, section 2.3.2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rightly.core.checks import check_count
from rightly.core.extras import require
from rightly.data.catalogue import load_frame

#: an empty line; many posts of the stored copy have tabs for line breaks
_END = re.compile(r"\n\n|\t\t")

CLASSES = ("alt.atheism", "soc.religion.christian")


@dataclass(frozen=True)
class Posts:
    """One part of the posts.

    Attributes:
        texts: (N,), with headers.
        inputs: (N, F) float32, TF-IDF vectors of length 1 (or 0).
        bare: (N, F), of the same posts without their headers.
        labels: (N,) int64, positions in ``classes``.
    """

    texts: tuple[str, ...]
    inputs: np.ndarray
    bare: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Newsgroups:
    """Atheism against Christianity, split by date.

    Attributes:
        train, test: the posts.
        words: (F,) the vocabulary.
        in_headers: (F,) share of each word's occurrences in training posts that stand in a header.
        classes: names of labels 0 and 1.
        vectorize: any texts -> (N, F), weighed as the training posts are.
    """

    train: Posts
    test: Posts
    words: tuple[str, ...]
    in_headers: np.ndarray
    classes: tuple[str, str]
    vectorize: Callable[[Sequence[str]], np.ndarray]


def newsgroups(*, words: int = 5000, data_dir: str | Path | None = None) -> Newsgroups:
    """The two groups of 20 Newsgroups that the thesis reads, as TF-IDF vectors.

    Args:
        words: the most frequent ones of the training posts, as in the thesis.
        data_dir: a folder to look in first for ``newsgroups_atheism_christian``.

    Errors:
        DataError: the data set is not here.
        MissingExtraError: scikit-learn or pandas is not installed.
    """
    check_count("words", words)
    text = require("sklearn.feature_extraction.text")
    frame = load_frame("newsgroups_atheism_christian", data_dir=data_dir)
    parts = {name: frame[frame["split"] == name] for name in ("train", "test")}
    vectorizer = text.TfidfVectorizer(max_features=words, dtype=np.float32)
    vectorizer.fit(parts["train"]["text"])
    found = {}
    for name, part in parts.items():
        texts = tuple(part["text"])
        bare = [body(post) for post in texts]
        labels = (part["group"] == CLASSES[1]).to_numpy().astype(np.int64)
        whole, bodies = (vectorizer.transform(posts).toarray() for posts in (texts, bare))
        found[name] = Posts(texts, whole, bodies, labels)
    counter = text.CountVectorizer(vocabulary=vectorizer.vocabulary_)
    posts = found["train"].texts
    whole, inside = (np.asarray(counter.transform(p).sum(0))[0] for p in (posts, [header(post) for post in posts]))
    return Newsgroups(
        **found,
        words=tuple(vectorizer.get_feature_names_out()),
        in_headers=inside / np.maximum(whole, 1),
        classes=CLASSES,
        vectorize=lambda texts: vectorizer.transform(texts).toarray(),
    )


def header(post: str) -> str:
    """The lines before the first empty one: who posted what, where and when."""
    return _END.split(post, 1)[0]


def body(post: str) -> str:
    """What comes after the header."""
    return "".join(_END.split(post, 1)[1:])
