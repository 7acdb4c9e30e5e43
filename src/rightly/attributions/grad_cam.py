"""Class activation maps weighted by gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.attributions.base import Attribution, Explanation
from rightly.attributions.problem import Problem
from rightly.core.batch import tensors
from rightly.core.errors import ShapeError
from rightly.core.registry import register
from rightly.core.scalar import Output, Target
from rightly.core.types import Space


@register("attribution", citation="selvaraju2017", traits=("images",))
class GradCam(Attribution):
    """Grad-CAM (Selvaraju et al. 2017), trainable through its weights as well as through the activations.

    The map is relu(sum over channels of the activation times its mean gradient), one channel, enlarged to the
    input's size. The published training losses detach the weights and so miss part of the gradient.

    Args:
        space: ``rt.spaces.Layer`` of a convolutional block, with output (B, C, *spatial).
        relu: keep only what speaks for the class.
        resize: enlarge to the input's spatial size (bilinear); False keeps the layer's.
    """

    def __init__(
        self,
        space: Space,
        *,
        relu: bool = True,
        resize: bool = True,
        output: Output = "logit",
        target: Target = "label",
    ) -> None:
        super().__init__(space, output, target)
        self.relu, self.resize = relu, resize

    def _explain(self, problem: Problem, generator: torch.Generator, diagnostics: bool) -> Explanation:
        x = problem.view.coordinates
        if x.ndim < 3:
            raise ShapeError(
                "Grad-CAM needs feature maps",
                expected="a layer with output (B, C, *spatial)",
                got=tuple(x.shape),
                mend="choose the last convolutional block",
            )
        spatial = tuple(range(2, x.ndim))

        def step(rows: Tensor, samples: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
            own = x[rows]
            return own, lambda g: (g.mean(spatial, keepdim=True) * own).sum(1, keepdim=True)

        heat = problem.average(step, 1)
        if self.relu:
            heat = torch.relu(heat)
        size = tensors(problem.view.inputs)[0].shape[2:]
        if self.resize and len(size) == heat.ndim - 2:
            mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
            heat = F.interpolate(heat, size=size, mode=mode, align_corners=False)
        return Explanation(heat)
