"""A server that takes a request as vLLM 0.32.0 does (its checks, in its order) and answers with a model of ours."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from pcc_bench.core.decoder import Decoder
from pcc_bench.core.generation import DecoderInput, generate
from pcc_bench.host.serving import BAN

FIELDS = {
    "model",
    "prompt",
    "prompt_embeds",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "stop",
    "messages",
}
FIELDS |= {"repetition_penalty", "stop_token_ids", "logit_bias", "return_token_ids"}


class Refused(Exception):
    """A request that vLLM answers with status 400."""


def vectors_of(field: str, decoder: Decoder) -> torch.Tensor:
    """As vLLM's `safe_load_prompt_embeds`."""
    tensor = torch.load(io.BytesIO(base64.b64decode(field, validate=True)), weights_only=True)
    if not isinstance(tensor, torch.Tensor):
        raise Refused("`prompt_embeds` payload did not deserialize to a torch.Tensor.")
    tensor = tensor.to_dense()
    tensor = tensor.squeeze(0) if tensor.dim() > 2 else tensor
    if tensor.dim() != 2 or tensor.shape[1] != decoder.hidden_size:
        raise Refused(f"`prompt_embeds` hidden_size {tensor.shape} does not match {decoder.hidden_size}.")
    if not tensor.is_floating_point():
        raise Refused(f"`prompt_embeds` dtype {tensor.dtype} is not a floating-point type")
    return tensor


class Stub:
    """What the server serves, and what it was asked.

    Args:
        decoder: Answers.
        takes_vectors: Was it started with `--enable-prompt-embeds`?
        names: Of the models it serves.
    """

    def __init__(self, decoder: Decoder, takes_vectors: bool = True, names: tuple[str, ...] = ("toy",)) -> None:
        self.decoder = decoder
        self.takes_vectors = takes_vectors
        self.names = names
        self.bodies: list[dict[str, Any]] = []
        self.read: list[DecoderInput] = []

    def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name, "root": "toy", "max_model_len": 2048} for name in self.names]}

    def completions(self, body: dict[str, Any]) -> dict[str, Any]:
        self.bodies.append(body)
        if unknown := set(body) - FIELDS:
            raise Refused(f"unknown fields {unknown}")
        if body["model"] not in self.names:
            raise Refused("no such model")
        if "prompt_embeds" in body and not self.takes_vectors:
            raise Refused("You must set `--enable-prompt-embeds` to input `prompt_embeds`.")
        prompts: list[DecoderInput] = [vectors_of(part, self.decoder) for part in body.get("prompt_embeds", [])]
        prompts += body.get("prompt", [])
        self.read += prompts
        banned = [int(token) for token, value in body.get("logit_bias", {}).items() if value == BAN]
        assert body["temperature"] == 0.0
        rows = [
            generate(self.decoder, [prompt], body["max_tokens"], body["stop_token_ids"], banned).ids[0]
            for prompt in prompts
        ]
        text = self.decoder.tokenizer.decode
        choices = [{"index": i, "text": text(row), "token_ids": row} for i, row in enumerate(rows)]
        return {"object": "text_completion", "choices": choices[::-1]}  # in no order


@contextmanager
def serving(stub: Stub) -> Iterator[str]:
    """The address of a server of this process."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

        def answer(self, status: int, state: Any) -> None:
            data = json.dumps(state).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.answer(200, stub.models())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                self.answer(200, stub.completions(body))
            except Refused as error:
                self.answer(400, {"error": {"message": str(error), "type": "BadRequestError"}})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
