"""What the project wants to reach, and whether a result file shows it: losses stand beside wins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Cases = Mapping[str, Any]
Found = float | str

#: largest gradient error in float32 of what counts as exact; rounding may flip a unit at its kink
_EXACT = 1e-3


class Row(NamedTuple):
    """One line of the table. ``measured`` is a number, or why there is none."""

    case: str
    quantity: str
    by_hand: float | None
    peer: float | None
    measured: Found
    target: str
    met: bool | None


class Missing(LookupError):
    """A number is not in the results; the text says why."""


def rows(results: Mapping[str, Any]) -> list[Row]:
    """The whole table, measured or not."""
    cases = results["cases"]
    return [
        _ratio(cases, "cnn", "CNN, k = 1, exact", 2.4),
        _ratio(cases, "cnn-bn", "CNN with batch norm and dropout, k = 1, exact", 2.4),
        _ratio(cases, "mlp-1", "MLP, k = 1, exact", 2.2),
        _mlp_100(cases),
        _ratio(cases, "resnet", "ResNet-18, batch norm frozen in attribution, k = 1, exact", 2.7),
        _ratio(cases, "transformer", "transformer encoder, k = 1, exact", 3.1),
        _ratio(cases, "transformer", "transformer encoder, k = 1, by differences", 2.9, "finite-differences", 0.005),
        _ratio(cases, "lstm", "LSTM, k = 1, exact", 4.0),
        _ratio(cases, "lstm", "LSTM, k = 1, by differences", 3.0, "finite-differences", 0.005),
        _ratio(cases, "right-reasons", "right reasons on the CNN", 2.0),
        _ratio(cases, "right-reasons-bn", "right reasons on the CNN with batch norm and dropout", 2.0),
        _ratio(cases, "fourth", "prior every 4th step, CNN", 1.4),
        _ratio(cases, "fourth-bn", "prior every 4th step, CNN with batch norm and dropout", 1.4),
        _row("sweep of the MLP, k = 1", "models a second / attributionpriors", lambda: _sweep(cases), 2.5, least=True),
        *(
            _row(
                f"post-hoc error at 256 evaluations, {label}",
                f"error / {peer}",
                lambda name=name, peer=peer: _error(cases, name, peer),
                limit,
            )
            for name, label, limit in (("error-mlp", "MLP", 0.4), ("error-cnn", "CNN", 0.6))
            for peer in ("captum", "shap")
        ),
        *(
            _row(
                f"bulk explanation at equal error, {label}",
                "speed / captum",
                lambda name=name: _bulk(cases, name),
                4.0,
                least=True,
            )
            for name, label in (("bulk-mlp", "MLP"), ("bulk-cnn", "CNN"))
        ),
        *_decomposition(cases),
    ]  # fmt: skip


def _decomposition(cases: Cases) -> list[Row]:
    """Against plain passes, and against the authors' package in the same run."""
    regions, tree, step = (f"decomposition-{name}" for name in ("regions", "hierarchy", "step"))
    spans = {size: f"decomposition-spans-{size}" for size in (64, 128)}
    names = {
        regions: "784 regions of a digit",
        **{case: f"all spans of 20 words, LSTM of {size}" for size, case in spans.items()},
        tree: "hierarchy of a 28 x 28 image",
        step: "training step with one region an example",
    }
    return [
        _row(names[regions], "time / plain pass of 784", lambda: _over(cases, regions, "rightly", "plain"), 2.0),
        *(
            _row(
                names[case],
                "time of acd / rightly",
                lambda case=case: _over(cases, case, "acd", "rightly"),
                limit,
                least=True,
            )
            for case, limit in ((regions, 50.0), *((case, 70.0) for case in spans.values()), (tree, 10.0))
        ),
        _row(names[step], "step / plain step", lambda: _over(cases, step, "rightly", "plain"), 3.0),
        _row(names[step], "memory / plain step", lambda: _over(cases, step, "rightly", "plain", "megabytes"), 3.0),
    ]


def _over(cases: Cases, name: str, variant: str, base: str, quantity: str = "ratio") -> float:
    """One variant of a case over another."""
    one, other = (_of(cases, name, which)[quantity] for which in (variant, base))
    return one / other if quantity == "megabytes" else one["median"] / other["median"]


def _row(case: str, quantity: str, look: Callable[[], float], limit: float, *, least: bool = False) -> Row:
    target = f"{'>=' if least else '<='} {limit:g}"
    try:
        measured = look()
    except Missing as reason:
        return Row(case, quantity, None, None, str(reason), target, None)
    return Row(case, quantity, None, None, measured, target, measured >= limit if least else measured <= limit)


def _ratio(cases: Cases, name: str, case: str, limit: float, engine: str = "auto", most_error: float = _EXACT) -> Row:
    """A step's ratio to plain; what is fast and wrong has not met its target."""
    row = _row(case, "step / plain step", lambda: _of(cases, name, engine)["ratio"]["median"], limit)
    if most_error > _EXACT:
        row = row._replace(target=f"{row.target}, gradient error < {most_error:.1%}")
    by_hand, peer = (_or_none(cases, name, variant) for variant in ("by hand", "attributionpriors"))
    row = row._replace(by_hand=by_hand, peer=peer)
    if row.met is None:
        return row
    error = _of(cases, name, engine).get("gradient_error")
    if error is None or error >= most_error:
        return row._replace(met=False, target=f"{row.target} (gradient error {error})")
    return row


def _mlp_100(cases: Cases) -> Row:
    """A third of the peer's time; or at most 30 MB at 0.7 of its time, by any exact engine."""
    target = "<= 1/3; or <= 30 MB at <= 0.7"
    row = Row("MLP, k = 100, exact", "time / attributionpriors", None, 1.0, "", target, None)
    try:
        peer = _of(cases, "mlp-100", "attributionpriors")["ratio"]["median"]
        auto = _of(cases, "mlp-100", "auto")["ratio"]["median"] / peer
    except Missing as reason:
        return row._replace(peer=None, measured=str(reason))
    by_hand = _or_none(cases, "mlp-100", "by hand")
    others = [
        v
        for v in cases["mlp-100"]["variants"].values()
        if v.get("gradient_error") is not None and v["gradient_error"] < _EXACT
    ]
    small = any(v["megabytes"] <= 30 and v["ratio"]["median"] <= 0.7 * peer for v in others)
    return row._replace(by_hand=by_hand and by_hand / peer, measured=auto, met=auto <= 1 / 3 or small)


def _sweep(cases: Cases) -> float:
    return _of(cases, "sweep", "rightly")["rate"]["median"] / _of(cases, "sweep", "attributionpriors")["rate"]["median"]


def _error(cases: Cases, name: str, peer: str) -> float:
    return _at(_of(cases, name, "rightly"), 256) / _at(_of(cases, name, peer), 256)


def _at(found: Mapping[str, Any], evaluations: int) -> float:
    if evaluations not in found["evaluations"]:
        raise Missing(f"not measured at {evaluations} evaluations")
    return found["error"][found["evaluations"].index(evaluations)]


def _bulk(cases: Cases, name: str) -> float:
    ours, captum = _of(cases, name, "rightly"), _of(cases, name, "captum")
    if ours["error"] > captum["error"]:
        raise Missing("captum's error was not reached")
    return ours["rate"]["median"] / captum["rate"]["median"]


def _of(cases: Cases, name: str, variant: str) -> Mapping[str, Any]:
    if name not in cases:
        raise Missing("not run")
    found = cases[name]["variants"].get(variant, {"refused": "not run"})
    if "refused" in found:
        raise Missing(f"{variant}: {found['refused']}")
    return found


def _or_none(cases: Cases, name: str, variant: str) -> float | None:
    try:
        return _of(cases, name, variant)["ratio"]["median"]
    except Missing:
        return None
