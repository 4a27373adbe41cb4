"""Where a decoder runs that is not in our hands: a vLLM server somewhere, or vLLM in this process; what these take.

The format is that of vLLM 0.32.0: `safe_load_prompt_embeds` (vllm/renderers/embed_utils.py) and `CompletionRequest`
(vllm/entrypoints/openai/completion/protocol.py). In one request `prompt` and `prompt_embeds` are two prompts with two
answers, never joined, so a prompt with a memory in it goes as vectors altogether.
"""

import base64
import http.client
import importlib
import io
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import BaseModel, Field

from pcc_bench.core import documents
from pcc_bench.core.decoder import check_window
from pcc_bench.core.errors import UsageError, first_line
from pcc_bench.core.generation import DecoderInput, end_token_ids
from pcc_bench.core.memory_file import Reader
from pcc_bench.core.plan import Plan, positions
from pcc_bench.core.processors import set_by_decoder
from pcc_bench.core.questions import question_prompt
from pcc_bench.host.compressing import ContextMemory, continued_ids

BAN = -100.0  # added to the logits of ids that an answer may not contain: the most vLLM takes
PLACEHOLDER = "<prompt_embeds>"  # vLLM's own mark of a memory among the words of a chat
SAMPLING = ("temperature", "top_p", "top_k", "min_p")
SECONDS = 3600.0  # a batch of long answers on a slow machine
START, SERVED = "vllm serve DECODER --enable-prompt-embeds", "backend=http://HOST:8000"
KEY = "VLLM_API_KEY"


def sampling(
    reader: Reader, max_tokens: int, stop: Sequence[str] = (), options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The fields of a request that draw an answer as our own decoder does with `options` of transformers' `generate`.

    Each value is stated, since a server has defaults of its own. An option that vLLM has not, or counts over other
    tokens, is refused.
    """
    given = {**set_by_decoder(reader.decoder), **(options or {})}
    samples = bool(given.pop("do_sample", False))
    fields: dict[str, Any] = {"max_tokens": max_tokens, "temperature": float(samples), "top_p": 1.0, "top_k": 0}
    fields |= {"min_p": 0.0, "repetition_penalty": 1.0, "stop": list(stop)}
    fields["stop_token_ids"] = sorted(end_token_ids(reader.decoder, reader.layout.stop_token_ids))
    if banned := reader.layout.suppressed_token_ids:
        fields["logit_bias"] = {str(token): BAN for token in banned}
    for name, value in given.items():
        if name not in SAMPLING and value not in (None, False, 0, 1, 1.0):  # which are off
            remedy = f"switch it off with --gen_kwargs '{{\"{name}\": null}}', or run without backend="
            raise UsageError(f"{name}={value!r} goes by other tokens in vLLM, or is not known to it: {remedy}")
        if name in SAMPLING and samples and value is not None:
            fields[name] = int(value) if name == "top_k" else float(value)
    return fields


def payload(vectors: torch.Tensor) -> str:
    """Input vectors [length, hidden size] as a field `prompt_embeds`: base64 of what `torch.save` writes."""
    return base64.b64encode(saved(vectors)).decode("ascii")


def saved(vectors: torch.Tensor) -> bytes:
    """What `torch.save` writes of input vectors alone, not of the tensor they may be a part of."""
    buffer = io.BytesIO()
    torch.save(vectors.detach().cpu().contiguous().clone(), buffer)
    return buffer.getvalue()


def completion(prompts: Sequence[DecoderInput], fields: dict[str, Any]) -> dict[str, Any]:
    """The body of a request to `/v1/completions`: prompts that are all vectors, or all token ids."""
    field = "prompt_embeds" if isinstance(prompts[0], torch.Tensor) else "prompt"
    parts = [payload(prompt) if isinstance(prompt, torch.Tensor) else list(prompt) for prompt in prompts]
    return {field: parts, **fields, "return_token_ids": True}


class ServedModel(BaseModel):
    id: str
    root: str | None = None
    max_model_len: int | None = None


class Models(BaseModel):  # `/v1/models`
    data: Annotated[list[ServedModel], Field(min_length=1)]


class Choice(BaseModel):
    index: Annotated[int, Field(ge=0)]
    text: str
    token_ids: list[Annotated[int, Field(ge=0, lt=1 << 31)]] | None = None


class Completion(BaseModel):  # `/v1/completions`
    choices: list[Choice]


class Server:
    """A vLLM server that takes input vectors: `http://HOST:PORT`; `#NAME` chooses among several models."""

    def __init__(self, url: str) -> None:
        place, _, name = url.partition("#")
        if not place.startswith(("http://", "https://")):
            raise UsageError(f"'{place[:200]}' is no address of a server: write http://HOST:8000")
        self.url = place.rstrip("/").removesuffix("/v1")
        served = documents.checked(Models, self.call("models"), f"the answer of {self.url}/v1/models").data
        names = [model.id for model in served]
        if name and name not in names:
            raise UsageError(f"{self.url} serves {', '.join(names)}, not {name}: name one of them")
        if not name and len(names) > 1:
            raise UsageError(f"{self.url} serves {', '.join(names)}: name one, as {self.url}#{names[0]}")
        self.model = served[names.index(name)] if name else served[0]

    def call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON answer of an endpoint; UsageError where there is none, or it is an error."""
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(f"{self.url}/v1/{path}", data, headers)
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return documents.parse_json(answer.read().decode("utf-8", "replace"), f"the answer of {self.url}")
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")
            with suppress(UsageError, TypeError, KeyError):
                text = str(documents.parse_json(text, self.url)["error"]["message"])
            hint = f": start it with {START}" if "enable-prompt-embeds" in text else ""
            hint = f": set {KEY}" if error.code == 401 else hint
            said = " ".join(text.split())[:300]
            raise UsageError(f"{self.url} refused the request ({error.code}: {said}){hint}") from None
        except UsageError:
            raise
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or first_line(error)
            shown = f"no vLLM server answers at {self.url} ({reason}): start one with {START}"
            raise UsageError(" ".join(shown.split())) from None

    def generate(self, prompts: Sequence[DecoderInput], fields: dict[str, Any]) -> list[list[int]]:
        """New token ids of each prompt, the one that ended it included; prompts are all vectors or all token ids."""
        where = f"the answer of {self.url}/v1/completions"
        state = self.call("completions", {"model": self.model.id, **completion(prompts, fields)})
        choices = sorted(documents.checked(Completion, state, where).choices, key=lambda choice: choice.index)
        if [choice.index for choice in choices] != list(range(len(prompts))):
            raise UsageError(f"{where} has {len(choices)} answers to {len(prompts)} prompts: is it vLLM?")
        if any(choice.token_ids is None for choice in choices):
            raise UsageError(f"{where} has no token ids: update vLLM")
        return [choice.token_ids or [] for choice in choices]

    def describe(self) -> dict[str, Any]:
        return {"engine": "vllm server", "url": self.url, **self.model.model_dump()}


class InProcess:
    """vLLM in this process, beside the compressor; `share` of the device's memory is its own."""

    def __init__(self, decoder: str, dtype: str, window: int, share: float) -> None:
        try:
            self._vllm = importlib.import_module("vllm")  # wants other versions of what we stand on: no dependency
        except ImportError as error:
            remedy = f"install it, or start a server elsewhere ({START}) and pass {SERVED}"
            raise UsageError(f"backend=vllm needs vLLM in this environment ({first_line(error)}): {remedy}") from None
        try:
            sizes = {"max_model_len": window, "gpu_memory_utilization": share}
            self.llm = self._vllm.LLM(model=decoder, dtype=dtype, enable_prompt_embeds=True, **sizes)
        except (RuntimeError, ValueError, TypeError, OSError) as error:
            remedy = f"lower backend_memory ({share:g}) or max_length, or run it as a server and pass {SERVED}"
            raise UsageError(f"vLLM can't load '{decoder}' ({first_line(error)}): {remedy}") from error

    def generate(self, prompts: Sequence[DecoderInput], fields: dict[str, Any]) -> list[list[int]]:
        inputs = [
            {"prompt_token_ids": prompt} if isinstance(prompt, list) else {"prompt_embeds": prompt.detach().cpu()}
            for prompt in prompts
        ]
        bans = {int(token): bias for token, bias in fields.get("logit_bias", {}).items()}
        fields = {**fields, "logit_bias": bans or None}
        outputs = self.llm.generate(inputs, self._vllm.SamplingParams(**fields), use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    def describe(self) -> dict[str, Any]:
        return {"engine": "vllm", "version": self._vllm.__version__}


Engine = Server | InProcess


class Written(NamedTuple):
    vectors: torch.Tensor  # the input vectors, [length, hidden size]
    endpoint: str  # that takes them
    fields: dict[str, Any]  # what to ask for beside them


def plan_of(memory: ContextMemory, question: str, prompt: str) -> Plan:
    """What the decoder reads of a memory and a question; UsageError where a server would number positions otherwise."""
    if not question.strip():
        raise UsageError("--question is empty: ask something")
    plan = memory.plan(question, prompt)
    if positions([plan], memory.compressor.layout.memory_position) is not None:
        raise UsageError(f"{memory.compressor.name} numbers positions in its own way, which no server can be told")
    return plan


def write(memory: ContextMemory, question: str, prompt: str, max_new_tokens: int, path: Path, as_chat: bool) -> Written:
    """Write a prompt for vLLM: a tensor (`.pt`) or a request (`.json`); `as_chat`: for a chat, another protocol."""
    if path.suffix not in (".pt", ".json"):
        raise UsageError(f"{path}: name a file .pt (the input vectors) or .json (the body of a request)")
    words = question_prompt(prompt)
    fields = sampling(memory.compressor, max_new_tokens, words.until)
    plan = plan_of(memory, question, prompt)
    if as_chat:  # the memory alone, words behind it, under the server's template
        if PLACEHOLDER in question:
            raise UsageError(f"the question has {PLACEHOLDER} in it, which vLLM keeps for itself: leave it out")
        if memory.memory.vectors is None:
            raise UsageError(f"{memory.compressor.name} leaves text, which is a text part of a chat: no --chat for it")
        vectors = memory.memory.vectors
        parts = [{"type": "prompt_embeds", "data": payload(vectors)}, {"type": "text", "text": words.asking(question)}]
        body = {"messages": [{"role": "user", "content": parts}], **fields, "return_token_ids": True}
    else:
        decoder, what = memory.compressor.decoder, f"the prompt with an answer of {max_new_tokens}"
        check_window(decoder.model.config, plan.span + max_new_tokens, what, "compress more, or split the text")
        vectors = plan.vectors(decoder)
        body = completion([vectors], fields)
    if path.suffix == ".json":
        documents.write_text(path, json.dumps(body) + "\n")
    else:
        with documents.replaced(path) as part:
            part.write_bytes(saved(vectors))
    return Written(vectors, "/v1/chat/completions" if as_chat else "/v1/completions", fields)


class Compared(NamedTuple):  # an answer of the server beside ours
    question: str
    ours: str  # our decoder's greedy answer
    theirs: str  # the server's
    same: int  # new tokens that are equal from the start
    tokens: int  # new tokens of ours
    equal: bool  # are all new tokens equal?


def compare(
    server: Server, memory: ContextMemory, questions: Sequence[str], prompt: str, max_new_tokens: int
) -> list[Compared]:
    """Ask a server and our own decoder the same questions of a memory, greedily."""
    compressor, words, results = memory.compressor, question_prompt(prompt), []
    fields = sampling(compressor, max_new_tokens, words.until)
    for question in questions:
        plan = plan_of(memory, question, prompt)
        own = continued_ids(compressor, plan, max_new_tokens, words.until, {})
        (ids,) = server.generate([plan.vectors(compressor.decoder)], fields)
        same = next((i for i, (a, b) in enumerate(zip(own, ids, strict=False)) if a != b), min(len(own), len(ids)))
        ours, theirs = (str(compressor.decoder.tokenizer.decode(row, skip_special_tokens=True)) for row in (own, ids))
        results.append(Compared(question, ours, theirs, same, len(own), own == ids))
    return results
