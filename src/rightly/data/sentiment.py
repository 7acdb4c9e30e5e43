"""The Stanford Sentiment Treebank: sentences of film reviews, and what people said of every phrase in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rightly.data.catalogue import load_frame


@dataclass(frozen=True)
class Sentences:
    """Sentences of one part.

    Attributes:
        texts: N lists of words, in lower case.
        grades: (N,) from 0, very negative, to 4, very positive.
    """

    texts: list[list[str]]
    grades: np.ndarray

    def polar(self) -> Sentences:
        """Those that are not neutral: the binary task, whose label is ``grades > 2``."""
        kept = np.flatnonzero(self.grades != 2)
        return self.take(kept)

    def take(self, index: np.ndarray) -> Sentences:
        """The sentences of these numbers."""
        return Sentences([self.texts[i] for i in index], self.grades[index])


@dataclass(frozen=True)
class SentimentTreebank:
    """Socher et al. (2013).

    Attributes:
        train, validation, test: the official parts.
        phrases: grade of every labelled phrase of the training sentences, by its words joined with blanks.
    """

    train: Sentences
    validation: Sentences
    test: Sentences
    phrases: dict[str, int]


def sentiment_treebank(*, data_dir: str | Path | None = None) -> SentimentTreebank:
    """Load it through the catalogue. Errors as for ``load``; pandas is needed."""
    frame = load_frame("sst_sentences", data_dir=data_dir)
    phrases = load_frame("sst_train_phrases", data_dir=data_dir).dropna()

    def part(name: str) -> Sentences:
        rows = frame[frame["split"] == name]
        return Sentences([words(text) for text in rows["text"]], rows["label5"].to_numpy())

    known = {" ".join(words(text)): int(grade) for text, grade in zip(phrases["text"], phrases["label5"], strict=True)}
    return SentimentTreebank(part("train"), part("dev"), part("test"), known)


def words(text: str) -> list[str]:
    """The words of a line of the treebank, which stand apart already: in lower case, brackets and slashes as such."""
    plain = text.replace("\\/", "/").replace("-lrb-", "(").replace("-rrb-", ")")
    return plain.replace("-LRB-", "(").replace("-RRB-", ")").lower().split()
