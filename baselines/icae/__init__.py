"""ICAE, the In-context Autoencoder (Ge et al., ICLR 2024; getao/icae, code/icae_v1 and code/icae_v2).

One language model is used twice. With LoRA it reads a span of text followed by learned memory tokens, whose last hidden
states (after the final norm) are the slots; without LoRA, and unchanged, it reads the slots in place of the text.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import nn

from pcc_bench.baselines import weights
from pcc_bench.baselines.icae import files
from pcc_bench.baselines.soft import CausalEncoder, Purpose, SoftCompressor, drawn_vectors
from pcc_bench.core import shipped
from pcc_bench.core.checkpoint_files import resolve, under
from pcc_bench.core.compressor import Frame, Layout
from pcc_bench.core.decoder import Decoder, check_window
from pcc_bench.core.errors import UsageError

TaskToken = Literal["ae", "lm", "ft"]
TASK_TOKENS: dict[TaskToken, int] = {"ae": -3, "lm": -2, "ft": -1}  # rows of the table
USES: dict[Purpose, TaskToken] = {"reconstruct": "ae", "continue": "lm", "answer": "ft"}
MAX_SPANS = 64  # of an exported checkpoint: no context of the lab is longer


class IcaeCompressor(SoftCompressor):
    """In-context Autoencoder. The original reads one context a prompt; here each of several gets its own slots."""

    name = "icae"
    default = "icae-lab-4x"
    label = "ICAE"
    summary = "a language model with LoRA writes slots for itself without LoRA (ICLR 2024)"
    encoder: "IcaeEncoder"

    def __init__(self, encoder: "IcaeEncoder", settings: files.IcaeSettings, digest: str) -> None:
        behind = None if settings.use == "none" else encoder.task_vector(settings.use)
        super().__init__(encoder, digest, settings.rate, behind)
        self.version, self.use, self._settings = settings.version, settings.use, settings
        template = (settings.opening, settings.closing)
        self._template = [self.decoder.tokenizer.encode(text, add_special_tokens=False) for text in template]

    @classmethod
    def decoder_path(cls, pretrained: str, decoder: str | None) -> str:
        """The base model, which published files do not name and a `config.json` beside ours does."""
        if decoder:
            return decoder
        path = Path(shipped.located(pretrained))
        folder = path.parent if path.is_file() else path
        if name := files.IcaeConfig.read(folder).base_model_name_or_path:
            return shipped.beside(name, folder)
        raise UsageError(
            "icae needs its base model: pass decoder=<folder or hub id> (mistralai/Mistral-7B-Instruct-v0.2 for the "
            "published version 2, meta-llama/Llama-2-7b-chat-hf for version 1)"
        )

    @classmethod
    def recorded_rate(cls, pretrained: str, options: Mapping[str, Any]) -> float:
        given = super().recorded_rate(pretrained, options)
        return given if given is not None else float(files.IcaeConfig.read(resolve(pretrained)).rate)

    @classmethod
    def load(
        cls,
        pretrained: str,
        decoder: Decoder,
        *,
        file: str | None = None,  # its name, where a folder holds several (`sggetao/icae` does)
        version: int | None = None,  # see `IcaeConfig`, and so the following; by default as a `config.json` says
        use: files.Use | None = None,  # `ft` by default, which the pretrained-only file does not offer
        rate: PositiveInt | None = None,  # 4
        max_spans: PositiveInt | None = None,  # 1 in version 1 and 10 in version 2
        lora_rank: int | None = None,  # refuse a file of another rank
        lora_alpha: PositiveFloat | None = None,  # 32
        opening: str | None = None,  # `[INST]`
        closing: str | None = None,  # `[/INST]`
    ) -> Self:
        """Load a published file, or the whole state the original code saves, from a file, folder or hub id."""
        options: dict[str, Any] = {"version": version, "use": use, "rate": rate, "max_spans": max_spans}
        options |= {"lora_alpha": lora_alpha, "opening": opening, "closing": closing}
        path = weights.find(pretrained, file)
        state = weights.read(path)
        settings = files.IcaeConfig.read(path.parent).settings(options, path, state)
        own = files.own_weights(state, path, decoder, lora_rank)
        rank = next(len(value) for key, value in own.items() if ".lora_A." in key)
        values = under(f"{files.PREFIX}{decoder.model.base_model_prefix}.", own)
        # over the decoder's weights, but in modules of its own, so that the decoder itself has no LoRA
        body = weights.inject(weights.twin(decoder.model.base_model), files.TARGETS, rank, settings.lora_alpha, values)
        body.eval().requires_grad_(False)
        table = own[files.TABLE].to(decoder.device, decoder.dtype)
        encoder = IcaeEncoder(decoder, body, table, settings.rate, settings.max_spans)
        return cls(encoder, settings, weights.digest(own, decoder))

    @cached_property
    def layout(self) -> Layout:
        """With `use=ft`, BOS and `[INST]` ... `[/INST]` around the prompt in version 2, FT behind it in version 1."""
        # With `use=ae` a memory ends with the AE token already. Version 1 was trained to end on id 1, Llama's BOS, or
        # any id beyond the vocabulary; version 2 never chooses one beyond it.
        first, tuned = self.version == 1, self.use == "ft"
        behind = Frame(closing=self.behind) if first and tuned else Frame()
        beyond = tuple(range(len(self.decoder.tokenizer), self.decoder.embedding.weight.shape[0]))
        frame, framed = (Frame(*self._template), True) if tuned and not first else (behind, False)
        reconstruction = Frame() if self.use == "ae" else None
        stops, suppressed = ((*self.decoder.bos, *beyond), ()) if first else ((), beyond)
        return Layout(framed, frame, behind, reconstruction, stop_token_ids=stops, suppressed_token_ids=suppressed)

    def options(self) -> dict[str, Any]:
        return self._settings.model_dump(exclude={"model_type", "base_model_name_or_path"})


class IcaeEncoder(CausalEncoder):
    """Writes each span's memory tokens, by the base model's body with LoRA over the same weights."""

    adds_special_tokens: ClassVar[bool] = True

    def __init__(self, decoder: Decoder, body: nn.Module, table: torch.Tensor, rate: int, max_spans: int) -> None:
        super().__init__(decoder, body)
        # [memory tokens + 3, width]: the memory tokens, then AE, LM and FT
        self.table = table if isinstance(table, nn.Parameter) else nn.Parameter(table, requires_grad=False)
        self.max_spans = max_spans
        memory_tokens = len(table) - len(TASK_TOKENS)
        self.resize(memory_tokens * rate, rate)
        what = f"icae: a span of {self.capacity} tokens with {memory_tokens} memory tokens"
        check_window(decoder.model.config, self.capacity + memory_tokens, what, "pass a lower rate")

    @classmethod
    def start(cls, decoder: Decoder, segment_length: int, rate: int, rank: int, seed: int) -> Self:
        table = nn.Parameter(drawn_vectors(decoder, segment_length // rate + len(TASK_TOKENS), seed))
        body = weights.trainable(weights.twin(decoder.model.base_model), files.TARGETS, rank, alpha=rank, seed=seed)
        return cls(decoder, body, table, rate, MAX_SPANS)

    def resize(self, segment_length: int, rate: int) -> None:
        self.capacity, self.rate = segment_length, rate  # as many of the memory tokens are used as the rate leaves

    @property
    def limit(self) -> int:
        return self.max_spans * self.capacity

    @property
    def memory_tokens(self) -> torch.Tensor:
        """[memory tokens in use, width]."""
        return self.table[: self.capacity // self.rate]

    def task_vector(self, task: TaskToken) -> torch.Tensor:
        """The vector behind the slots: [1, width]."""
        return self.table[TASK_TOKENS[task]][None]

    def encode(self, contexts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Slots of each context: [spans x memory tokens, width]."""
        cut = [spans(ids, self.capacity) for ids in contexts]
        rows = iter(self.read([(span, self.memory_tokens) for pieces in cut for span in pieces]))
        return [torch.cat([self.table[:0], *(next(rows)[len(span) :] for span in pieces)]) for pieces in cut]

    def prompt(self, vectors: torch.Tensor, purpose: Purpose) -> torch.Tensor:
        start = self.decoder.bos if purpose == "answer" else []
        return torch.cat([self.decoder.embed(start), vectors, self.task_vector(USES[purpose])])

    def export(self, folder: Path, base: str) -> None:
        """Version 2, whose questions stand in no `[INST]`."""
        prefix = self.decoder.model.base_model_prefix
        layers = {f"{prefix}.{layer}": pair for layer, pair in weights.lora_of(self.body).items()}
        sizes: dict[str, Any] = {"rate": self.rate, "max_spans": MAX_SPANS, "lora_alpha": weights.rank_of(layers)}
        config = files.IcaeConfig(base_model_name_or_path=base, version=2, opening="", closing="", **sizes)
        files.export_icae(folder, layers, self.table, config)


def spans(ids: Sequence[int], capacity: int) -> list[list[int]]:
    """Cut a context into as few spans as hold it, all of one length but the last: 70 for 32 gives 24, 24, 22."""
    count = max(1, -(-len(ids) // capacity))
    length = max(1, -(-len(ids) // count))
    return [list(ids[start : start + length]) for start in range(0, len(ids), length)]
