"""`pcc-bench prompt` and `pcc-bench serve-check`: memories for a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pcc_bench.core.errors import UsageError

Memory = Annotated[Path, typer.Argument(help="A memory file ('pcc-bench compress', .safetensors).")]
Decoder = Annotated[
    str | None, typer.Option(help="The decoder, folder or hub id; by default the one the memory records.")
]
Checkpoint = Annotated[
    str | None, typer.Option(help="Of a method that brings its own decoder, where it is not the one recorded.")
]
Words = Annotated[str, typer.Option("--prompt", help="Words of the question: official (the paper's), short or chat.")]
Tokens = Annotated[int, typer.Option(min=1, help="Most tokens of the answer.")]
Device = Annotated[str | None, typer.Option(help="Of our own decoder: cuda, cpu ...; a GPU by default.")]
Dtype = Annotated[str, typer.Option(help="Of our own decoder: auto, float32, bfloat16 or float16.")]


def prompt(
    memory: Memory,
    question: Annotated[str, typer.Option(help="What to ask of the memory.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="A .pt (input vectors) or .json (body of a request).")],
    chat: Annotated[
        bool, typer.Option("--chat", help="The memory alone, for a part of a chat. Another protocol, see below.")
    ] = False,
    words: Words = "official",
    max_new_tokens: Tokens = 30,
    decoder: Decoder = None,
    checkpoint: Checkpoint = None,
    device: Device = None,
    dtype: Dtype = "auto",
) -> None:
    """Write the exact input vectors of a memory and a question, for vLLM's endpoints.

    What is written is what our decoder reads: BOS, boundary vectors, slots, embedded text. With --chat it is the memory
    alone: the server's chat template then stands around it, with which no method was trained, so that scores of the two
    protocols are not to be compared.

    Example: `pcc-bench prompt book.safetensors --question "Who is the captain?" -o prompt.json`
    """
    from pcc_bench.host.api import open_memory
    from pcc_bench.host.serving.prompt import write

    opened = open_memory(memory, decoder, checkpoint, device or "auto", dtype)
    written = write(opened, question, words, max_new_tokens, out, chat)
    length, width = written.vectors.shape
    kind = str(written.vectors.dtype).removeprefix("torch.")
    typer.echo(f"written: {out} ({length} vectors of width {width}, {kind}, for {written.endpoint})")
    if out.suffix == ".json":
        typer.echo(f"ask: curl http://HOST:8000{written.endpoint} -H 'Content-Type: application/json' -d @{out}")
    else:
        typer.echo(f"base64 of this file is the field; ask with it: {written.sampling.fields()}")


def serve_check(
    url: Annotated[str, typer.Argument(help="A vLLM server, http://HOST:8000; #NAME chooses among several models.")],
    memory: Memory,
    question: Annotated[list[str] | None, typer.Option(help="What to ask of the memory; repeatable.")] = None,
    questions: Annotated[Path | None, typer.Option(help="A UTF-8 file with a question a line.")] = None,
    words: Words = "official",
    max_new_tokens: Tokens = 30,
    decoder: Decoder = None,
    checkpoint: Checkpoint = None,
    device: Device = None,
    dtype: Dtype = "auto",
) -> None:
    """Ask a running vLLM server about a memory, and compare with the greedy answer of our own decoder.

    Ends with status 1 where an answer differs. In float32 on both sides answers are equal but for near ties; in
    bfloat16 they part where two tokens are nearly as likely.

    Example: `pcc-bench serve-check http://localhost:8000 book.safetensors --question "Who is the captain?"`
    """
    from pcc_bench.core.documents import read_text
    from pcc_bench.core.texttable import TextTable
    from pcc_bench.host.api import open_memory
    from pcc_bench.host.serving.engines import Server
    from pcc_bench.host.serving.prompt import compare

    asked = list(question or ())
    if questions is not None:
        asked += [line.strip() for line in read_text(questions).splitlines() if line.strip()]
    if not asked:
        raise UsageError("there is nothing to ask: pass --question, or --questions FILE")
    server = Server(url)
    opened = open_memory(memory, decoder, checkpoint, device or "auto", dtype)
    results = compare(server, opened, asked, words, max_new_tokens)
    rows = [
        ("yes" if r.equal else f"to token {r.same} of {r.tokens}", repr(r.question), repr(r.ours), repr(r.theirs))
        for r in results
    ]
    typer.echo(TextTable(("equal", "question", "our answer", "the server's"), tuple(rows)).markdown())
    equal = sum(r.equal for r in results)
    typer.echo(f"\n{equal} of {len(results)} answers of {server.model.id} at {server.url} equal ours")
    if equal < len(results):
        raise typer.Exit(1)
