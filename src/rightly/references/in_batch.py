"""The other examples of the batch as references."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rightly.core.registry import register
from rightly.core.types import Centre, Draw, View


@register("reference", citation="erion2021")
@dataclass(frozen=True)
class InBatch:
    """Sample k of example b is example b + k + 1 of the same batch (a roll, as in the authors' TensorFlow code).

    No extra data is read. The batches have to be shuffled, which every training loader does. More samples than
    other examples go round again; a batch of one is its own reference, and its attributions are zero.
    """

    def draw(self, view: View, n_samples: int, generator: torch.Generator) -> Draw:
        """See ``Reference.draw``; the shuffling of the batch is the only randomness."""
        x = view.coordinates
        batch = len(x)
        others = max(batch - 1, 1)
        centre = Centre.without_replacement(lambda: (x.sum(0) - x) / others, n_samples, others) if batch > 1 else None
        return Draw(n_samples, lambda rows, k: x[(rows + 1 + k % others) % batch], centre)
