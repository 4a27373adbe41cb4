"""What vLLM's endpoints take: input vectors as base64 of a saved tensor, and how an answer is drawn from them.

The format is that of vLLM 0.32.0: `safe_load_prompt_embeds` (vllm/renderers/embed_utils.py) and `CompletionRequest`
(vllm/entrypoints/openai/completion/protocol.py). In one request `prompt` and `prompt_embeds` are two prompts with two
answers, never joined, so a prompt with a memory in it goes as vectors altogether.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pcc_bench.core.compressor import Reader
from pcc_bench.core.errors import UsageError
from pcc_bench.core.generation import DecoderInput, end_token_ids
from pcc_bench.core.processors import set_by_decoder

BAN = -100.0  # added to the logits of ids that an answer may not contain: the most vLLM takes
PLACEHOLDER = "<prompt_embeds>"  # vLLM's own mark of a memory among the words of a chat
SAMPLING = ("temperature", "top_p", "top_k", "min_p")


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn. Each value is stated, since a server has defaults of its own."""

    max_tokens: int  # most new tokens
    stop: tuple[str, ...]  # texts that end it
    stop_token_ids: tuple[int, ...]  # ids that end it
    banned: tuple[int, ...]  # ids that are never chosen
    settings: Mapping[str, float]  # temperature and the like; greedy by default

    @classmethod
    def of(
        cls, reader: Reader, max_tokens: int, stop: Sequence[str] = (), options: Mapping[str, Any] | None = None
    ) -> Sampling:
        """As our own decoder draws it with these `options` of transformers' `generate`.

        An option that vLLM has not, or counts over other tokens, is refused.
        """
        given = {**set_by_decoder(reader.decoder), **(options or {})}
        samples = bool(given.pop("do_sample", False))
        settings = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
        for name, value in given.items():
            if value in (None, False, 0, 1, 1.0) and name not in SAMPLING:
                continue  # off
            if name not in SAMPLING:
                raise UsageError(
                    f"{name}={value!r} goes by other tokens in vLLM, or is not known to it: switch it off with "
                    f"--gen_kwargs '{{\"{name}\": null}}', or run without backend="
                )
            if samples and value is not None:
                settings[name] = float(value)
        if samples and "temperature" not in given:
            settings["temperature"] = 1.0
        ends = tuple(sorted(end_token_ids(reader.decoder, reader.layout.stop_token_ids)))
        return cls(max_tokens, tuple(stop), ends, tuple(reader.layout.suppressed_token_ids), settings)

    def fields(self) -> dict[str, Any]:
        """The same as fields of a request."""
        state: dict[str, Any] = {"max_tokens": self.max_tokens, **self.settings, "top_k": int(self.settings["top_k"])}
        state |= {"stop": list(self.stop), "stop_token_ids": list(self.stop_token_ids)}
        return state | ({"logit_bias": {str(token): BAN for token in self.banned}} if self.banned else {})


def payload(vectors: torch.Tensor) -> str:
    """Input vectors [length, hidden size] as a field `prompt_embeds`: base64 of what `torch.save` writes."""
    return base64.b64encode(saved(vectors)).decode("ascii")


def saved(vectors: torch.Tensor) -> bytes:
    """What `torch.save` writes of input vectors alone, not of the tensor they may be a part of."""
    buffer = io.BytesIO()
    torch.save(vectors.detach().cpu().contiguous().clone(), buffer)
    return buffer.getvalue()


def completion(prompts: Sequence[DecoderInput], sampling: Sampling) -> dict[str, Any]:
    """The body of a request to `/v1/completions`: prompts that are all vectors, or all token ids."""
    field = "prompt_embeds" if isinstance(prompts[0], torch.Tensor) else "prompt"
    parts = [payload(prompt) if isinstance(prompt, torch.Tensor) else list(prompt) for prompt in prompts]
    return {field: parts, **sampling.fields(), "return_token_ids": True}


def chat(memory: torch.Tensor, question: str, sampling: Sampling) -> dict[str, Any]:
    """The body of a request to `/v1/chat/completions`: a memory alone, words behind it, under the server's template."""
    if PLACEHOLDER in question:
        raise UsageError(f"the question has {PLACEHOLDER} in it, which vLLM keeps for itself: leave it out")
    parts = [{"type": "prompt_embeds", "data": payload(memory)}, {"type": "text", "text": question}]
    return {"messages": [{"role": "user", "content": parts}], **sampling.fields(), "return_token_ids": True}
