"""Where a decoder runs that is not in our hands: a vLLM server somewhere, or vLLM in this process."""

from __future__ import annotations

import http.client
import importlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from pcc_bench.core import documents
from pcc_bench.core.errors import UsageError, first_line
from pcc_bench.core.generation import DecoderInput
from pcc_bench.host.serving.wire import BAN, Sampling, completion

SECONDS = 3600.0  # a batch of long answers on a slow machine
START = "vllm serve DECODER --enable-prompt-embeds"
KEY = "VLLM_API_KEY"


class Engine(Protocol):
    """Answers prompts."""

    def generate(self, prompts: Sequence[DecoderInput], sampling: Sampling) -> list[list[int]]:
        """New token ids of each prompt, the one that ended it included; prompts are all vectors or all token ids."""

    def describe(self) -> dict[str, Any]:
        """What it is, for the results."""


class _Foreign(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class ServedModel(_Foreign):
    """An entry of `/v1/models`."""

    id: str
    root: str | None = None
    max_model_len: int | None = None


class Models(_Foreign):
    """The answer of `/v1/models`."""

    data: Annotated[list[ServedModel], Field(min_length=1)]


class Choice(_Foreign):
    """One answer of `/v1/completions`."""

    index: Annotated[int, Field(ge=0)]
    text: str
    token_ids: list[Annotated[int, Field(ge=0, lt=1 << 31)]] | None = None


class Completion(_Foreign):
    """The answer of `/v1/completions`."""

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

    def complete(self, body: dict[str, Any], count: int) -> list[Choice]:
        """Answers of `/v1/completions`, in the order of the prompts, each with token ids."""
        where = f"the answer of {self.url}/v1/completions"
        state = self.call("completions", {"model": self.model.id, **body})
        choices = sorted(documents.checked(Completion, state, where).choices, key=lambda choice: choice.index)
        if [choice.index for choice in choices] != list(range(count)):
            raise UsageError(f"{where} has {len(choices)} answers to {count} prompts: is it vLLM?")
        if any(choice.token_ids is None for choice in choices):
            raise UsageError(f"{where} has no token ids: update vLLM")
        return choices

    def generate(self, prompts: Sequence[DecoderInput], sampling: Sampling) -> list[list[int]]:
        """As `Engine.generate`, all prompts in one request."""
        return [choice.token_ids or [] for choice in self.complete(completion(prompts, sampling), len(prompts))]

    def describe(self) -> dict[str, Any]:
        """Address, model and window."""
        return {"engine": "vllm server", "url": self.url, **self.model.model_dump()}


class InProcess:
    """vLLM in this process, beside the compressor; `share` of the device's memory is its own."""

    def __init__(self, decoder: str, dtype: str, window: int, share: float) -> None:
        try:
            self._vllm = importlib.import_module("vllm")  # wants other versions of what we stand on: no dependency
        except ImportError as error:
            raise UsageError(
                f"backend=vllm needs vLLM in this environment ({first_line(error)}): install it, or start a server "
                f"elsewhere ({START}) and pass backend=http://HOST:8000"
            ) from None
        try:
            self.llm = self._vllm.LLM(
                model=decoder,
                dtype=dtype,
                max_model_len=window,
                enable_prompt_embeds=True,
                gpu_memory_utilization=share,
            )
        except (RuntimeError, ValueError, TypeError, OSError) as error:
            raise UsageError(
                f"vLLM can't load '{decoder}' ({first_line(error)}): lower backend_memory ({share:g}) or max_length, "
                "or run it as a server and pass backend=http://HOST:8000"
            ) from error

    def generate(self, prompts: Sequence[DecoderInput], sampling: Sampling) -> list[list[int]]:
        """As `Engine.generate`."""
        inputs = [
            {"prompt_token_ids": prompt} if isinstance(prompt, list) else {"prompt_embeds": prompt.detach().cpu()}
            for prompt in prompts
        ]
        fields = sampling.fields()
        fields["logit_bias"] = dict.fromkeys(sampling.banned, BAN) or None
        outputs = self.llm.generate(inputs, self._vllm.SamplingParams(**fields), use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    def describe(self) -> dict[str, Any]:
        """Version."""
        return {"engine": "vllm", "version": self._vllm.__version__}


def engine(backend: str, decoder: str, dtype: str, window: int, share: float) -> Engine:
    """The engine that `backend=` names: `vllm`, or the address of a server."""
    return Server(backend) if backend.startswith("http") else InProcess(decoder, dtype, window, share)
