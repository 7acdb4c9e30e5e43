"""The priors that commands offer by name, with what each needs and how its weight is chosen by default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rightly.attributions import ExpectedGradients, Gradient
from rightly.core.citations import CITATIONS
from rightly.core.errors import ArgumentError
from rightly.core.scalar import Output, Target
from rightly.core.types import Reference
from rightly.objectives import Term
from rightly.objectives.term import Weight
from rightly.priors import L1, L2, Energy, Irrelevant, Sparsity, TotalVariation


@dataclass(frozen=True)
class Question:
    """What a case explains: the reference, and which number of the output."""

    reference: Reference
    output: Output
    target: Target


@dataclass(frozen=True)
class Choice:
    """A prior as a command offers it.

    Attributes:
        title, description: for a reader.
        needs: the annotation field it reads, ``""`` for none.
        images, tables: where it makes sense.
        weight: default rule. Annotated priors are balanced, since validation data that share the confounder reward
            it (Ross 2018, appendix 2.A).
        citation: key of the bibliography.
        make: the term.
    """

    title: str
    description: str
    needs: str
    images: bool
    tables: bool
    weight: Weight
    citation: str
    make: Callable[[Question, Weight], Term]

    def about(self, name: str, term: Term) -> dict[str, str]:
        """The record's description."""
        reference = getattr(term.attribution, "reference", None)
        return {
            "name": name,
            "description": self.description,
            "attribution": type(term.attribution).__name__,
            "reference": "none" if reference is None else type(reference).__name__,
            "citation": CITATIONS[self.citation],
        }


def _expected(question: Question, n_samples: int = 4) -> ExpectedGradients:
    return ExpectedGradients(question.reference, n_samples=n_samples, output=question.output, target=question.target)


def _right_reasons(question: Question, weight: Weight) -> Term:
    # a regression has no log-probabilities: its own gradient is penalised
    output: Output = "log_prob_sum" if question.output == "logit" else question.output
    return Term(Gradient(output=output), Irrelevant(), weight, "right-reasons")


CHOICES = {
    "sparsity": Choice(
        "few features",
        "a few features should carry the model (Gini coefficient of the importances)",
        "", False, True, "auto", "erion2021",
        lambda q, w: Term(_expected(q), Sparsity(), w, "sparsity"),
    ),
    "l1": Choice(
        "small attributions", "attributions should be small (sum of absolute values)",
        "", True, True, "auto", "erion2021",
        lambda q, w: Term(_expected(q), L1(), w, "l1"),
    ),
    "l2": Choice(
        "no dominant feature", "no feature should matter much (sum of squared loss gradients)",
        "", True, True, "auto", "drucker1992",
        lambda q, w: Term(Gradient(output="loss" if q.output == "logit" else q.output), L2(), w, "l2"),
    ),
    "smoothness": Choice(
        "smooth maps", "neighbouring pixels should matter alike (total variation of the attribution map)",
        "", True, False, "auto", "erion2021",
        lambda q, w: Term(_expected(q, 1), TotalVariation(), w, "smoothness"),
    ),
    "right-reasons": Choice(
        "right reasons", "what is marked as irrelevant should not matter (squared input gradients)",
        "irrelevant", True, True, "balance", "ross2017",
        _right_reasons,
    ),
    "energy": Choice(
        "looks inside", "the explanation should lie inside the marked region (share outside)",
        "relevant", True, False, "balance", "rao2023",
        lambda q, w: Term(_expected(q, 1), Energy(), w, "energy"),
    ),
}  # fmt: skip


def choose(name: str, *, images: bool) -> Choice:
    """The prior ``name``; an error that lists those that fit the data."""
    fitting = [key for key, choice in CHOICES.items() if (choice.images if images else choice.tables)]
    if name not in fitting:
        kind = "images" if images else "tables"
        raise ArgumentError(f"there is no prior {name!r} for {kind}", expected=", ".join(fitting), got=name)
    return CHOICES[name]
