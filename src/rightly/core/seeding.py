"""Randomness that is the caller's: generators from named seeds; the global state is left as it was found."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


def mix(*parts: object) -> int:
    """A 63-bit seed from any parts (numbers, names), the same on every machine and in every session."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: object) -> torch.Generator:
    """A CPU generator seeded from ``parts``. Draws are made on the CPU, so that every device sees the same ones."""
    return torch.Generator().manual_seed(mix(*parts))


@contextmanager
def guarded(*seed: object) -> Iterator[Callable[[], bool]]:
    """Run the body with its own global PyTorch state (seeded if ``seed`` is given) and put the old one back.

    Layers like dropout read the global state and take no generator; this is the one place that touches it. The body
    is given a function that tells whether it has drawn numbers so far.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        if seed:  # without an accelerator, torch.manual_seed takes a tenth of a millisecond to leave one a message
            (torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed)(mix(*seed))
        before = _states(devices)
        yield lambda: not all(map(torch.equal, before, _states(devices)))


def _states(devices: Sequence[int]) -> list[torch.Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]


@contextmanager
def guarded_everywhere(*seed: object) -> Iterator[None]:
    """The same for NumPy's and Python's global states as well, which other libraries draw from."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with guarded(*seed):
            np.random.seed(mix(*seed) % 2**32)  # noqa: NPY002
            random.seed(mix(*seed))
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
