"""Training PCC with transformers' Trainer: the model returns the loss, everything else is the library's."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainingArguments

from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import checked, write_text, writing
from pcc_bench.core.errors import UsageError
from pcc_bench.core.plan import Plan
from pcc_bench.model import checkpoint, init
from pcc_bench.model.config import PccConfig
from pcc_bench.model.encoder import Encoder
from pcc_bench.model.pcc import PCC, Encoded
from pcc_bench.model.training import objectives
from pcc_bench.model.training.corpus import Corpus, Position, corpora_of
from pcc_bench.model.training.journal import STATES, Evaluation, Journal, last_state, read_position
from pcc_bench.model.training.learner import Learner
from pcc_bench.model.training.objectives import Task
from pcc_bench.model.training.optimizer import chosen_optimizer
from pcc_bench.model.training.recipe import Recipe, Trained
from pcc_bench.model.training.samples import Samples


class PccForTraining(Learner):
    """PCC in front of its decoder, which stays frozen and in evaluation mode whatever the Trainer does."""

    def __init__(self, pcc: PCC, decoder: Decoder, recipe: Recipe) -> None:
        super().__init__(decoder, recipe)
        if any(parameter.requires_grad for parameter in decoder.model.parameters()):
            raise UsageError("the decoder is not frozen: its parameters must not require gradients")
        self.pcc = pcc
        self.phases = []
        for number, phase in enumerate(recipe.phases, 1):
            rates = tuple(dict.fromkeys((phase.rate, *phase.rates)))
            sizes = {"segment_length": phase.segment_length, "rate": phase.rate, "rates": rates}
            state = {**pcc.config.model_dump(mode="json"), **sizes}
            self.phases.append(checked(PccConfig, state, f"phase {number} of the recipe"))
            pcc.encoder.check_positions(self.phases[-1])
        choose_trained(pcc, recipe.train)
        if recipe.optimisation.precision == "bfloat16":
            for parameter in pcc.encoder.parameters():
                if not parameter.requires_grad:  # needs no float32 copy: half the memory of a LoRA's base
                    parameter.data = parameter.data.to(torch.bfloat16)
        self.only_trained_in_state()

    @property
    def reader(self) -> Encoder:
        return self.pcc.encoder

    def enter(self, phase: int, rate: int) -> None:
        self.pcc.encoder.config = self.phases[phase].model_copy(update={"rate": rate})

    def part(self, name: Trained) -> list[nn.Parameter]:
        if name == "special":
            return [self.pcc.special]  # type: ignore[list-item]
        if name == "converter":
            return list(self.pcc.converter.parameters())
        gated = name == "gate"
        return [weight for part, weight in self.pcc.encoder.named_parameters() if (part == "gate") is gated]

    def encode(self, contexts: Sequence[Sequence[int]]) -> list[Encoded]:
        return self.pcc.encode(contexts)

    def plans(self, encoded: Sequence[Encoded], task: Task) -> list[Plan]:
        return objectives.memory_plans(self.pcc, self.decoder, encoded, task)

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Recompute the encoder's activations in the backward pass; asked for by the Trainer."""
        self.pcc.encoder.body.activation_checkpointing_enable(**options)


def train(recipe: Recipe, folder: Path) -> PCC | None:
    """Run a recipe or go on with it; the trained compressor, None in all processes but the first."""
    claim(folder, recipe)
    dtype = torch.bfloat16 if recipe.optimisation.precision == "bfloat16" else torch.float32
    decoder = init.open_decoder(recipe.decoder, dtype)
    pcc = starting_point(recipe, decoder, folder)
    if recipe.optimisation.attention:
        decoder.model.set_attn_implementation(recipe.optimisation.attention)
        pcc.encoder.body.set_attn_implementation(recipe.optimisation.attention)
    if not fit(PccForTraining(pcc, decoder, recipe), recipe, folder):
        return None
    with _writing(folder):
        pcc.encoder.config = pcc.config
        checkpoint.save(pcc.eval(), folder)
    return pcc


def fit(model: Learner, recipe: Recipe, folder: Path) -> bool:
    """Train a compressor on a recipe's data, or go on; see `train`. Is this the process that saves the result?"""
    state = last_state(folder)
    step, position = read_position(state) if state else (0, Position())
    corpora, held_out = corpora_of(recipe)
    samples = Samples(recipe, corpora, model.reader, step, position)
    steps = steps_of(recipe, corpora[0])
    journal, evaluation = Journal(folder, samples, model, step), Evaluation(recipe, model, held_out, folder, step)
    trainer = Trainer(
        model=model,
        args=training_arguments(recipe, folder, steps),
        train_dataset=samples,
        data_collator=model.collator(),
        optimizers=(chosen_optimizer(model, recipe), None),
        callbacks=[journal, evaluation],
    )
    if torch.cuda.is_available():
        model.decoder.model.to(trainer.args.device)
    with _writing(folder):
        if state and step >= steps:  # the Trainer would take another step
            model.load_state_dict(load_file(state / "model.safetensors"), strict=False)
        else:
            trainer.train(resume_from_checkpoint=str(state) if state else None)
    gather(model)
    return bool(trainer.is_world_process_zero())


def gather(model: nn.Module) -> None:
    """Replace sharded weights by whole ones in memory; every process must call it. Others are left as they are."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if isinstance(parameter, DTensor):
                whole = parameter.full_tensor().detach().cpu()
                setattr(module, name, nn.Parameter(whole, parameter.requires_grad))


def training_arguments(recipe: Recipe, folder: Path, steps: int) -> TrainingArguments:
    optimisation, checks = recipe.optimisation, recipe.checks
    probe = TrainingArguments(output_dir=str(folder / STATES), report_to=[])
    at_once = optimisation.micro_batch_size * probe.world_size
    if optimisation.batch_size % at_once:
        raise UsageError(
            f"batch_size {optimisation.batch_size} can't be split over {probe.world_size} processes with "
            f"micro_batch_size {optimisation.micro_batch_size}: change one of them"
        )
    has_gpu = torch.cuda.is_available()
    options: dict[str, Any] = {name: getattr(optimisation, name) for name in ("learning_rate", "max_grad_norm")}
    options |= {"weight_decay": optimisation.weight_decay, "lr_scheduler_type": optimisation.schedule}
    options |= {"max_steps": steps, "warmup_steps": min(optimisation.warmup_steps, steps), "seed": recipe.seed}
    options |= {"per_device_train_batch_size": optimisation.micro_batch_size}
    options |= {"gradient_accumulation_steps": optimisation.batch_size // at_once}
    options |= {"activation_checkpointing": optimisation.gradient_checkpointing}
    options |= {"save_steps": checks.save_every, "save_total_limit": checks.keep, "report_to": list(checks.report_to)}
    return TrainingArguments(
        output_dir=str(folder / STATES),
        bf16=optimisation.precision == "bfloat16",
        use_cpu=not has_gpu,  # else bfloat16 is refused on a CPU
        dataloader_pin_memory=has_gpu,
        logging_steps=1 if steps <= 100 else 10,
        ignore_data_skip=True,  # our stream starts at the right sample by itself
        remove_unused_columns=False,
        label_names=["labels"],
        accelerator_config={"dispatch_batches": False},
        ddp_find_unused_parameters=False,
        **options,
    )


def starting_point(recipe: Recipe, decoder: Decoder, folder: Path) -> PCC:
    final = recipe.final
    rates = tuple(dict.fromkeys((final.rate, *final.rates)))
    tuned = {"prompt": recipe.data.prompt} if recipe.data.kind == "qa" else {}
    has_gate = "gate" in recipe.train
    if recipe.start is not None:
        sizes: dict[str, Any] = {"rate": final.rate, "rates": rates, "segment_length": final.segment_length}
        sizes |= {"gate": True} if has_gate else {}
        pcc = checkpoint.load(recipe.start, decoder, adapt=True, encoder_dtype=torch.float32, **sizes)
        pcc = init.adapted(pcc, decoder, folder, recipe.seed)
        pcc.config = pcc.config.model_copy(update=tuned)
        return pcc
    shared: dict[str, Any] = {"segment_length": final.segment_length, "seed": recipe.seed}
    shared["notes"] = f"Trained with the recipe `{recipe.name}`. {recipe.purpose}".strip()
    layout: dict[str, Any] = {"boundaries": recipe.boundaries, "slot_positions": recipe.slot_positions, **tuned}
    if recipe.encoder_layers is not None:
        rank, alpha = recipe.lora_rank, recipe.lora_alpha or recipe.lora_rank // 2
        shared |= {"lora": init.layer_lora_config(rank, alpha, recipe.lora_dropout) if rank else None}
        shared |= {"pooling": recipe.pooling, "identity": recipe.converter_start == "identity", "gate": has_gate}
        shared |= {"special_from": recipe.special_from}
        pcc = init.from_decoder(decoder, recipe.encoder_layers, rates, folder, **shared)
    else:
        assert recipe.encoder is not None
        pcc = init.fresh(recipe.encoder, decoder, rates, folder, lora_rank=recipe.lora_rank, **shared)
        layout["slots"] = recipe.slots
    pcc.config = pcc.config.model_copy(update=layout)
    return pcc


def choose_trained(pcc: PCC, trained: tuple[Trained, ...]) -> None:
    """Set which parameters learn; of a LoRA encoder, only its adapter (without lm_head, which reaches no slot)."""
    pcc.requires_grad_(False)
    pcc.converter.requires_grad_("converter" in trained)
    if "special" in trained:
        special = pcc.special.detach().float()
        del pcc.special  # no buffer any more
        pcc.special = nn.Parameter(special)
    if "encoder" in trained:
        lora, layers = pcc.config.encoder.kind == "lora", pcc.config.encoder.layers
        embedding = None if layers is None else pcc.encoder.body.get_input_embeddings().weight  # the decoder's own
        for name, parameter in pcc.encoder.named_parameters():
            learns = "memory_rows" in name or not lora or ("lora_" in name and "lm_head" not in name)
            parameter.requires_grad_(learns and parameter is not embedding)
    elif "memory_tokens" in trained and pcc.encoder.memory_rows is not None:
        pcc.encoder.memory_rows.requires_grad_(True)
    elif "memory_tokens" in trained:
        weight: Any = pcc.encoder.body.get_input_embeddings().weight
        weight.requires_grad_(True)
        mask = torch.zeros(weight.shape[0], 1)
        mask[pcc.encoder.memory_ids] = 1  # the other rows get no gradient (AdamW then leaves them, without decay)
        weight.register_hook(lambda gradient: gradient * mask.to(gradient))
    if pcc.encoder.gate is not None:
        pcc.encoder.gate.requires_grad_("gate" in trained)


def steps_of(recipe: Recipe, corpus: Corpus) -> int:
    """Optimizer steps of a run; passes over the data are only countable where its rows are samples."""
    optimisation = recipe.optimisation
    if optimisation.steps is not None:
        return optimisation.steps
    if recipe.data.is_text or corpus.documents is None:
        raise UsageError("optimisation.epochs needs fine-tuning rows that are not streamed: give optimisation.steps")
    assert optimisation.epochs is not None
    return optimisation.epochs * math.ceil(len(corpus.documents) / optimisation.batch_size)


def _writing(folder: Path) -> AbstractContextManager[None]:
    return writing(folder, "make room and run the same command again, which goes on from the last state that was saved")


def claim(folder: Path, recipe: Recipe) -> None:
    path = folder / "recipe.json"
    if path.is_file() and Recipe.read(str(path)) != recipe:  # compared as read: an older file lacks newer keys
        raise UsageError(f"{folder} holds a run of another recipe: choose another folder, or take its recipe.json")
    write_text(path, recipe.model_dump_json(indent=1))
