"""One model after the other, each kept off the largest gradients of all before it (Ross 2018, section 2.2.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rightly.core.annotation import Annotation
from rightly.core.scalar import Output
from rightly.discovery.question import Question
from rightly.discovery.result import Discovery, Finding
from rightly.objectives.reasons import right_for_the_right_reasons
from rightly.objectives.term import Weight


def one_after_another(
    question: Question, most: int, weights: Sequence[Weight], output: Output, repeated: float
) -> Discovery:
    """Train until the models run out of reasons: see ``find_another_explanation``."""
    findings: list[Finding] = []
    union: Tensor | None = None
    while True:
        number = len(findings)
        found, mask = _next(question, number, union, weights, output)
        findings.append(found)
        union = mask if union is None else union | mask
        if reason := _enough(question, findings, most, repeated):
            return question.result(findings, reason)


def _next(
    question: Question, number: int, union: Tensor | None, weights: Sequence[Weight], output: Output
) -> tuple[Finding, Tensor]:
    """The next model, and the mask (N, *F) of its largest gradients."""
    model = question.model(number)
    if union is None:
        run, weight = question.fit(model, question.loss, [], number), 0.0
    else:
        chosen = weights[min(number, len(weights)) - 1]
        term = question.penalised(right_for_the_right_reasons(chosen), output)
        run = question.fit(model, question.loss, [term], number, (*question.train, Annotation(irrelevant=union)))
        weight = run.weights[term.name]
    mask = question.mask(model)
    again = None if union is None else float((mask & union).sum() / mask.sum().clamp_min(1))
    marked = float(mask.float().mean())
    return Finding(model, run, weight, marked=marked, repeated=again, **question.scores(model)), mask


def _enough(question: Question, findings: Sequence[Finding], most: int, repeated: float) -> str:
    """Why to stop; empty to go on."""
    last, first = findings[-1], findings[0]
    if last.score < first.score - question.tolerance:
        return f"accuracy fell: {last.score:.3f} after {first.score:.3f}"
    if last.repeated is not None and last.repeated >= repeated:
        return (
            f"explanations stopped changing: {last.repeated:.0%} of what model {len(findings)} marks was marked before"
        )
    if len(findings) > 1:
        similarity, _ = question.likeness([finding.model for finding in findings])
        closest = float(similarity[-1, :-1].max())
        if closest >= question.alike:
            return f"explanations stopped changing: mean cosine {closest:.2f} with an earlier model"
    return f"{most} models were asked for" if len(findings) == most else ""
