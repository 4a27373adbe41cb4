"""The optimizer of a recipe. With Muon small models on few tokens learn about twice as fast (docs/lab.md)."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from pcc_bench.model.training.recipe import Recipe

if TYPE_CHECKING:
    from pcc_bench.model.training.learner import Learner


class StackedMuon(torch.optim.Muon):
    """torch's Muon with one orthogonalisation for all matrices of a shape: a few large products for many small ones."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes[weight.shape].append(weight)
            for shape, weights in shapes.items():
                momenta = []
                for weight in weights:
                    gradient: Any = weight.grad
                    buffer = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(gradient))
                    buffer.lerp_(gradient, 1 - group["momentum"])
                    momenta.append(gradient.lerp(buffer, group["momentum"]))
                iteration = group["ns_coefficients"], group["ns_steps"], group["eps"]
                updates = orthogonalised(torch.stack(momenta), *iteration)
                size = group["lr"] * 0.2 * math.sqrt(max(shape))  # the size of AdamW's updates
                for weight, update in zip(weights, updates, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-size)


def orthogonalised(
    matrices: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """Matrices with all singular values near one, by Newton-Schulz iteration in bfloat16: [n, rows, columns]."""
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / x.flatten(1).norm(dim=1).clamp_min(eps)[:, None, None]
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for matrices of linear layers, AdamW for embeddings, norms, biases and vectors, with updates of one size."""

    def __init__(
        self,
        modules: Iterable[nn.Module],  # all of a model; each weight of theirs that requires a gradient learns
        learning_rate: float | Sequence[tuple[Iterable[nn.Parameter], float]],
        betas: tuple[float, float] = (0.9, 0.999),  # AdamW's
        weight_decay: float = 0.0,
    ) -> None:
        is_matrix: dict[nn.Parameter, bool] = {}  # is a weight that learns a linear layer's, and no embedding's too?
        for module in modules:
            for weight in module.parameters(recurse=False):
                if weight.requires_grad:
                    linear = isinstance(module, nn.Linear | Conv1D) and weight.ndim == 2
                    is_matrix[weight] = linear and is_matrix.get(weight, True)
        rates = [(is_matrix, learning_rate)] if isinstance(learning_rate, float) else learning_rate

        def groups(of_matrices: bool) -> list[dict[str, Any]]:
            chosen = [([weight for weight in group if is_matrix.get(weight) is of_matrices], lr) for group, lr in rates]
            return [{"params": weights, "lr": lr} for weights, lr in chosen if weights]

        first = rates[0][1]
        super().__init__(list(is_matrix), {"lr": first})
        self.inner: dict[str, torch.optim.Optimizer] = {}
        if matrices := groups(True):
            self.inner["muon"] = StackedMuon(matrices, first, weight_decay=weight_decay)
        if others := groups(False):
            self.inner["adamw"] = torch.optim.AdamW(others, first, betas=betas, weight_decay=weight_decay)
        self._share_groups()

    def step(self, closure: Any = None) -> Any:
        for optimizer in self.inner.values():
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: optimizer.state_dict() for name, optimizer in self.inner.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, optimizer in self.inner.items():
            optimizer.load_state_dict(state_dict[name])
        self._share_groups()

    def _share_groups(self) -> None:
        """A scheduler sets the learning rate in these groups: they are those of the two."""
        self.param_groups = [group for optimizer in self.inner.values() for group in optimizer.param_groups]


def chosen_optimizer(model: "Learner", recipe: Recipe) -> torch.optim.Optimizer | None:
    """The optimizer of a recipe; None: the Trainer's own AdamW."""
    optimisation, decay = recipe.optimisation, recipe.optimisation.weight_decay
    if optimisation.optimizer == "adamw" and not optimisation.learning_rates:
        return None
    groups = [(model.part(name), rate) for name, rate in optimisation.learning_rates.items()]
    grouped = {weight for weights, _ in groups for weight in weights}
    groups.append(([weight for weight in model.parameters() if weight not in grouped], optimisation.learning_rate))
    if optimisation.optimizer == "muon":
        return MuonAndAdamW(model.modules(), groups, weight_decay=decay)
    learning = [([weight for weight in weights if weight.requires_grad], rate) for weights, rate in groups]
    options = [{"params": weights, "lr": rate} for weights, rate in learning if weights]
    return torch.optim.AdamW(options, weight_decay=decay)
