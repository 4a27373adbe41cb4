"""The verbs of memories: `pcc-bench compress` and `ask`; for a server `prompt` and `serve-check`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Exit, Option, echo

from pcc_bench.cli.terminal import Device, Dtype, Rate, show, takes
from pcc_bench.core.documents import is_unicode, parse_yaml, read_text
from pcc_bench.core.errors import UsageError
from pcc_bench.core.texttable import TextTable

RecordedDecoder = Annotated[str | None, Option("--decoder", help="Folder or hub id; by default the checkpoint's.")]
Method = Annotated[
    str | None, Option("--model", help="Of 'pcc-bench ls methods'; by default the checkpoint's, else pcc.")
]
OwnOptions = Annotated[list[str] | None, Option("--option", help="The method's own, e.g. boundaries=once; repeatable.")]
Words = Annotated[str, Option("--prompt", help="Words of the question: official (the paper's), short or chat.")]
Tokens = Annotated[int, Option(min=1, help="Most tokens of the answer.")]
MemoryFile = Annotated[Path, Argument(help="A memory file ('pcc-bench compress', .safetensors).")]


@dataclass(frozen=True)
class ReaderOptions:
    """How a memory file is opened and asked, for `prompt` and `serve-check`."""

    words: Words = "official"
    max_new_tokens: Tokens = 30
    decoder: Annotated[str | None, Option(help="Folder or hub id; by default the one the memory records.")] = None
    checkpoint: Annotated[str | None, Option(help="Of a method with its own decoder, if not the one recorded.")] = None
    device: Annotated[str | None, Option(help="Of our own decoder: cuda, cpu ...; a GPU by default.")] = None
    dtype: Annotated[str, Option(help="Of our own decoder: auto, float32, bfloat16 or float16.")] = "auto"

    def open(self, memory: Path) -> Any:
        from pcc_bench.host.compressing import open_memory

        return open_memory(memory, self.decoder, self.checkpoint, self.device or "auto", self.dtype)


def compress(
    ckpt: Annotated[str, Argument(help="The checkpoint, folder or hub id.")],
    out: Annotated[Path | None, Option("--output", "-o", help="The memory file to write (.safetensors).")] = None,
    store: Annotated[Path | None, Option(help="A memory store to read it from, or to keep it in.")] = None,
    file: Annotated[Path | None, Argument(help="A UTF-8 text file; - reads standard input.")] = None,
    text: Annotated[str | None, Option(help="The text itself, instead of a file.")] = None,
    method: Method = None,
    query: Annotated[str | None, Option(help="The question, for a method that compresses for one.")] = None,
    rate: Rate = None,
    decoder: RecordedDecoder = None,
    device: Device = None,
    dtype: Dtype = None,
    store_dtype: Annotated[
        str, Option(help="What the store keeps: exact, or slots before the converter in float32 ... int8.")
    ] = "exact",
    option: OwnOptions = None,
) -> None:
    """Compress a text into a memory file, or into a store that evaluations read, and print its counts."""
    from pcc_bench.core import memory_file
    from pcc_bench.host.api import ContextCompressor
    from pcc_bench.host.compressing import compress as compress_text
    from pcc_bench.host.store.store import MemoryStore

    if out is None and store is None:
        raise UsageError("the memory has no place to go: pass --output FILE, --store FOLDER, or both")
    content = read_input(file, text)
    options = parse_options(option or ()) | ({} if rate is None else {"rate": rate})
    pcc = ContextCompressor.from_pretrained(ckpt, method, decoder, device or "auto", dtype or "auto", **options)
    pcc.check_queries([query or ""])
    stored = MemoryStore(store, pcc.compressor, store_dtype) if store else None
    memory = compress_text(content, pcc.compressor, stored, query or "")
    ratios = [f"{ratio:.2f}x" if ratio else "-" for ratio in (memory.ratio, memory.ratio_slots)]
    counts = {
        "source tokens (decoder's tokenizer)": f"{memory.source_tokens:,}",
        "source tokens (compressor's tokenizer)": f"{memory.compressor_tokens:,}",
        "source bytes (UTF-8)": f"{memory.source_bytes:,}",
        "slots": f"{memory.slots:,}",
        "boundary vectors": f"{memory.boundary:,}",
        "requested rate": f"{pcc.compressor.rate:g}x" if pcc.compressor.rate else "-",
        "achieved, boundary vectors counted": ratios[0],
        "achieved, slots only": ratios[1],
        "seconds": f"{memory.seconds:.3f}",
    }
    show(TextTable(("count", "value"), tuple(counts.items())))
    if stored:
        echo(f"memory store {store}: {'it was there' if stored.counts['hits'] else 'written'}")
    if out:
        memory_file.save(memory, pcc.compressor, out)
        echo(f"written: {out} ({out.stat().st_size:,} bytes)")


def ask(
    source: Annotated[Path, Argument(help="A memory ('pcc-bench compress', .safetensors), or a text; - is stdin.")],
    question: Annotated[str, Argument(help="The question.")],
    checkpoint: Annotated[
        str | None, Option(help="Compresses a text; by default the method's that ships, good for the lab's texts only.")
    ] = None,
    method: Method = None,
    decoder: RecordedDecoder = None,
    max_new_tokens: Tokens = 30,
    prompt: Words = "official",
    device: Device = None,
    dtype: Dtype = None,
    option: OwnOptions = None,
) -> None:
    """Ask the decoder a question about a memory that was saved before, or about a text, compressed now."""
    from pcc_bench.core.registry import get
    from pcc_bench.host.api import ContextCompressor
    from pcc_bench.host.compressing import open_memory

    options = parse_options(option or ())
    if source.suffix == ".safetensors":
        if options or method:
            raise UsageError(f"{source} is a memory, already compressed: --model and --option are for texts")
        memory = open_memory(source, decoder, checkpoint, device or "auto", dtype or "auto")
    else:
        text, weights = read_input(source, None), checkpoint or get(method or "pcc").default
        pcc = ContextCompressor.from_pretrained(weights, method, decoder, device or "auto", dtype or "auto", **options)
        memory = pcc.compress(text, query=question if pcc.compressor.query_aware else None)
    echo(memory.answer(question, max_new_tokens, prompt).strip())


@takes(ReaderOptions)
def prompt(
    memory: MemoryFile,
    question: Annotated[str, Option(help="What to ask of the memory.")],
    out: Annotated[Path, Option("--output", "-o", help="A .pt (input vectors) or .json (body of a request).")],
    chat: Annotated[bool, Option("--chat", help="The memory alone, for a part of a chat: another protocol.")] = False,
    options: ReaderOptions = ReaderOptions(),
) -> None:
    """Write the exact input vectors of a memory and a question, for vLLM's endpoints.

    What is written is what our decoder reads: BOS, boundary vectors, slots, embedded text. With --chat it is the memory
    alone: the server's chat template then stands around it, with which no method was trained, so that scores of the two
    protocols are not to be compared.
    """
    from pcc_bench.host.serving import write

    written = write(options.open(memory), question, options.words, options.max_new_tokens, out, chat)
    length, width = written.vectors.shape
    kind = str(written.vectors.dtype).removeprefix("torch.")
    echo(f"written: {out} ({length} vectors of width {width}, {kind}, for {written.endpoint})")
    if out.suffix == ".json":
        echo(f"ask: curl http://HOST:8000{written.endpoint} -H 'Content-Type: application/json' -d @{out}")
    else:
        echo(f"base64 of this file is the field; ask with it: {written.fields}")


@takes(ReaderOptions)
def serve_check(
    url: Annotated[str, Argument(help="A vLLM server, http://HOST:8000; #NAME chooses among several models.")],
    memory: MemoryFile,
    question: Annotated[list[str] | None, Option(help="What to ask of the memory; repeatable.")] = None,
    questions: Annotated[Path | None, Option(help="A UTF-8 file with a question a line.")] = None,
    options: ReaderOptions = ReaderOptions(),
) -> None:
    """Ask a running vLLM server about a memory, and compare with the greedy answer of our own decoder.

    Ends with status 1 where an answer differs. In float32 on both sides answers are equal but for near ties; in
    bfloat16 they part where two tokens are nearly as likely.
    """
    from pcc_bench.host.serving import Server, compare

    listed = read_text(questions).splitlines() if questions else ()
    asked = [*(question or ()), *(line.strip() for line in listed if line.strip())]
    if not asked:
        raise UsageError("there is nothing to ask: pass --question, or --questions FILE")
    server = Server(url)
    results = compare(server, options.open(memory), asked, options.words, options.max_new_tokens)
    marks = ("yes" if r.equal else f"to token {r.same} of {r.tokens}" for r in results)
    rows = ((mark, *map(repr, (r.question, r.ours, r.theirs))) for mark, r in zip(marks, results, strict=True))
    show(TextTable(("equal", "question", "our answer", "the server's"), tuple(rows)))
    equal = sum(r.equal for r in results)
    echo(f"\n{equal} of {len(results)} answers of {server.model.id} at {server.url} equal ours")
    if equal < len(results):
        raise Exit(1)


def read_input(file: Path | None, text: str | None) -> str:
    """The text to compress, from a file, standard input (`-`) or the command line."""
    if (file is None) == (text is None):
        raise UsageError("give either a file (- for standard input) or --text")
    where = "--text" if file is None else "standard input" if str(file) == "-" else str(file)
    content = text or ""
    if file is not None:
        try:
            data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
            content = data.decode("utf-8-sig")
        except OSError as error:
            raise UsageError(f"{file} can't be read ({error.strerror}): check the path") from None
        except UnicodeDecodeError as error:
            start = error.start + len(data) - len(error.object)  # "utf-8-sig" counts from behind a byte order mark
            byte = f"byte 0x{data[start]:02x} at offset {start}"
            raise UsageError(f"{where} is not UTF-8 text: {byte}; save it as UTF-8") from None
    if not is_unicode(content):
        raise UsageError("--text holds half of a surrogate pair, or bytes that are not UTF-8: give a UTF-8 file")
    if not content.strip():
        raise UsageError(f"{where} is empty: there is nothing to compress")
    return content


def parse_options(words: Sequence[str]) -> dict[str, Any]:
    """Options of a method, as `name=value` each; numbers and true/false are read as such."""
    options: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--option {word} is not name=value")
        options[name] = parse_yaml(value, f"--option {name}")
    return options
