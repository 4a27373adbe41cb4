"""The frozen decoder: a causal LM of transformers with its tokenizer, and the little the methods ask of it."""

import hashlib
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial, wraps
from itertools import islice
from typing import Any, Self, cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pcc_bench.core.checkpoint_files import check_finite
from pcc_bench.core.context import chat_text
from pcc_bench.core.errors import UsageError, foreign

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}  # that a user may name
FIXED = ("default", "linear", "yarn", "llama3", "proportional", "mrope", "axial")
FINGERPRINT_ROWS = 256  # of the embedding
# A CPU is fastest while activations stay in its caches (benchmarks/throughput.py), a GPU when its forwards are large.
BATCH_TOKENS = {"cpu": 1_280}


@dataclass(frozen=True)
class Ropes:
    """What of a decoder's rotations depends on the length of the whole sequence: which prompts go together in a batch.

    With `rope_type: longrope` (Phi-3.5, Phi-3-128k) every key is rotated by one set of factors up to an original window
    and by another beyond it; with `dynamic` the factors change with every length beyond it. transformers chooses by the
    longest row of a batch. A row is decoded as if it were alone if those beside it choose as it does, at every step.
    """

    switching: tuple[int, ...] = ()  # lengths beyond which another set of factors is used
    growing: tuple[int, ...] = ()  # lengths beyond which every length has factors of its own

    @classmethod
    def of(cls, model: PreTrainedModel) -> Self:
        """Those of a decoder; a type that is not known is taken to change with every length."""
        config = model.config.get_text_config(decoder=True)
        switching, growing = set(), set()
        parameters = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
        for rope in [value for value in parameters.values() if isinstance(value, Mapping)] or [parameters]:  # by layers
            kind = str(rope.get("rope_type") or rope.get("type") or "default")
            if kind in ("longrope", "su"):
                original = rope.get("original_max_position_embeddings")
                original = original or getattr(config, "original_max_position_embeddings", None)
                switching.add(int(original or config.max_position_embeddings))
            elif kind not in FIXED:
                growing.add(int(config.max_position_embeddings) if "dynamic" in kind else 0)
        return cls(tuple(sorted(switching)), tuple(sorted(growing)))

    def company(self, positions: int, new_tokens: int) -> Hashable:
        """What rows of a batch must have in common, where `new_tokens` are read behind `positions` of input."""
        switching = (
            int(positions > limit) if positions > limit or positions + new_tokens <= limit else ("across", positions)
            for limit in self.switching
        )
        growing = (0 if positions + new_tokens <= limit else positions for limit in self.growing)
        return (*switching, *growing)

    def stay(self, positions: int) -> bool:  # are rotations up to a length those of the beginning alone?
        return all(positions <= limit for limit in (*self.switching, *self.growing))

    def forget(self, model: PreTrainedModel) -> None:
        """Have a growing rope forget the longest sequence it has read, which would rotate the next one."""
        if self.growing:
            with torch.inference_mode():
                model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)

    @contextmanager
    def rereading(self, model: PreTrainedModel, vectors: torch.Tensor | None) -> Iterator[None]:
        """Have `model.generate` read the whole prompt again where an answer leaves the original window.

        transformers does so for prompts of token ids (Phi-3), whose keys would be rotated by the factors of the window;
        behind a prompt of vectors (`vectors`: [batch, length, hidden size], padded) they stayed so.
        """
        owner: Any = model
        prepare = owner.prepare_inputs_for_generation

        @wraps(prepare)  # transformers looks at its signature
        def prepare_whole(input_ids: torch.Tensor, past_key_values: Any = None, **kwargs: Any) -> Any:
            known = 0 if past_key_values is None else past_key_values.get_seq_length()
            if known not in self.switching or kwargs.get("is_first_iteration"):
                return prepare(input_ids, past_key_values=past_key_values, **kwargs)
            assert vectors is not None
            new = owner.get_input_embeddings()(input_ids).to(vectors.dtype)
            kwargs |= {"inputs_embeds": torch.cat([vectors, new], 1), "is_first_iteration": True}
            return prepare(input_ids, **{**kwargs, "next_sequence_length": None})

        if not self.switching or vectors is None:
            yield
            return
        owner.prepare_inputs_for_generation = prepare_whole
        try:
            yield
        finally:
            del owner.prepare_inputs_for_generation


class Decoder:
    """A causal LM of transformers, frozen here, with its tokenizer; NaN or infinity in its weights is a UsageError."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str = "") -> None:
        check_finite(model.named_parameters(), f"the decoder '{name or type(model).__name__}'")
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name or str(getattr(model.config, "_name_or_path", ""))
        self.adapted = ""  # hash of the weights that a method put into the model

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.weight.dtype

    @property
    def embedding(self) -> torch.nn.Embedding:
        return cast(torch.nn.Embedding, self.model.get_input_embeddings())

    @property
    def hidden_size(self) -> int:  # of an input vector, which is what a memory must match
        return self.embedding.weight.shape[1]

    @property
    def bos(self) -> list[int]:  # none where the decoder has no such token
        return [] if self.tokenizer.bos_token_id is None else [int(self.tokenizer.bos_token_id)]

    @cached_property
    def ropes(self) -> Ropes:
        return Ropes.of(self.model)

    def check_runs(self) -> None:
        """See that it runs: what is wrong with a configuration may show in the first forward only."""
        with foreign(f"the decoder '{self.name}' does not run"), torch.inference_mode():
            logits = self.model(inputs_embeds=self.embed([0])[None], use_cache=False).logits
            if logits.dim() != 3:
                raise UsageError(f"the decoder '{self.name}' gives logits of shape {list(logits.shape)}")

    def not_finite(self, what: str) -> UsageError:
        dtype = str(self.dtype).removeprefix("torch.")
        why = f"its weights or a memory it read hold NaN or infinity, or {dtype} is too narrow"
        remedy = "check the checkpoint with pcc-bench validate, or pass dtype=float32"
        return UsageError(f"the decoder {self.name} gave {what} that are no finite numbers: {why}; {remedy}")

    def adapt(self, weights: str) -> None:
        """Note that a method has put weights (this is their hash) into the model: it is another decoder now."""
        self.adapted = weights
        self.model.eval().requires_grad_(False)
        for cached in ("fingerprint", "weights_fingerprint"):
            self.__dict__.pop(cached, None)

    def embed(self, ids: Sequence[int]) -> torch.Tensor:  # input vectors: [n] -> [n, hidden size]
        return cast(torch.Tensor, self.embedding(torch.tensor(ids, dtype=torch.long, device=self.device)))

    def chat(self, turns: Sequence[Mapping[str, str]], **ends: Any) -> str:
        """Turns (`role`, `content`) in the tokenizer's chat template, as text that says what the turns say."""
        apply = partial(cast(Any, self.tokenizer).apply_chat_template, list(turns), tokenize=False, **ends)
        return chat_text(turns, apply, self.name)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, no special tokens added, look-alikes of special tokens read as ordinary characters."""
        return list(map(len, plain_tokens(self.tokenizer, texts)["input_ids"]))

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of the architecture's sizes and of the first 256 rows of the input embedding.

        Rounded to bfloat16, it does not depend on the dtype; added tokens do not change it, a method's weights do.
        """
        config = self.model.config
        sample = self.embedding.weight.detach()[:FINGERPRINT_ROWS].to(torch.bfloat16).cpu().contiguous()
        digest = hashlib.sha256(repr([config.model_type, config.hidden_size, config.num_hidden_layers]).encode())
        digest.update(sample.view(torch.int16).numpy().tobytes() + self.adapted.encode())
        return digest.hexdigest()[:16]

    @cached_property
    def weights_fingerprint(self) -> str:
        """A short hash of the first values of every parameter: tells fine-tunes and adapters apart, as loaded."""
        return weights_digest(self.model.named_parameters(), first=64)


def weights_digest(tensors: Iterable[tuple[str, torch.Tensor]], start: str = "", first: int | None = None) -> str:
    """A short hash of named tensors behind `start`: of all their bytes, or of the first so many values in float32."""
    digest = hashlib.sha256(start.encode())
    for name, tensor in tensors:
        values = tensor.detach().flatten()
        values = values if first is None else values[:first].float()
        digest.update(name.encode() + values.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def plain_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], **options: Any) -> Any:
    """`input_ids` of each text (and what `options` ask for); look-alikes of special tokens are ordinary characters."""
    if not texts:
        return {"input_ids": [], "offset_mapping": []}
    options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False, **options}
    return tokenizer(list(texts), **options)


def check_window(config: Any, positions: int, what: str, remedy: str) -> None:
    """See that what a model of a configuration reads at once fits its positions."""
    window = getattr(config, "max_position_embeddings", None)
    if window is not None and positions > window:
        raise UsageError(f"{what} takes {positions} positions, the model has {window}: {remedy}")


def now(device: torch.device) -> float:  # seconds on a clock that waits for the device
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def batches(lengths: Sequence[int], device: torch.device, tokens: int | None = None) -> Iterator[list[int]]:
    """Indices of rows, longest first, in batches of at most `tokens`, padding included (by default the device's)."""
    budget = tokens or BATCH_TOKENS.get(device.type, 16_384)
    rows = iter(sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True))
    for row in rows:
        yield [row, *islice(rows, max(0, budget // max(1, lengths[row]) - 1))]
