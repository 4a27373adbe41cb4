"""The optimizer of a recipe. With Muon small models on few tokens learn about twice as fast (docs/lab.md)."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from pcc_bench.model.training.recipe import Recipe

if TYPE_CHECKING:
    from pcc_bench.model.training.learner import Learner


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
            like_adamw: Any = {"weight_decay": weight_decay, "adjust_lr_fn": "match_rms_adamw"}
            self.inner["muon"] = torch.optim.Muon(matrices, first, **like_adamw)
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
