"""Baselines of the lab in training: ICAE, COCOM and AutoCompressor, and a token classifier of LLMLingua-2's kind.

The soft ones are trained as the lab's compressors are and on the same tokens: the encoder that an evaluation runs, and
the decoder that teaches it.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset
from transformers import BertConfig, BertForTokenClassification, Trainer

from pcc_bench.baselines.autocompressor import SummaryEncoder
from pcc_bench.baselines.cocom.encoders import CocomEncoder
from pcc_bench.baselines.icae import IcaeEncoder
from pcc_bench.baselines.soft import CausalEncoder, Purpose
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.core.plan import Plan
from pcc_bench.core.tiny import make_bert_tokenizer
from pcc_bench.lab import ClassifierRecipe, RivalRecipe
from pcc_bench.lab.decoders import save_in_half, training_arguments
from pcc_bench.lab.stages import BATCH, DATA, GROWING, SEGMENT, growing, on_questions, on_text, write_data
from pcc_bench.model import init
from pcc_bench.model.training.journal import append
from pcc_bench.model.training.learner import Learner
from pcc_bench.model.training.loop import claim, fit
from pcc_bench.model.training.objectives import Task
from pcc_bench.model.training.recipe import Recipe
from pcc_bench.tasks.lab.passages import Passage, draw_passage
from pcc_bench.tasks.lab.world import integer, seeded

LEARNED = "learned.safetensors"  # what a stage has learned, once it has ended
SEGMENTS = 4  # of a text that AutoCompressor reads on
ENCODERS: dict[str, type[CausalEncoder]] = {
    "icae": IcaeEncoder,
    "cocom": CocomEncoder,
    "autocompressor": SummaryEncoder,
}
PURPOSES: dict[Task, Purpose] = {
    Task.RECONSTRUCTION: "reconstruct",
    Task.COMPLETION: "continue",
    Task.ANSWERING: "answer",
}


class Rival(Learner):
    def __init__(self, decoder: Decoder, recipe: Recipe, method: str, rank: int) -> None:
        super().__init__(decoder, recipe)
        final = recipe.final
        self.encoder = ENCODERS[method].start(decoder, final.segment_length, final.rate, rank, recipe.seed)
        self.only_trained_in_state()

    @property
    def reader(self) -> CausalEncoder:
        return self.encoder

    def enter(self, phase: int, rate: int) -> None:
        self.encoder.resize(self.recipe.phases[phase].segment_length, rate)

    def encode(self, contexts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        return self.encoder.encode(contexts)  # vectors of each context: [n, width], float32

    def plans(self, encoded: Sequence[torch.Tensor], task: Task) -> list[Plan]:
        return [Plan((self.encoder.prompt(vectors, PURPOSES[task]).float(),)) for vectors in encoded]

    def forward(  # type: ignore[override]
        self, contexts: list[list[int]], targets: Mapping[str, Any], **batch: Any
    ) -> dict[str, torch.Tensor]:
        """AutoCompressor's pretraining reads on, each segment behind the summaries of the others.

        Its loss is over all tokens of all segments; what the collator made to be continued is not used.
        """
        if not isinstance(self.encoder, SummaryEncoder) or Task.ANSWERING.value in targets:
            return super().forward(contexts, targets, **batch)
        self.enter(batch["phase"], batch["rate"])
        self.tokens_seen += sum(map(len, contexts))
        pairs = self.encoder.read_through(contexts, self.encoder.segment_length)
        head = self.decoder.model.get_output_embeddings()
        states = torch.stack([hidden[:-1] for hidden, _ in pairs]).to(head.weight.dtype)
        following = torch.tensor(contexts, device=self.decoder.device)[:, 1:]
        nll = nn.functional.cross_entropy(head(states).float().flatten(0, 1), following.flatten(), reduction="sum")
        self.record(Task.COMPLETION.value, nll, following.numel(), batch["indices"])
        return {"loss": nll / following.numel()}


def train_rival(folder: Path, name: str, recipe: RivalRecipe, work: Path) -> None:
    decoder, data = folder / recipe.decoder, work.parent / DATA
    write_data(data)
    pretraining, tuning = work / "pretraining", work / "tuning"
    _stage(recipe, pretraining_recipe(name, recipe, str(decoder), str(data)), pretraining, None)
    rival = _stage(recipe, tuning_recipe(name, recipe, str(decoder), str(data)), tuning, pretraining / LEARNED)
    rival.encoder.export(folder / name, init.name_beside(str(decoder), folder / name))
    for log in ("log.jsonl", "evaluation.jsonl"):
        shutil.copy(tuning / log, folder / name / log)


def _stage(recipe: RivalRecipe, stage: Recipe, folder: Path, start: Path | None) -> Rival:
    claim(folder, stage)
    decoder = init.open_decoder(stage.decoder, torch.bfloat16)
    decoder.model.set_attn_implementation(str(stage.optimisation.attention))
    rival = Rival(decoder, stage, recipe.method, recipe.rank)
    learned = folder / LEARNED
    if start := learned if learned.is_file() else start:
        state = load_file(start)
        if state.keys() != rival.state_dict().keys():  # what does not learn is in neither
            raise UsageError(f"{start} was written by another version of pcc-bench: delete {folder.parent}, and build")
        rival.load_state_dict(state, strict=False)
    if not learned.is_file():
        fit(rival, stage, folder)
        save_file({key: value.contiguous() for key, value in rival.state_dict().items()}, learned)
    return rival


def pretraining_recipe(name: str, recipe: RivalRecipe, decoder: str, data: str) -> Recipe:
    """Pretraining: segments grow and reconstruction comes first, as for PCC-Large; AutoCompressor reads on."""
    models: dict[str, Any] = {"encoder": decoder, "decoder": decoder, "seed": recipe.seed}
    last: dict[str, Any] = {"segment_length": SEGMENT, "rate": recipe.rate}
    checks: dict[str, int] = {"evaluate_every": 200}
    if recipe.method == "autocompressor":
        models["phases"] = [{**last, "segments": SEGMENTS}]
        checks |= {"batch": BATCH // SEGMENTS, "generated_rows": 0}
        return on_text(name, models, data, recipe.pretraining, completion=1.0, **checks)
    phases = growing(GROWING, recipe.rate, 0.0)
    start = phases[-1]["until"]
    until = start + int(0.6 * (recipe.pretraining - start))
    models["phases"] = [*phases, {**last, "completion": 0.0, "until": until}, last]
    return on_text(name, models, data, recipe.pretraining, completion=recipe.completion, **checks)


def tuning_recipe(name: str, recipe: RivalRecipe, decoder: str, data: str) -> Recipe:
    models = {"encoder": decoder, "decoder": decoder, "seed": recipe.seed}
    return on_questions(name, models, data, recipe.rate, recipe.tuning)


# A token classifier. The original learns from GPT-4's summaries which words to keep. Here the generator of the world is
# the teacher: it knows which words of a passage are a name, a value, or say what the value is of.

NAME, VALUE, OTHER, REST = 0.9, 0.95, 0.5, 0.02  # how probable the teacher finds it that a word stays
EMPTY = {"a", "an", "the", "of", "is", "in", "on", "at", "for", "as", "by", "to", "that", "has", "was", "who", "are"}
FORCED = 100  # rows for forced words, as in the published checkpoints
CORPUS = 1_000  # passages that the tokenizer is made from
IGNORED = -1.0


class Marked(TypedDict):
    text: str
    words: list[tuple[int, int, float]]  # start, end and probability to stay of each that carries something


@dataclass(frozen=True)
class Passages(Dataset[Marked]):
    seed: int
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Marked:
        random = seeded(self.seed, "classifier", index)
        passage = draw_passage(random, integer(random, 4, 28), fillers=integer(random, 0, 5))
        return {"text": passage.text, "words": taught(passage)}


def taught(passage: Passage) -> list[tuple[int, int, float]]:
    words = []
    for fact, start, end, value_start in passage.stated:
        spans = [(value_start, value_start + len(fact.value), VALUE)]
        if (name := passage.text.find(fact.subject, start, end)) >= 0:
            spans.append((name, name + len(fact.subject), NAME))
        for word in re.finditer(r"\w+", passage.text[start:end]):
            first, last = start + word.start(), start + word.end()
            inside = [weight for low, high, weight in spans if low <= first < high]
            if inside or word.group().lower() not in EMPTY:
                words.append((first, last, inside[0] if inside else OTHER))
    return words


def train_classifier(folder: Path, recipe: ClassifierRecipe, work: Path) -> None:
    """A minute's work, which begins anew where it was interrupted."""
    data = Passages(recipe.seed, recipe.steps * recipe.batch)
    fit_classifier(folder, recipe, data, [data[i]["text"] for i in range(min(CORPUS, len(data)))], work)


def fit_classifier(
    folder: Path, recipe: ClassifierRecipe, data: Any, corpus: Sequence[str], work: Path, **options: Any
) -> None:
    """Make a classifier from any rows of `Marked`, its word pieces from a corpus; `options` are the trainer's."""
    tokenizer: Any = make_bert_tokenizer(corpus, recipe.vocabulary)
    torch.manual_seed(recipe.seed)
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer) + FORCED, "pad_token_id": tokenizer.pad_token_id}
    sizes |= {"hidden_size": recipe.width, "intermediate_size": 4 * recipe.width, "max_position_embeddings": 512}
    sizes |= {"num_hidden_layers": recipe.layers, "num_attention_heads": recipe.heads, "num_labels": 2}
    model = BertForTokenClassification(BertConfig(**sizes))
    schedule = {"warmup_steps": 20, "lr_scheduler_type": "linear", "save_strategy": "no"}
    schedule |= {"per_device_train_batch_size": recipe.batch}
    trainer = _KeepTrainer(
        model=model,
        args=training_arguments(work / "states", recipe, **schedule, **options),
        train_dataset=data,
        data_collator=lambda rows: _batch(tokenizer, rows),
    )
    trainer.train()
    save_in_half(model, tokenizer, folder)
    (folder / "log.jsonl").unlink(missing_ok=True)
    for line in trainer.state.log_history:
        if "loss" in line:
            append(folder / "log.jsonl", line)


class _KeepTrainer(Trainer):
    """Cross-entropy with the teacher's probabilities."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        taught = inputs.pop("taught")
        staying = model(**inputs).logits.log_softmax(-1)
        counted = taught != IGNORED
        nll = -(taught * staying[..., 1] + (1 - taught) * staying[..., 0])
        return nll[counted].mean()


def _batch(tokenizer: Any, rows: Sequence[Marked]) -> dict[str, torch.Tensor]:
    """Texts and what is taught of their tokens; one too long for the classifier becomes several rows."""
    cut = {"padding": True, "truncation": True, "max_length": 512, "return_overflowing_tokens": True}
    texts = [row["text"] for row in rows]
    encoded = tokenizer(texts, **cut, return_offsets_mapping=True, return_tensors="pt")
    spans, origins = encoded.pop("offset_mapping"), encoded.pop("overflow_to_sample_mapping")
    taught = torch.full(encoded["input_ids"].shape, IGNORED)
    for row, origin in enumerate(origins.tolist()):
        words = rows[origin]["words"]  # of an Arrow table, whose columns have one type: all floats
        weights = {place: weight for first, last, weight in words for place in range(int(first), int(last))}
        for column, (first, last) in enumerate(spans[row].tolist()):
            if last > first:
                taught[row, column] = weights.get(first, REST)
    return {**encoded, "taught": taught}
