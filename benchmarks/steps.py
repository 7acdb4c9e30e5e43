"""Training steps: a plain one, a prior by hand, rightly's engines, the peer's code."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import TensorDataset

import rightly as rt
from benchmarks.harness import Step

ENGINES = ("auto", "double-backward", "frozen-masks", "two-phase", "finite-differences")

#: small, so that many steps on random data change no timing; the work does not depend on it
_WEIGHT = 1e-4

_PRIORS: dict[str, tuple[Callable[[], Any], Callable[[Tensor, Tensor], Tensor]]] = {
    "total variation": (rt.priors.TotalVariation, lambda phi, marked: rt.functional.total_variation(phi).mean()),
    "sparsity": (rt.priors.Sparsity, lambda phi, marked: rt.functional.sparsity(phi)),
    "l2": (rt.priors.L2, lambda phi, marked: rt.functional.l2(phi).mean()),
    "irrelevant": (rt.priors.Irrelevant, lambda phi, marked: rt.functional.irrelevant(phi, marked).mean()),
}


@dataclass(frozen=True)
class Case:
    """A network with a batch, an attribution and a prior.

    Attributes:
        network: seed -> module.
        shape, batch: of the inputs.
        prior: key of the priors above.
        floor: least work of an exact step over that of a plain one, counted in multiply-adds (docs/benchmarks.md).
        k: references an example; 0 means the gradient of ``log_prob_sum`` at the training point itself.
        every: the prior acts at every m-th step; a repeat is then m steps.
    """

    title: str
    network: Callable[[int], nn.Module]
    shape: tuple[int, ...]
    batch: int
    prior: str
    floor: float
    k: int = 1
    every: int = 1

    @property
    def tabular(self) -> bool:
        """Whether the network has a single output."""
        return len(self.shape) == 1

    @property
    def picture(self) -> bool:
        """Whether the inputs are images."""
        return len(self.shape) == 3


class Bench:
    """A case with its data on a device; every variant starts from the same weights."""

    def __init__(self, case: Case, device: torch.device, peer: Path | None = None) -> None:
        draws = torch.Generator().manual_seed(0)
        self.case, self.device, self.peer = case, device, peer
        self.inputs = torch.randn(case.batch, *case.shape, generator=draws).to(device)
        self.labels = torch.randint(2 if case.tabular else 10, (case.batch,), generator=draws).to(device)
        # as many as the peer needs for one draw
        self.background = torch.randn(max(200, case.batch * case.k), *case.shape, generator=draws).to(device)
        self.irrelevant = (torch.rand(case.batch, *case.shape, generator=draws) < 0.5).to(device)
        self.first = case.network(0).to(device)
        self._objectives: dict[str, rt.Objective] = {}

    def variants(self, options: bool = False) -> dict[str, Callable[[], Step]]:
        """Name -> what prepares the step, the plain one first."""
        found: dict[str, Callable[[], Step]] = {"plain": self.plain, "by hand": self.by_hand}
        for engine in ENGINES:
            found[engine] = lambda engine=engine: self.objective(engine)
        if options:
            found |= {
                "plain, bf16": lambda: self.plain(bf16=True),
                "auto, bf16": lambda: self.objective("auto", bf16=True),
                "auto, compiled": lambda: self.objective("auto", compiled=True),
            }
            if self.case.picture:
                found["plain, channels last"] = lambda: self.plain(channels_last=True)
                found["auto, channels last"] = lambda: self.objective("auto", channels_last=True)
        if self.case.k:
            found["attributionpriors"] = self.attributionpriors
        return found

    def plain(self, *, bf16: bool = False, channels_last: bool = False) -> Step:
        """The task loss alone."""
        model, inputs = self._model(channels_last)
        return self._repeat(self._stepping(model, lambda: self.loss(model(inputs), self.labels), bf16))

    def objective(
        self, engine: str, *, bf16: bool = False, channels_last: bool = False, compiled: bool = False
    ) -> Step:
        """Task loss and prior with one of rightly's engines."""
        model, inputs = self._model(channels_last)
        objective = self.build(engine, model)
        self._objectives.setdefault(engine, objective)
        if compiled:
            objective.compile()
        annotation = self.annotation()
        return self._repeat(self._stepping(model, lambda: objective(inputs, self.labels, annotation).total, bf16))

    def build(self, engine: str, model: nn.Module, weight: float = _WEIGHT) -> rt.Objective:
        """The objective that the engines train."""
        case = self.case
        if case.k:
            method: Any = rt.ExpectedGradients(rt.references.Sample(self.background), n_samples=case.k)
        else:
            method = rt.Gradient(output="log_prob_sum")
        prior, _ = _PRIORS[case.prior]
        settings: Any = {"weight": weight, "schedule": rt.Schedule(every=case.every), "engine": engine}
        return rt.Objective(model, self.loss, [rt.Term(method, prior(), **settings)])

    def annotation(self) -> rt.Annotation | None:
        """What the prior needs to know."""
        return rt.Annotation(irrelevant=self.irrelevant) if self.case.prior == "irrelevant" else None

    def by_hand(self) -> Step:
        """Double backward as one writes it today, references folded into the batch: what an engine has to beat."""
        model, inputs = self._model()
        return self._penalised(model, inputs, lambda: self._penalty(model, inputs))

    def _penalty(self, model: nn.Module, x: Tensor) -> Tensor:
        _, penalty = _PRIORS[self.case.prior]
        k = self.case.k
        with reading(model), sdpa_kernel(SDPBackend.MATH) if not self.case.tabular else nullcontext():
            if not k:
                x = x.detach().requires_grad_()
                value = F.log_softmax(model(x), 1).sum()
                phi = torch.autograd.grad(value, x, create_graph=True)[0]
            else:
                rows = x.repeat_interleave(k, 0)
                delta = rows - self.background[torch.randint(len(self.background), (len(rows),), device=self.device)]
                alpha = torch.rand(len(rows), *(1,) * len(self.case.shape), device=self.device)
                points = (rows - (1 - alpha) * delta).requires_grad_()
                outputs = model(points)
                labels = self.labels.repeat_interleave(k)
                value = outputs.sum() if self.case.tabular else outputs.gather(1, labels[:, None]).sum()
                gradient = torch.autograd.grad(value, points, create_graph=True)[0]
                phi = (delta * gradient).unflatten(0, (-1, k)).mean(1)
        return penalty(phi, self.irrelevant.to(phi))

    def attributionpriors(self) -> Step:
        """The authors' PyTorch code with its own loader, where the person who runs this has it."""
        model, inputs = self._model()
        dataset = TensorDataset(self.background.cpu())
        explainer = peer_code(self.peer).AttributionPriorExplainer(dataset, self.case.batch, k=self.case.k)
        _, penalty = _PRIORS[self.case.prior]

        def penalised() -> Tensor:
            with reading(model), sdpa_kernel(SDPBackend.MATH) if not self.case.tabular else nullcontext():
                phi = explainer.shap_values(model, inputs, self.labels)
            return penalty(phi, self.irrelevant.to(phi))

        return self._penalised(model, inputs, penalised)

    def _penalised(self, model: nn.Module, inputs: Tensor, penalty: Callable[[], Tensor]) -> Step:
        """Steps without the library: the task, and the prior at every so many."""
        count = 0

        def loss() -> Tensor:
            nonlocal count
            total = self.loss(model(inputs), self.labels)
            count += 1
            if (count - 1) % self.case.every:
                return total
            return total + _WEIGHT * self.case.every * penalty()

        return self._repeat(self._stepping(model, loss))

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The task's: cross-entropy, binary for the single output."""
        if self.case.tabular:
            return F.binary_cross_entropy_with_logits(outputs[:, 0], labels.to(outputs))
        return F.cross_entropy(outputs, labels)

    def gradient_error(self, engine: str) -> float:
        """Relative distance of the prior's part of a step's gradient from that of double backward.

        Same weights, same draws, the term as strong as the task. Of the step as it is trained, where an engine may take
        task and prior in one pass; the truth is the sum of both taken apart.
        """
        task, prior = (self._gradient("double-backward", 1.0, part) for part in ("task", "prior"))
        strength = float(task.norm() / prior.norm())
        found = self._gradient(engine, strength, "both")
        return float((found - task - strength * prior).norm() / task.norm())

    def _gradient(self, engine: str, weight: float, part: Any) -> Tensor:
        model, inputs = self._model()
        objective = self.build(engine, model, weight)
        for _ in range(2):  # an engine is proved at its first step; the second is like all others
            model.load_state_dict(self.first.state_dict())  # batch norm's running statistics have moved
            model.zero_grad(set_to_none=True)
            objective.step = 0
            draws = torch.Generator().manual_seed(0)
            with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
                torch.manual_seed(0)  # dropout
                if part == "prior":  # as in a step, where the task's pass has moved the statistics before
                    objective(inputs, self.labels, part="task")
                objective(inputs, self.labels, self.annotation(), draws, part).total.backward()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
        return torch.cat([gradient.flatten() for gradient in gradients]).double()

    def picked(self, variant: str) -> str | None:
        """The engine that an objective has picked, and why, once it has stepped."""
        choices = [] if variant not in self._objectives else list(self._objectives[variant].engines.choices.values())
        return f"{choices[0].name}: {choices[0].why}" if choices else None

    def _model(self, channels_last: bool = False) -> tuple[nn.Module, Tensor]:
        model = copy.deepcopy(self.first).train()
        layout = torch.channels_last if channels_last else torch.preserve_format
        return model.to(memory_format=layout), self.inputs.to(memory_format=layout)

    def _stepping(self, model: nn.Module, loss: Callable[[], Tensor], bf16: bool = False) -> Step:
        optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=True)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self.device.type, torch.bfloat16) if bf16 else nullcontext():
                total = loss()
            total.backward()
            optimizer.step()

        return step

    def _repeat(self, step: Step) -> Step:
        def several() -> None:
            for _ in range(self.case.every):
                step()

        return several if self.case.every > 1 else step


@contextmanager
def reading(model: nn.Module) -> Iterator[None]:
    """Dropout off and batch norm frozen, as an attribution wants it."""
    model.eval()
    try:
        yield
    finally:
        model.train()


def peer_code(path: Path | None) -> Any:
    """The module ``pytorch_ops.py`` of the authors' repository (suinleelab/attributionpriors on GitHub).

    The package of that name on the package index has the TensorFlow part only.
    """
    if path is None:
        raise FileNotFoundError("pytorch_ops.py of the authors' repository was not given (--peer FILE)")
    spec = importlib.util.spec_from_file_location("attributionpriors_pytorch_ops", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
