"""Words as numbers, and the sentiment treebank."""

from __future__ import annotations

import numpy as np
import pytest

import rightly as rt
from rightly.core.errors import ArgumentError, DataError
from rightly.data.sentiment import words


def test_words_are_counted_and_padded_at_the_end():
    vocabulary = rt.data.Vocabulary.of([["a", "b", "a"], ["c", "a", "b"]], least=2)
    assert vocabulary.words == ["a", "b"]
    assert len(vocabulary) == 4
    assert vocabulary.numbers([["b", "z", "a"], ["a"]]).tolist() == [[3, 1, 2], [2, 0, 0]]


@pytest.mark.parametrize("texts", [[], [["a"], []]])
def test_texts_without_words_are_refused(texts):
    with pytest.raises(ArgumentError, match="need words"):
        rt.data.Vocabulary(["a"]).numbers(texts)


def test_vectors_are_those_of_their_words(monkeypatch):
    given = {"words": np.array(b"the\nfilm"), "emb": np.array([[1, 2], [3, 4]], np.float16)}
    monkeypatch.setattr("rightly.data.vocabulary.load_arrays", lambda name, data_dir=None: given)
    assert rt.data.Vocabulary(["film", "zzz"]).vectors().tolist() == [[0, 0], [0, 0], [3, 4], [0, 0]]
    given["words"] = np.array(b"the")
    with pytest.raises(DataError, match="damaged"):
        rt.data.Vocabulary(["film"]).vectors()


def test_lines_of_the_treebank_become_words():
    assert words("A slow\\/sad -LRB- too -RRB- Film .") == ["a", "slow/sad", "(", "too", ")", "film", "."]


def test_the_treebank_is_read_by_part(monkeypatch):
    pandas = pytest.importorskip("pandas")
    frames = {
        "sst_sentences": pandas.DataFrame(
            {"split": ["train", "dev", "test", "train"], "label5": [4, 0, 2, 2], "text": ["Good .", "Bad", "So", "Eh"]}
        ),
        "sst_train_phrases": pandas.DataFrame({"label5": [4, 3], "text": ["Good", None]}),
    }
    monkeypatch.setattr("rightly.data.sentiment.load_frame", lambda name, data_dir=None: frames[name])
    bank = rt.data.sentiment_treebank()
    assert bank.train.texts == [["good", "."], ["eh"]]
    assert bank.train.polar().texts == [["good", "."]]
    assert bank.validation.grades.tolist() == [0]
    assert bank.test.grades.tolist() == [2]
    assert bank.phrases == {"good": 4}


def test_the_real_treebank_has_its_published_size():
    if rt.data.available()["sst_sentences"].startswith("not here"):
        pytest.skip("the treebank is not here: set RIGHTLY_DATA to a folder that holds sst_sentences.csv.gz")
    bank = rt.data.sentiment_treebank()
    assert [len(part.grades) for part in (bank.train, bank.validation, bank.test)] == [8544, 1101, 2210]
    assert [len(part.polar().grades) for part in (bank.train, bank.validation, bank.test)] == [6920, 872, 1821]
    texts = bank.train.texts[:50]
    spans = {" ".join(text[i:j]) for text in texts for i in range(len(text)) for j in range(len(text) + 1)}
    assert len(spans & bank.phrases.keys()) > 1000
