"""What the measures are called, what they mean in plain English, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rightly.report.cleaning import Record


@dataclass(frozen=True)
class Word:
    """A measure: its label, its meaning in a sentence or two, and whether more is better (None: neither)."""

    label: str
    meaning: str
    higher: bool | None = None


#: the order here is the order in the tables
METRICS = {
    "auc": Word(
        "AUC",
        "The chance that the model ranks a randomly chosen positive case above a randomly chosen negative one. "
        "0.5 is guessing, 1 is perfect.",
        True,
    ),
    "average_precision": Word(
        "Average precision",
        "How many of the cases that the model flags are true cases, averaged over all thresholds. "
        "Guessing gives the share of true cases; 1 is perfect.",
        True,
    ),
    "c_index": Word(
        "C-index",
        "The chance that, of two people, the model gives the higher risk to the one with the earlier event. "
        "0.5 is guessing, 1 is perfect.",
        True,
    ),
    "accuracy": Word("Accuracy", "The share of test rows for which the model's answer is right.", True),
    "balanced_accuracy": Word(
        "Balanced accuracy", "The accuracy in each class, averaged, so that a rare class counts as much.", True
    ),
    "worst_group_accuracy": Word(
        "Worst-group accuracy", "The accuracy in the group of rows where the model does worst.", True
    ),
    "f1": Word("F1 score", "A balance of finding the true cases and not flagging others. 1 is perfect.", True),
    "log_loss": Word(
        "Log loss",
        "How surprised the model is by the true answers. 0 is perfect; confident mistakes cost most.",
        False,
    ),
    "brier": Word("Brier score", "The mean squared error of the predicted probabilities. 0 is perfect.", False),
    "ece": Word(
        "Calibration error", "How far the predicted probabilities are from what then happens, on average.", False
    ),
    "r2": Word(
        "R\u00b2",
        "The share of the outcome's variation that the model accounts for. "
        "1 is perfect, 0 is no better than the average.",
        True,
    ),
    "rmse": Word(
        "RMSE",
        "The typical size of an error, in the outcome's own unit (root mean square). Large errors count more.",
        False,
    ),
    "mae": Word("Mean absolute error", "The average size of an error, in the outcome's own unit.", False),
}

EXPLANATIONS = {
    "gini": Word(
        "Gini of importance",
        "How concentrated the model's reliance is. 0: all features matter equally; near 1: a few carry almost all.",
    ),
    "inside": Word(
        "Share inside the marked region",
        "The share of attribution that falls where a person marked the input as irrelevant. Lower is better.",
        False,
    ),
    "completeness_gap": Word(
        "Completeness gap",
        "By how much the attributions miss the output that they should add up to. "
        "Near 0: the explanation accounts for the whole prediction.",
    ),
    "total_variation": Word("Total variation", "How much the attribution jumps between neighbours. Lower is smoother."),
}

GLOSSARY = {
    "Attribution": "How much one feature (a column, a pixel) moved one prediction, and in which direction. "
    "It describes the model, not the world: a feature can be used without being a cause.",
    "Prior": "What a person expects of a good explanation, written as a penalty that is added during training.",
    "Weight": "How strongly the prior counts in training. 0 is plain training.",
    "Reference": "What 'not knowing a feature' means for the attribution: with which values it is replaced.",
    "Seed": "The starting point of the random numbers. Training again with another seed shows how much of a "
    "result is luck.",
    "95% interval": "The range of values that fit the data well. "
    "Repeated many times, 95 of 100 such ranges would hold the true value.",
    "p": "How often chance alone would give a difference at least this large, if there were none. "
    "0.05 or more is read here as 'no difference shown'.",
    "Training, validation, test rows": "The model learns from the first, settings are chosen on the second, "
    "and the results come from the third, which nothing else has touched.",
}


def row_noun(data: Record) -> str:
    """What one row of the data is called."""
    return "image" if data.get("kind") == "images" else "row"


def judged_rows(data: Record) -> str:
    """What the rows are called that models were judged on: nobody knows of given ones whether they were trained on."""
    noun = row_noun(data)
    return f"{noun}s given" if "given" in (data.get("split") or {}) else f"test {noun}s"


def word_of(name: str, data: Record | None = None) -> Word:
    """Look up a measure; one that is not known keeps its name and has no meaning to show.

    The meaning of AUC names the classes of the data when there are two.
    """
    word = METRICS.get(name) or EXPLANATIONS.get(name)
    if word is None:
        label = name.replace("_", " ").strip()
        return Word(label[:1].upper() + label[1:], "")
    classes = [str(entry) for entry in (data or {}).get("classes") or []]
    if name == "auc" and len(classes) == 2:
        negative, positive = classes
        meaning = (
            f"The chance that the model ranks a random row of \u201c{positive}\u201d above a random row of "
            f"\u201c{negative}\u201d. 0.5 is guessing, 1 is perfect."
        )
        return Word(word.label, meaning, word.higher)
    return word


def ordered(names: Any) -> list[str]:
    """Sort the names of measures: known ones first in the order of the tables above, then the rest by name."""
    known = [*METRICS, *EXPLANATIONS]
    return sorted(names, key=lambda name: (known.index(name) if name in known else len(known), name))


def better(name: str, entry: Record) -> bool | None:
    """Whether more of the measure is better: as the comparison says, else as this table says, else None."""
    declared = entry.get("higher_is_better")
    return declared if declared is not None else word_of(name).higher
