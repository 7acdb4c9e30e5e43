"""Several models at once, their gradients at right angles to each other (Ross 2018, appendix 2.C)."""

from __future__ import annotations

from rightly.attributions import Gradient
from rightly.core.scalar import Output
from rightly.discovery.explanations import largest_gradient_mask
from rightly.discovery.question import Question
from rightly.discovery.result import Discovery, Finding
from rightly.objectives.independence import Ensemble, EveryMember, IndependenceTerm
from rightly.objectives.term import Weight


def all_at_once(question: Question, count: int, weight: Weight, output: Output, eps: float) -> Discovery:
    """Train ``count`` models together: see ``find_another_explanation``."""
    models = [question.model(number) for number in range(count)]
    term = IndependenceTerm(Gradient(space=question.space, output=output), weight, eps)
    run = question.fit(Ensemble(models), EveryMember(question.loss, count), [term], 0)
    findings = []
    for model in models:
        mask = largest_gradient_mask(question.gradients(model, question.compared), question.cutoff)
        marked = float(mask.float().mean())
        findings.append(Finding(model, run, run.weights[term.name], marked=marked, **question.scores(model)))
    return question.result(findings, f"{count} models were trained at once")
