"""Planted defects in engines, each wrong in one way that training alone would not show."""

from __future__ import annotations

from functools import partial

import rightly as rt
from contracts import engines, zoo
from rightly.core import autodiff
from rightly.core.engines import DoubleBackward, FiniteDifferences, TwoPhase
from rightly.core.frozen import FrozenMasks


class HalfGraph(DoubleBackward):
    """The right attributions, with half of their gradient."""

    def gradient(self, read, value_of, points):
        found = super().gradient(read, value_of, points)
        return (found + found.detach()) / 2


class OtherValues(DoubleBackward):
    """The right gradient, of attributions that are a little off."""

    def gradient(self, read, value_of, points):
        return super().gradient(read, value_of, points) + 1e-6


class ForgottenChunk(TwoPhase):
    """Two phases whose second one leaves the last chunk out."""

    def total(self, parts):
        last = parts[-1](False).detach()
        return super().total(parts[:-1]) + last


class Fixed(FiniteDifferences):
    """Differences whose step stays where it was put."""

    def __setattr__(self, name, value):
        if name != "step" or "step" not in vars(self):
            super().__setattr__(name, value)


def _two_phase(kind, case, chunk):
    parameters = [p for p in case.model.parameters() if p.requires_grad]
    return kind(DoubleBackward(), chunk, lambda: parameters, partial(autodiff.reading, case.model, trainable=True))


def _engine(make):
    def run():
        case = zoo.piecewise()
        engines.check_engine(make(case), case, rt.ExpectedGradients(n_samples=3, output="loss"))

    return run


def _refused(name):
    return lambda: engines.check_refused(FrozenMasks(), zoo.case(name), rt.Gradient())


def _objective(weight):
    def terms(engine):
        return [rt.Term(rt.Gradient(), rt.priors.L2(), 2.0 if engine == "double-backward" else weight, engine=engine)]

    return lambda: engines.check_objective(zoo.piecewise, terms)


def _differences(kind, **settings):
    def run():
        case = zoo.case("gelu")
        case = zoo.Case(case.model.float().eval(), case.inputs.float(), case.labels)
        parameters = list(case.model.parameters())
        engine = kind(lambda: parameters, partial(autodiff.reading, case.model, trainable=False), **settings)
        engines.check_differences(engine, case, rt.ExpectedGradients(n_samples=2))

    return run


def _memory(chunk):
    def run():
        case = zoo.case("gelu", batch=2)
        engines.check_memory(lambda: _two_phase(TwoPhase, case, chunk), case, 64, 512)

    return run


#: name -> (check, on what is wrong, on what is right, what it says)
CONTROLS = {
    "an engine with half of the gradient": (
        engines.check_engine,
        _engine(lambda case: HalfGraph()),
        _engine(lambda case: FrozenMasks()),
        "parameter gradients",
    ),
    "an engine with other attributions": (
        engines.check_engine,
        _engine(lambda case: OtherValues()),
        _engine(lambda case: DoubleBackward()),
        "attributions",
    ),
    "two phases that forget a chunk": (
        engines.check_engine,
        _engine(lambda case: _two_phase(ForgottenChunk, case, 4)),
        _engine(lambda case: _two_phase(TwoPhase, case, 4)),
        "parameter gradients",
    ),
    "a model that is taken": (engines.check_refused, _refused("mlp"), _refused("gate"), "was taken"),
    "an engine that trains on more": (engines.check_objective, _objective(2.01), _objective(2.0), "off by"),
    "differences too far apart": (
        engines.check_differences, _differences(Fixed, step=10.0), _differences(Fixed, step=1e-3), "off by"
    ),
    "chunks that hold everything": (engines.check_memory, _memory(10**6), _memory(64), "times the memory"),
}  # fmt: skip
