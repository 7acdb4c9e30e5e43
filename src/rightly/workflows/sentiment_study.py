"""What the recipes on the sentiment treebank share: a network that reads sentences, and the scores of their phrases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rightly import data
from rightly.attributions import (
    Attribution,
    ContextualDecomposition,
    ExpectedGradients,
    Hierarchy,
    InputXGradient,
    IntegratedGradients,
    phrase_scores,
)
from rightly.core import autodiff, seeding
from rightly.core.annotation import needed
from rightly.core.batch import outputs_of, tensors
from rightly.data import Sentences, SentimentTreebank, Vocabulary
from rightly.data.vocabulary import UNKNOWN
from rightly.objectives import Objective
from rightly.objectives.model_term import Batch, ModelTerm
from rightly.objectives.perturbed import divergence
from rightly.objectives.term import Schedule, Weight
from rightly.priors.base import Level
from rightly.references import Constant, Sample
from rightly.spaces import Layer
from rightly.training import fit

EMBEDDING = Layer("embedding")
#: what the record says of the data
TREEBANK: dict[str, Any] = {
    "name": "Stanford Sentiment Treebank, polar sentences",
    "source": "Socher et al. 2013",
    "kind": "custom",
    "rows": 9613,
    "label": "positive",
    "task": "classification",
}


class Reader(nn.Module):
    """Word vectors, an LSTM, and two scores from its state at the last word; padding at the end is not read."""

    def __init__(self, vectors: Tensor, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(vectors.clone(), freeze=False, padding_idx=0)
        self.lstm = nn.LSTM(vectors.shape[1], width, batch_first=True)
        self.dropout = nn.Dropout(0.5)
        self.scores = nn.Linear(width, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) word numbers -> (B, 2)."""
        states = self.lstm(self.embedding(tokens))[0]
        last = (tokens != 0).sum(1) - 1
        return self.scores(self.dropout(states[torch.arange(len(tokens), device=tokens.device), last]))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class HiddenWords(ModelTerm):
    """The sentence gets the same answer when its irrelevant words are not known: ``recipes.agreement`` for words.

    Both answers are trained, and read with the same dropout; a sentence without irrelevant words counts zero. The
    annotation is (B, T, 1).
    """

    weight: Weight = 1.0
    name: str = "hidden_words"
    schedule: Schedule = field(default_factory=Schedule)

    @property
    def level(self) -> Level:
        """A number a sentence."""
        return "example"

    @property
    def about(self) -> str:
        """In words."""
        return "agreement with irrelevant words hidden"

    def of(self, model: nn.Module, batch: Batch) -> Tensor:
        """The divergence of each sentence's two answers (B,)."""
        (tokens,) = tensors(batch.inputs)
        region, _ = needed(batch.annotation, "irrelevant", tokens.unsqueeze(2).float())
        hidden = torch.where(region[..., 0] > 0, UNKNOWN, tokens)
        draws = batch.generator or seeding.generator("hidden words")
        drawn = int(torch.randint(2**62, (), generator=draws))
        answers = []
        for sentence in (hidden, tokens):
            with seeding.guarded(drawn), autodiff.own_buffers(model):
                answers.append(outputs_of(model(sentence)))
        return torch.where(region.flatten(1).any(1), divergence(*answers), 0)


@dataclass(frozen=True)
class Corpus:
    """The treebank as a study uses it.

    Attributes:
        bank: the treebank.
        vocabulary: of the training sentences.
        train: the polar training sentences that a network learns from.
        held_out: polar training sentences that it does not see: their phrases have labels.
        validation, test: the polar sentences of the official parts.
    """

    bank: SentimentTreebank
    vocabulary: Vocabulary
    train: Sentences
    held_out: Sentences
    validation: Sentences
    test: Sentences

    @classmethod
    def load(cls, data_dir: Path | None, held_out: int, seed: int, most: int | None = None) -> Corpus:
        """``held_out`` sentences are drawn by ``seed``; ``most`` keeps so many training sentences only."""
        bank = data.sentiment_treebank(data_dir=data_dir)
        polar = bank.train.polar()
        order = np.random.default_rng(seed).permutation(len(polar.grades))
        train = polar.take(np.sort(order[held_out:][:most]))
        return cls(
            bank,
            Vocabulary.of(train.texts),
            train,
            polar.take(np.sort(order[:held_out])),
            bank.validation.polar(),
            bank.test.polar(),
        )

    def numbers(self, text: list[str]) -> Tensor:
        """One sentence's word numbers (1, T)."""
        return torch.from_numpy(self.vocabulary.numbers([text]))

    def examples(self, sentences: Sentences) -> tuple[Tensor, Tensor]:
        """Word numbers (N, T) and labels (N,), 1 for positive."""
        return (
            torch.from_numpy(self.vocabulary.numbers(sentences.texts)),
            torch.from_numpy((sentences.grades > 2).astype(np.int64)),
        )


def train_reader(
    corpus: Corpus, seed: int, *, epochs: int, width: int = 128, data_dir: Path | None = None
) -> tuple[Reader, dict[str, float]]:
    """A network that learnt from whole sentences only, and its accuracies; the best validated epoch is kept."""
    with seeding.guarded("sentiment", seed):
        model = Reader(torch.from_numpy(corpus.vocabulary.vectors(data_dir=data_dir)), width)
    fit(
        Objective(model, cross_entropy, seed=seed),
        corpus.examples(corpus.train),
        corpus.examples(corpus.validation),
        epochs=epochs,
        batch_size=50,
        lr=1e-3,
        seed=seed,
    )
    parts = {"validation": corpus.validation, "test": corpus.test, "held_out": corpus.held_out}
    accuracies = {}
    for name, part in parts.items():
        tokens, labels = corpus.examples(part)
        accuracies[name] = float((read(model, tokens).argmax(1) == labels).double().mean())
    return model, accuracies


def read(model: Reader, tokens: Tensor) -> Tensor:
    """Scores (N, 2) of sentences, as they are read after training."""
    with autodiff.reading(model, trainable=False), torch.no_grad():
        return torch.cat([model(part) for part in tokens.split(500)])


def log_odds(outputs: Tensor, labels: Tensor | None) -> Tensor:
    """How positive a sentence is: (B, 2) -> (B,)."""
    return outputs[:, 1] - outputs[:, 0]


Scorer = Callable[[Reader, Tensor], Tensor]


def scorers(corpus: Corpus, seed: int) -> dict[str, Scorer]:
    """Ways to score all spans of one sentence (1, T): (T, T), positive speaks for a good review."""
    words = torch.from_numpy(np.concatenate([corpus.vocabulary.numbers([text])[0] for text in corpus.train.texts]))

    def of(score: Any) -> Scorer:
        return lambda model, tokens: phrase_scores(model, tokens, score=score, space=EMBEDDING, output=log_odds)

    def attribution(cls: type[Attribution], **further: Any) -> Scorer:
        return of(cls(space=EMBEDDING, output=log_odds, **further))

    def expected(model: Reader, tokens: Tensor) -> Tensor:
        """Against sentences of the same length, of words drawn from the training sentences."""
        draws = seeding.generator("references", seed)
        drawn = words[torch.randint(len(words), (100, tokens.shape[1]), generator=draws)]
        return attribution(ExpectedGradients, reference=Sample(drawn), n_samples=len(drawn))(model, tokens)

    return {
        "cd": attribution(ContextualDecomposition),
        "cd_shapley": attribution(ContextualDecomposition, convention="shapley"),
        "cd_reference": attribution(ContextualDecomposition, convention="reference"),
        "expected_gradients": expected,
        "integrated_gradients": attribution(IntegratedGradients, reference=Constant(0.0), n_steps=50),
        "gradient_x_input": attribution(InputXGradient),
        "occlusion": of("occlusion"),
        "build_up": of("build_up"),
    }


_NEGATIONS = frozenset({"not", "n't", "never", "no", "hardly", "without"})
_ENDS = frozenset({",", ".", ";", ":", "--", "...", "!", "?", "and", "but", "or", "that", "which", "who", "``", "''"})


def negations(text: list[str], most: int = 4) -> list[tuple[int, int]]:
    """Where a negation and what it negates stand: from the negation to the next mark or connective, both included.

    At most ``most`` negated words.
    """
    found = []
    for first, word in enumerate(text):
        last = first
        while last + 1 < len(text) and last - first < most and text[last + 1] not in _ENDS:
            last += 1
        if word in _NEGATIONS and last > first:
            found.append((first, last))
    return found


def rows_of(tree: Hierarchy) -> list[dict[str, Any]]:
    """The phrases of a hierarchy for the report: a group stands one row above the highest of its parts."""
    heights: list[int] = []
    found = []
    for node in tree.nodes:
        heights.append(1 + max((heights[part] for part in node.parts), default=-1))
        places = node.atoms.nonzero()[:, 0].tolist()
        found.append({"first": places[0], "last": places[-1], "score": node.score, "row": heights[-1]})
    return found
