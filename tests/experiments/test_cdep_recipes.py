"""The CDEP recipes: decoys are planted as told, controls mark what means nothing, race is hidden and exchanged."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

import rightly as rt
from rightly.core.annotation import Annotation
from rightly.core.errors import AnnotationError
from rightly.objectives import Batch
from rightly.workflows import reproduce as reproductions
from rightly.workflows.sentiment_study import HiddenWords, Reader

TEXTS = [["a", "good", "film"], ["the", "film", "that", "the", "critics", "hate"]]


def recipe(name):
    path = reproductions.EXPERIMENTS / f"singh2022/{name}.py"
    spec = importlib.util.spec_from_file_location("recipe", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def words():
    return recipe("cdep_sst_decoy")


def decoyed(words, name, rule, seed=0):
    sentences = rt.data.Sentences(TEXTS, np.array([4, 0]))
    return words.decoyed(sentences, words.DECOYS[name], rule, np.random.Generator(np.random.PCG64(seed)))


def test_a_word_is_put_in_between_and_its_place_told(words):
    for seed in range(5):
        for rule, told in (("label", ("text", "video")), ("wrong", ("video", "text"))):
            texts, places = decoyed(words, "words", rule, seed)
            assert tuple(text[place] for text, place in zip(texts, places, strict=True)) == told
            rest = [[*text[:place], *text[place + 1 :]] for text, place in zip(texts, places, strict=True)]
            assert rest == TEXTS
    assert decoyed(words, "words", "none") == (TEXTS, [-1, -1])


def test_articles_become_another_word_but_for_the_first(words):
    assert decoyed(words, "articles", "label") == (
        [["a", "good", "film"], ["the", "film", "that", "that", "critics", "hate"]],
        [0, 0],
    )
    assert decoyed(words, "articles", "wrong")[0] == [
        ["the", "good", "film"],
        ["a", "film", "that", "that", "critics", "hate"],
    ]
    assert decoyed(words, "articles", "none") == (
        [["that", "good", "film"], ["that", "film", "that", "that", "critics", "hate"]],
        [-1, -1],
    )


def test_a_random_word_is_neither_the_decoy_nor_padding(words):
    tokens = torch.tensor([[5, 6, 7, 0, 0], [5, 6, 7, 8, 9]])
    decoys = (torch.arange(5) == torch.tensor([[1], [4]])).unsqueeze(2)
    seen = set()
    for seed in range(60):
        marks = words.random_words(words.Part(tokens, torch.tensor([0, 1]), decoys), seed)
        assert marks.sum((1, 2)).tolist() == [1, 1]
        seen |= {(row, place) for row, place, _ in marks.nonzero().tolist()}
    assert seen == {(0, 0), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3)}


def reader():
    torch.manual_seed(0)
    return Reader(torch.randn(12, 4), 6)


def test_hidden_words_are_compared_with_the_same_dropout():
    model, tokens = reader(), torch.tensor([[5, 6, 7, 0], [5, 8, 9, 10], [3, 4, 5, 6]])
    marks = torch.zeros(3, 4, 1)
    marks[0, 1] = marks[1, 3] = 1
    hidden = tokens.clone()
    hidden[0, 1] = hidden[1, 3] = 1
    batch = Batch(tokens, annotation=Annotation(irrelevant=marks))
    model.eval()
    expected = (model(tokens).softmax(1) * (model(tokens).log_softmax(1) - model(hidden).log_softmax(1))).sum(1)
    found = HiddenWords().of(model, batch)
    torch.testing.assert_close(found, expected)
    assert found[2] == 0
    assert (found[:2] > 1e-6).all()
    found.sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in (model.scores.weight, model.embedding.weight))
    # a word that is unknown already: nothing is hidden, and dropout makes no difference of its own
    model.train()
    unknown = torch.ones_like(tokens)
    same = HiddenWords().of(model, Batch(unknown, annotation=Annotation(irrelevant=torch.ones(3, 4, 1))))
    torch.testing.assert_close(same, torch.zeros(3))
    with pytest.raises(AnnotationError, match="irrelevant"):
        HiddenWords().of(model, Batch(tokens))


def test_patches_are_moved_away_whole():
    patches = torch.zeros(40, 1, 32, 32, dtype=torch.bool)
    draws = torch.Generator().manual_seed(0)
    for patch, (top, left) in zip(patches, torch.randint(0, 25, (40, 2), generator=draws).tolist(), strict=True):
        patch[0, top : top + 8, left : left + 8] = True
    moved = recipe("cdep_patches").elsewhere(patches, 1)
    assert (moved.sum((1, 2, 3)) == 64).all()
    assert not (moved & patches).any()
    assert not torch.equal(moved, recipe("cdep_patches").elsewhere(patches, 2))


def test_the_place_that_means_nothing_never_overlaps_a_patch():
    """However large the patch: ISIC's may fill most of a picture, or be several."""
    patches = torch.zeros(4, 1, 32, 32, dtype=torch.bool)
    patches[0, 0, :, 3:17] = True
    patches[1, 0, 4:12, ::2] = patches[1, 0, 20:24] = True
    patches[2, 0, :26, :30] = True
    moved = recipe("cdep_patches").elsewhere(patches, 0)
    assert not (moved & patches).any()
    # as large wherever there is room; nothing is marked in a picture without a patch
    assert moved.sum((1, 2, 3)).tolist()[:2] == patches.sum((1, 2, 3)).tolist()[:2]
    # what is free of the third patch is 6 rows and 2 columns; another 6 and 2 cross them in 24 pixels
    assert int(moved[2].sum()) == 32 * 32 - 26 * 30 - 24
    assert not moved[3].any()


def test_no_seed_tests_on_rows_that_choose_strengths():
    patches, compas = recipe("cdep_patches"), recipe("cdep_compas")
    settings = reproductions.Settings("smoke", 3, None, "isic", "auto", None)
    rows = torch.arange(200)
    lesions = patches.Part(rows[:, None, None, None].float(), rows % 2, (rows % 4 == 0)[:, None, None, None])
    people = compas.Part(rows[:, None].float(), rows % 2, rows % 6)

    def split(seed):
        parts = patches._isic_rows(lesions, seed, settings)
        yield parts.train.inputs, parts.validation.inputs, parts.tests["all"].inputs
        yield tuple(part.inputs for part in compas.split(people, seed, settings))

    for first, second in zip(split(3), split(4), strict=True):
        assert torch.equal(first[1], second[1])
        assert not torch.equal(first[2], second[2])
        assert sorted(torch.cat([part.flatten() for part in second]).tolist()) == rows.tolist()


def test_half_of_a_class_is_patched_and_the_test_both_ways():
    patches = recipe("cdep_patches")
    images = np.random.default_rng(0).random((400, 3, 32, 32)).astype(np.float32) / 2
    labels = np.arange(400) % 2
    settings = reproductions.Settings("smoke", 0, None, "stand-in", "auto", None)
    parts = patches._rows({"train": (images, labels), "test": (images, labels)}, 3, settings)
    for part, label in ((parts.train, 0), (parts.validation, 0), (parts.tests["all"], 0), (parts.tests["swapped"], 1)):
        assert int(part.patched.sum()) == int((part.labels == label).sum()) // 2 > 0
        assert (part.labels[part.patched] == label).all()
        # nothing but the patch is changed, and that to one of six colours
        inside = part.inputs.transpose(0, 1)[:, part.patches[:, 0]]
        assert set(inside.unique().tolist()) == {0.0, 1.0}
        assert float(part.inputs.transpose(0, 1)[:, ~part.patches[:, 0]].max()) < 0.5
    assert not parts.tests["bare"].patched.any()
    assert torch.equal(parts.tests["bare"].inputs, parts.tests["all"].inputs[~parts.tests["all"].patched])


def test_patches_are_pasted_into_bare_pictures_of_either_class():
    patches = recipe("cdep_patches")
    inputs, labels = torch.arange(200.0)[:, None, None, None].expand(-1, 3, 6, 6), torch.arange(200) % 2
    where = torch.zeros(200, 1, 6, 6, dtype=torch.bool)
    where[:60:2, 0, 1:3, 2:4] = True
    found = patches.pasted(patches.Part(inputs, labels, where), 0)
    assert len(found.labels) == 170
    assert 0.3 < float(found.patched[found.labels == 1].float().mean()) < 0.7
    assert 0.3 < float(found.patched[found.labels == 0].float().mean()) < 0.7
    bare = inputs[~where.flatten(1).any(1)]
    inside = found.patches.expand_as(bare)
    assert torch.equal(found.inputs[~inside], bare[~inside])
    assert set(found.inputs[inside].unique().tolist()) <= set(range(0, 60, 2))
    assert len(found.inputs[inside].unique()) > 5


def test_race_is_hidden_exchanged_and_counted_by():
    compas = recipe("cdep_compas")
    inputs = torch.zeros(4, len(compas.FACTS))
    inputs[[0, 1], compas.BLACK] = inputs[2, compas.WHITE] = inputs[3, 3] = 1
    inputs[:, 11] = torch.tensor([5.0, 1.0, 6.0, 7.0])
    part = compas.Part(inputs, torch.tensor([0, 0, 0, 1]), inputs[:, :6].argmax(1))
    assert not part.hidden[:, :6].any()
    assert torch.equal(part.hidden[:, 6:], inputs[:, 6:])
    other = compas._exchanged(inputs)
    assert other[:, :6].argmax(1).tolist() == [compas.WHITE, compas.WHITE, compas.BLACK, 3]
    assert torch.equal(other[:, 6:], inputs[:, 6:])
    assert compas._false_positives(torch.tensor([1, 0, 0, 1]), part, compas.BLACK) == 0.5
    assert compas._false_positives(torch.tensor([1, 0, 0, 1]), part, compas.WHITE) == 0
    assert compas._false_positives(torch.tensor([1, 0, 1, 1]), part, compas.WHITE) == 1


def test_nobody_is_praised_for_saying_the_same_of_everybody():
    """Of a network that says nothing the ratio is neither told nor judged; of one that says something it is both."""
    compas = recipe("cdep_compas")

    def rows(black, white):
        rates = {"black_visible": black, "white_visible": white, "ratio_visible": black / white if white else 1.0}
        rates |= {key.replace("visible", "hidden"): value for key, value in rates.items()}
        rates |= {"accuracy_hidden": 0.6, "kept": 0.9}
        shifts = (1 + 0.01 * black * seed for seed in range(5))
        return [{key: value * shift for key, value in rates.items()} for shift in shifts]

    every = {name: rows(0.4, 0.2) for name in compas.WAYS}
    every |= {"cdep": rows(0.3, 0.25), "published": rows(0.01, 0.01), "cdep_l1": rows(0.99, 0.99)}
    found = compas.Found([], dict.fromkeys(compas.WAYS, 0.0), every)
    study = compas.Study(ways=compas.WAYS, work=None, seeds=range(5), tried=1, rule="validation", told="")
    made = {
        (contest.key, contest.second): claim
        for contest, claim in zip(compas._CONTESTS, compas._claims(study, found), strict=True)
    }
    assert made["ratio_visible", "cdep"].holds is made["ratio_hidden", "cdep"].holds is True
    assert made["ratio_visible", "published"].holds is None
    assert "0.010 / 0.010 against 0.403 / 0.202" in made["ratio_visible", "published"].ours
    table = {row[0]: row[1:] for row in compas._rates(study, found)["rows"]}
    assert table["Plain"][2].startswith("2.0")
    for way in ("published", "cdep_l1"):
        assert table[compas.WAYS[way].title][2::3] == ["not told", "not told"]


def test_whoever_is_never_shown_race_decides_without_it():
    compas = recipe("cdep_compas")
    draws = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 3, (400, len(compas.FACTS)), generator=draws).float()
    inputs[:, :6] = nn.functional.one_hot(torch.arange(400) % 6, 6)
    labels = (inputs[:, 11] + torch.randn(400, generator=draws) > 1).long()
    settings = reproductions.Settings("smoke", 0, None, None, "auto", None)
    everyone = compas.Part(inputs, labels, inputs[:, :6].argmax(1))
    found = compas._trial(compas.WAYS["blind"], (), 0, everyone, settings)
    assert found["kept"] == 1
    assert found["accuracy_visible"] == found["accuracy_hidden"]
