"""A compressor in training: what the Trainer steps, whichever the method."""

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any

import torch
from torch import nn

from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.core.generation import generate
from pcc_bench.core.plan import Plan, positions
from pcc_bench.model.training import objectives
from pcc_bench.model.training.objectives import Inputs, Task
from pcc_bench.model.training.recipe import Recipe, Trained
from pcc_bench.model.training.samples import Collator, Sample


class Learner(nn.Module, ABC):
    """A compressor and the decoder that teaches it, which is no module: states and gradients are the compressor's."""

    accepts_loss_kwargs = True  # asked for by the Trainer: it then says how many tokens the whole step scores

    def __init__(self, decoder: Decoder, recipe: Recipe) -> None:
        super().__init__()
        self.decoder, self.recipe = decoder, recipe
        self.sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.tokens_seen = 0  # by this process; a context of several rows counts once a micro-batch

    @property
    @abstractmethod
    def reader(self) -> Any:
        """Cuts contexts into the compressor's tokens: has `tokenizer` and `tokenize`."""

    @abstractmethod
    def enter(self, phase: int, rate: int) -> None:
        """Take the sizes of a phase of the recipe, and a rate of its."""

    @abstractmethod
    def encode(self, contexts: Sequence[Sequence[int]]) -> list[Any]:
        """Compress contexts given in the compressor's tokens."""

    @abstractmethod
    def plans(self, encoded: Sequence[Any], task: Task) -> list[Plan]:
        """What stands before each target in the decoder's input."""

    def part(self, name: Trained) -> list[nn.Parameter]:
        """The weights that a recipe calls by a name; a `UsageError` where this method has no such part."""
        raise UsageError(f"optimisation.learning_rates: this method has no part '{name}'")

    def reconstruct(self, samples: Sequence[Sample]) -> list[str]:
        plans = self.plans(self.encode([sample.context for sample in samples]), Task.RECONSTRUCTION)
        limit = max(self.decoder.count_tokens([sample.text for sample in samples])) + 4
        vectors = [plan.vectors(self.decoder).float() for plan in plans]
        out = generate(self.decoder, vectors, limit, positions=positions(plans, None))
        return [str(self.decoder.tokenizer.decode(ids, skip_special_tokens=True)) for ids in out.ids]

    def collator(self) -> Collator:
        return Collator(self.decoder, self.recipe)

    def only_trained_in_state(self) -> None:
        """Leave what does not learn (a LoRA's base model) out of states; call it when the module is complete."""
        whole = set(self.state_dict())

        def only_trained(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
            trained = {f"{prefix}{name}" for name, weight in module.named_parameters() if weight.requires_grad}
            for name in state.keys() - trained:
                del state[name]

        self.register_state_dict_post_hook(only_trained)  # type: ignore[no-untyped-call]
        self._keys_to_ignore_on_save = sorted(whole - set(self.state_dict()))  # asked for by the Trainer when it loads

    def forward(
        self,
        contexts: list[list[int]],  # encoder ids
        targets: Mapping[str, Mapping[str, list[list[int]]]],  # by task, decoder `ids` and `labels` (-100: not scored)
        phase: int,
        rate: int,
        indices: list[int],  # places of the samples in the stream, for messages
        labels: torch.Tensor,  # all scored ids (only counted here)
        texts: list[list[int]] | None = None,  # with distillation, the contexts in decoder tokens
        num_items_in_batch: torch.Tensor | int | None = None,  # scored tokens of the whole step, over all processes
    ) -> dict[str, torch.Tensor]:
        """The loss of a micro-batch: nats per scored token of the whole step; a `UsageError` where it is not finite."""
        self.enter(phase, rate)
        rows_of: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for row, ids in enumerate(contexts):
            rows_of[tuple(ids)].append(row)
        encoded = self.encode([list(ids) for ids in rows_of])
        sizes, order = list(map(len, rows_of.values())), list(chain.from_iterable(rows_of.values()))
        scored = num_items_in_batch if num_items_in_batch is not None else labels.ne(objectives.IGNORED).sum()
        total = torch.zeros((), device=self.decoder.device)
        share = self.recipe.completion_at(phase)
        # Two objectives that are summed share the step's token count; one that is alone has it to itself.
        summed = self.recipe.objective.combination == "summed" and share not in (0, 1)
        weights = {Task.COMPLETION: 2 * share, Task.RECONSTRUCTION: 2 * (1 - share)} if summed else {}
        for name, unordered in targets.items():
            task = Task(name)
            rows = {key: [value[i] for i in order] for key, value in unordered.items()}
            inputs = self._lay_out_groups(encoded, sizes, task, rows)
            count = int(inputs.labels.ne(objectives.IGNORED).sum())
            logits, scored_ids = objectives.predictions(self.decoder, inputs)
            nll = nn.functional.cross_entropy(logits, scored_ids, reduction="sum")
            self.record(task.value, nll, count, indices)
            total = total + weights.get(task, 1.0) * nll
            if texts is not None and self.recipe.objective.distillation:
                with torch.no_grad():
                    plans = [Plan(([*self.decoder.bos, *texts[i]],)) for i in order]
                    whole = objectives.behind(self.decoder, plans, rows["ids"], rows["labels"])
                    teacher, _ = objectives.predictions(self.decoder, whole)
                ours, theirs = logits.log_softmax(-1), teacher.log_softmax(-1)
                divergence = nn.functional.kl_div(ours, theirs, reduction="sum", log_target=True)
                self.record("divergence", divergence, count, indices)
                total = total + self.recipe.objective.distillation * divergence
        self.tokens_seen += sum(map(len, rows_of))
        return {"loss": total / scored}

    def _lay_out_groups(
        self, encoded: Sequence[Any], sizes: Sequence[int], task: Task, rows: Mapping[str, list[list[int]]]
    ) -> Inputs:
        """Targets behind their memories, so many to a memory: in one row where that gives the same, else a row each."""
        ids, labels = rows["ids"], rows["labels"]
        plans = self.plans(encoded, task)
        ends = list(accumulate(sizes, initial=0))
        groups = [(ids[begin:end], labels[begin:end]) for begin, end in pairwise(ends)]
        longest = max(plan.length + sum(map(len, group)) for plan, (group, _) in zip(plans, groups, strict=True))
        unscored = all(label[:1] == [objectives.IGNORED] for label in labels)
        if unscored and max(sizes) > 1 and objectives.can_share(self.decoder, longest):
            targets, scored = ([group[part] for group in groups] for part in (0, 1))
            return objectives.sharing(self.decoder, plans, targets, scored)
        owners = [number for number, size in enumerate(sizes) for _ in range(size)]
        return objectives.behind(self.decoder, [plans[number] for number in owners], ids, labels)

    def drain(self) -> dict[str, float]:
        """Mean loss by task since the last call, nats per token, on this process."""
        means = {f"{name}_loss": total / count for name, (total, count) in self.sums.items() if count}
        self.sums.clear()
        return means

    def tie_weights(self) -> None:
        """Asked for by the Trainer after loading; nothing is tied."""

    def record(self, name: str, loss: torch.Tensor, count: int, indices: list[int]) -> None:
        """Note a loss, summed over `count` tokens; a `UsageError` names the samples where it is not finite."""
        value = float(loss.detach())
        if not math.isfinite(value):
            step = indices[0] // self.recipe.optimisation.batch_size
            raise UsageError(
                f"the {name} loss is {value} at step {step + 1} (samples {indices[0]} to {indices[-1]}): lower "
                "the learning rate or look at these samples; the last saved state is intact"
            )
        self.sums[name][0] += value
        self.sums[name][1] += count
