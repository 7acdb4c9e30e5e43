"""Randomness that is the caller's."""

import contextlib
import random

import numpy as np
import torch

from rightly.core import seeding


def test_seeds_are_the_same_on_every_machine():
    """Literals: printf step/3 | sha256sum, the first sixteen hexadecimal digits, halved."""
    assert seeding.mix("step", 3) == 8211204913743405431
    assert seeding.mix(0) == 3456079177858693020
    assert seeding.mix("step", 3) != seeding.mix("step3")
    assert all(0 <= seeding.mix(i) < 2**63 for i in range(100))
    assert len({seeding.mix(i) for i in range(1000)}) == 1000


def test_generators_depend_on_their_parts_only():
    first = torch.rand(3, generator=seeding.generator("a", 1))
    torch.rand(1, generator=seeding.generator("b"))
    assert torch.equal(first, torch.rand(3, generator=seeding.generator("a", 1)))
    assert not torch.equal(first, torch.rand(3, generator=seeding.generator("a", 2)))


def test_the_global_state_is_guarded():
    before = torch.get_rng_state()
    with seeding.guarded("x"):
        first = torch.rand(3)
    with seeding.guarded("x"):
        again = torch.rand(3)
    with seeding.guarded():
        torch.rand(3)
    try:
        with seeding.guarded():
            torch.rand(3)
            raise KeyError
    except KeyError:
        pass
    assert torch.equal(first, again)
    assert torch.equal(before, torch.get_rng_state())


def test_other_libraries_states_are_guarded_too():
    def everything():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()  # noqa: NPY002

    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    found = []
    for seed in ("x", "x", "y"):
        with contextlib.suppress(KeyError), seeding.guarded_everywhere(seed):
            found.append(everything())
            raise KeyError
    assert found[0] == found[1]
    assert all(first != other for first, other in zip(found[0], found[2], strict=True))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
