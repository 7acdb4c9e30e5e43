"""The measures of explanations that ``rt.evaluate`` knows by name: what each needs, and how it is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from rightly.core.batch import Model
from rightly.core.citations import CITATIONS
from rightly.core.errors import ArgumentError
from rightly.core.gini import gini
from rightly.evaluation import axioms, localisation
from rightly.evaluation.ablation import ABLATION_METRICS, ablation
from rightly.evaluation.explainer import features
from rightly.evaluation.faithfulness import Gaussian, Removal, attribution_sensitivity, infidelity
from rightly.evaluation.importance import share_inside
from rightly.evaluation.sanity import model_randomisation, random_annotation_control
from rightly.evaluation.similarity import rank_correlation
from rightly.evaluation.stability import agreement
from rightly.evaluation.subject import (
    Missing,
    Subject,
    again,
    annotated,
    changed_inputs,
    changed_models,
    module,
    near,
    other_seeds,
    random_labels,
    tabular,
    tabular_labelled,
)


@dataclass(frozen=True)
class Measure:
    """A measure of explanations.

    Attributes:
        name: in tables and on the command line.
        summary: one line.
        higher_is_better: its direction; None where neither is.
        bounds: the values that it can take, which an interval is cut to.
        citation: key into the bibliography.
        take: subject -> a value for each example (B,), NaN where it has none, or one number for all of them.
        missing: subject -> why it cannot be taken; empty if it can.
        default: whether it is taken when nobody asks for measures by name.
    """

    name: str
    summary: str
    higher_is_better: bool | None
    bounds: tuple[float, float]
    citation: str
    take: Callable[[Subject], Tensor | float]
    missing: Missing = field(default=lambda subject: "")
    default: bool = True

    def __post_init__(self) -> None:
        if self.citation not in CITATIONS:
            raise ArgumentError("unknown citation", expected=sorted(CITATIONS), got=self.citation)


def _infidelity(subject: Subject) -> Tensor:
    x = features(subject.inputs)
    change = Gaussian(subject.near)
    found = infidelity(
        subject.attributions,
        subject.values,
        x,
        change,
        n_samples=subject.n_samples,
        scaled=True,
        seed=subject.seed,
    )
    return found.relative


def _removal_infidelity(subject: Subject) -> Tensor:
    """What methods that multiply with a difference promise: features add up to what their removal does."""
    x = features(subject.inputs)
    mean = x.mean(0)
    off = x - mean
    slopes = torch.where(off != 0, subject.attributions / torch.where(off != 0, off, 1), 0)
    found = infidelity(
        slopes, subject.values, x, Removal(value=mean), n_samples=subject.n_samples, scaled=True, seed=subject.seed
    )
    return found.relative


def _sensitivity(subject: Subject) -> Tensor:
    explain = partial(subject.asked, subject.model)
    found = attribution_sensitivity(
        explain, features(subject.inputs), radius=subject.near, n_samples=min(10, subject.n_samples), seed=subject.seed
    )
    return found.largest


def _randomised(subject: Subject) -> Tensor:
    def explain(model: Model) -> Tensor:
        return subject.asked(model, subject.inputs).abs()

    if not isinstance(subject.model, nn.Module):
        raise ArgumentError("nothing to randomise", expected="a module", got=type(subject.model).__name__)
    return model_randomisation(subject.model, explain, seed=subject.seed)[-1].similarity


def _alike(subject: Subject) -> Tensor:
    found = [subject.asked(model, subject.inputs) for model in subject.seeds]
    return agreement([subject.attributions, *found]).rank_correlation


def _relabelled(subject: Subject) -> Tensor:
    if subject.relabelled is None:
        raise ArgumentError("nothing to compare with", expected="a model of labels in random order", got=None)
    return rank_correlation(subject.attributions.abs(), subject.asked(subject.relabelled, subject.inputs).abs())


def _inside(subject: Subject) -> Tensor:
    phi, region = subject.region("irrelevant")
    known = region.flatten(1).any(1)
    return torch.where(known, share_inside(phi, region), torch.nan)


def _placed(measure: Callable[[Tensor, Tensor], Tensor], subject: Subject) -> Tensor:
    return measure(*subject.region("relevant"))


def _control(subject: Subject) -> Tensor:
    phi, region = subject.region("relevant")
    rows = region.flatten(1).any(1)
    values = phi.new_full((len(phi),), torch.nan)
    if int(rows.sum()) < 2:
        return values  # there is no other example to take a region from
    found = random_annotation_control(localisation.energy_pointing_game, phi[rows], region[rows], seed=subject.seed)
    values[rows] = found.control
    return values


def _ablated(name: str, subject: Subject) -> float:
    """Of a single output labels 0 and 1 are classes, any others values."""
    labels, background = subject.labels, subject.background
    if background is None:
        raise ArgumentError("there are no other rows to replace features from", expected="background rows", got=None)
    binary = labels is not None and not bool(((labels != 0) & (labels != 1)).any())
    found = ablation(
        subject.read,
        features(subject.inputs),
        subject.attributions,
        background,
        labels,
        target=subject.target,
        metrics=[name],
        score="accuracy" if subject.target is not None else "auc" if binary else "r2",
        seed=subject.seed,
    )
    return found[name].area


def _of_ablation(name: str) -> str:
    action, direction, how = name.split("_")
    others = {"mask": "their mean", "resample": "other rows", "impute": "what the rest lets expect"}[how]
    what, chosen = "mean output (signed, in its unit)", f"the {direction} features"
    if direction == "absolute":
        what, chosen = "quality of predictions" if action == "keep" else "their loss of quality", "the largest features"
    rest = "all but " if action == "keep" else ""
    return f"{what} while {rest}{chosen} are replaced by {others}"


_SHARE, _ANY, _POSITIVE = (0.0, 1.0), (-torch.inf, torch.inf), (0.0, torch.inf)
_RELEVANT, _IRRELEVANT = partial(annotated, "relevant"), partial(annotated, "irrelevant")

_KNOWN = [
    Measure(
        "gini",
        "how concentrated an example's attribution is; 0 spread evenly",
        None,
        _SHARE,
        "hurley2009",
        lambda s: gini(s.attributions.flatten(1).double().abs()),
    ),
    Measure(
        "completeness",
        "by how much attributions miss what they should add up to; 1 is what none at all miss",
        False,
        _POSITIVE,
        "sundararajan2017",
        lambda s: axioms.completeness(s.asked, s.model, s.inputs).relative,
        again,
    ),
    Measure(
        "sensitivity",
        "attribution of features made irrelevant to the model; 1 is their even share",
        False,
        _POSITIVE,
        "sundararajan2017",
        lambda s: axioms.sensitivity(s.asked, s.model, s.inputs, seed=s.seed).relative,
        changed_models,
    ),
    Measure(
        "implementation_invariance",
        "difference when the same function is written otherwise; 1 is unrelated",
        False,
        _POSITIVE,
        "sundararajan2017",
        lambda s: axioms.implementation_invariance(s.asked, s.model, s.inputs, seed=s.seed).relative,
        changed_models,
    ),
    Measure(
        "linearity",
        "difference between a sum's attributions and the sum of attributions; 1 is unrelated",
        False,
        _POSITIVE,
        "sundararajan2017",
        lambda s: axioms.linearity(s.asked, s.model, s.inputs).relative,
        changed_models,
    ),
    Measure(
        "symmetry",
        "difference between features made interchangeable; 1 is unrelated",
        False,
        _POSITIVE,
        "erion2021",
        lambda s: axioms.symmetry(s.asked, s.model, s.inputs, seed=s.seed).relative,
        changed_models,
    ),
    Measure(
        "infidelity",
        "error in predicting what small changes of the input do, best scaled; favours gradients; 1 is what zeros give",
        False,
        _POSITIVE,
        "yeh2019",
        _infidelity,
        changed_inputs,
    ),
    Measure(
        "infidelity_removal",
        "error in predicting what setting features to their mean does, best scaled; 1 is what zeros give",
        False,
        _POSITIVE,
        "yeh2019",
        _removal_infidelity,
        changed_inputs,
        default=False,
    ),
    Measure(
        "max_sensitivity",
        "largest relative change of the explanation near the input",
        False,
        _POSITIVE,
        "yeh2019",
        _sensitivity,
        near,
    ),
    Measure(
        "model_randomisation",
        "rank correlation with the explanation of a model of random weights",
        False,
        (-1.0, 1.0),
        "adebayo2018",
        _randomised,
        module,
    ),
    Measure(
        "label_randomisation",
        "rank correlation with the explanation of a model trained on labels in random order",
        False,
        (-1.0, 1.0),
        "adebayo2018",
        _relabelled,
        random_labels,
    ),
    Measure(
        "seed_agreement",
        "rank correlation between the explanations of models that differ by their seed, mean over pairs",
        True,
        (-1.0, 1.0),
        "adebayo2018",
        _alike,
        other_seeds,
    ),
    Measure(
        "energy_pointing_game",
        "share of the positive attribution inside the relevant region",
        True,
        _SHARE,
        "wang2020",
        partial(_placed, localisation.energy_pointing_game),
        _RELEVANT,
    ),
    Measure(
        "random_annotation",
        "the same inside regions that belong to other examples",
        None,
        _SHARE,
        "wang2020",
        _control,
        _RELEVANT,
    ),
    Measure(
        "pointing_game",
        "whether the largest attribution is inside the relevant region",
        True,
        _SHARE,
        "zhang2016",
        partial(_placed, localisation.pointing_game),
        _RELEVANT,
    ),
    Measure(
        "rank_accuracy",
        "share of the largest attributions, as many as the relevant region has, inside it",
        True,
        _SHARE,
        "arras2022",
        partial(_placed, localisation.rank_accuracy),
        _RELEVANT,
    ),
    Measure(
        "iou",
        "overlap of the relevant region and the places above 15 % of the largest attribution",
        True,
        _SHARE,
        "selvaraju2017",
        partial(_placed, localisation.iou),
        _RELEVANT,
    ),
    Measure(
        "inside",
        "share of the absolute attribution inside the irrelevant region",
        False,
        _SHARE,
        "ross2017",
        _inside,
        _IRRELEVANT,
    ),
    *(
        Measure(
            name,
            _of_ablation(name),
            True,
            _ANY,
            "erion2021",
            partial(_ablated, name),
            tabular_labelled if "absolute" in name else tabular,
            default=name.endswith("mask"),
        )
        for name in ABLATION_METRICS
    ),
]

#: by name, in the order of a table
MEASURES = {measure.name: measure for measure in _KNOWN}
