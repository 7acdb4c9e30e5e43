"""Words as numbers, and their vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, DataError
from rightly.data.catalogue import load_arrays

#: numbers of "no word" and "a word that is not known"
PADDING, UNKNOWN = 0, 1


class Vocabulary:
    """Numbers of words: 0 is padding, 1 an unknown word, the others are counted from 2.

    Attributes:
        words: by number, from 2 on.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = list(dict.fromkeys(words))
        self._numbers = {word: number for number, word in enumerate(self.words, 2)}

    @classmethod
    def of(cls, texts: Iterable[Sequence[str]], *, least: int = 1) -> Vocabulary:
        """The words that occur at least so often in these texts, each a list of words; the most frequent first."""
        check_count("least", least)
        counts = Counter(word for text in texts for word in text)
        return cls(word for word, count in counts.most_common() if count >= least)

    def __len__(self) -> int:
        """How many numbers there are, padding and unknown included."""
        return len(self.words) + 2

    def numbers(self, texts: Sequence[Sequence[str]]) -> np.ndarray:
        """(N, T) int64, T the longest text's length, padded at the end.

        Raises:
            ArgumentError: there is no text, or one without words.
        """
        if not len(texts) or not all(len(text) for text in texts):
            raise ArgumentError(
                "texts need words",
                expected="at least one text, each a list of words",
                got=f"{len(texts)} texts, {sum(not len(text) for text in texts)} of them empty",
                mend="drop texts without words",
            )
        found = np.full((len(texts), max(map(len, texts))), PADDING)
        for row, text in zip(found, texts, strict=True):
            row[: len(text)] = [self._numbers.get(word, UNKNOWN) for word in text]
        return found

    def vectors(self, *, data_dir: str | Path | None = None) -> np.ndarray:
        """The words' GloVe vectors (Pennington et al. 2014), (len(self), 50) float32.

        Padding is zero; so are words without a vector, as unknown words are. Errors as for ``load``.
        """
        given = load_arrays("glove6b_50d_subset", data_dir=data_dir)
        known: Mapping[str, int] = {
            word: row for row, word in enumerate(bytes(given["words"].item()).decode().split("\n"))
        }
        if len(known) != len(given["emb"]):
            raise DataError(
                "the word vectors are damaged",
                expected=f"{len(given['emb'])} words",
                got=len(known),
                mend="copy the file anew",
            )
        found = np.zeros((len(self), given["emb"].shape[1]), np.float32)
        for number, word in enumerate(self.words, 2):
            if word in known:
                found[number] = given["emb"][known[word]]
        return found
