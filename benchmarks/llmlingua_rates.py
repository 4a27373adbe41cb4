"""LLMLingua-2's requested and achieved rates by context length, in the decoder's tokens.

The package keeps a fraction of each chunk of 512 of its own tokens, by words and with a strict threshold; what that is
in the decoder's tokens has to be measured. Contexts are real passages joined and cut to a length.

    python benchmarks/llmlingua_rates.py --data <folder with squad/> --decoder <folder> --pretrained <folder or hub id>

Without `--pretrained` a random classifier of toy size stands in (`--family`), without `--decoder` a toy decoder: their
achieved rates show what the package's arithmetic does to the rate, not which words the published models keep.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.append(str(Path(__file__).parent.parent / "tests"))  # which has the toy

import numpy as np
from toy_classifier import make_classifier

from pcc_bench.baselines.llmlingua2 import LlmLingua2
from pcc_bench.core import tiny
from pcc_bench.core.decoder import Decoder
from pcc_bench.model import init

SAMPLE = Path(__file__).parent.parent / "tasks" / "sample"


def main() -> None:
    """Measure and print."""
    arguments = parse()
    passages = read(Path(arguments.data) / "squad" / "validation.jsonl")
    with tempfile.TemporaryDirectory() as folder:
        decoder = open_decoder(arguments, passages, Path(folder))
        classifier = arguments.pretrained or str(
            make_classifier(arguments.family, passages, Path(folder) / "classifier")
        )
        forced = arguments.force_tokens
        compressor = LlmLingua2.load(classifier, decoder, force_tokens=forced, counting=arguments.counting)
    print(f"classifier {arguments.pretrained or 'random ' + arguments.family}, {len(passages)} passages, ", end="")
    print(f"{arguments.contexts} contexts a length, forced {forced.split()}, counting {arguments.counting}")
    print("| tokens | " + " | ".join(f"asked {rate:g}x" for rate in arguments.rates) + " |")
    print("|---" * (1 + len(arguments.rates)) + "|")
    for length in arguments.lengths:
        contexts = list(cut(passages, length, arguments.contexts, decoder))
        cells = [cell(compressor, contexts, rate) for rate in arguments.rates]
        print(f"| {length} | " + " | ".join(cells) + " |", flush=True)
    print("achieved: median (smallest to largest) of source tokens per kept token; '-' where nothing was kept")


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("PCC_DATA") or str(SAMPLE), help="folder with squad/")
    parser.add_argument("--pretrained", help="classifier: folder or hub id (default: a random one)")
    parser.add_argument("--family", choices=("xlm-roberta", "bert"), default="xlm-roberta", help="of the random one")
    parser.add_argument("--decoder", help="folder or hub id of the decoder (default: a random one of toy size)")
    parser.add_argument("--force-tokens", default="", help=r"as in model_args: '\n . ! ? \c'")
    parser.add_argument("--counting", choices=("decoder", "cl100k"), default="decoder")
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 64, 256, 1024, 4096])
    parser.add_argument("--rates", type=float, nargs="+", default=[2, 4, 16])
    parser.add_argument("--contexts", type=int, default=8, help="contexts a length")
    return parser.parse_args()


def read(path: Path) -> list[str]:
    """The distinct contexts of a file."""
    with path.open(encoding="utf-8") as lines:
        return list(dict.fromkeys(json.loads(line)["context"] for line in lines))


def open_decoder(arguments: argparse.Namespace, passages: Sequence[str], folder: Path) -> Decoder:
    """The decoder's tokens are counted; its weights are not used."""
    if not arguments.decoder:
        tiny.make_model("llama", tiny.make_tokenizer(passages[:500], 8192), folder / "decoder")
        return init.open_decoder(str(folder / "decoder"))
    return init.open_decoder(arguments.decoder)


def cut(passages: Sequence[str], length: int, count: int, decoder: Decoder) -> Iterator[str]:
    """Contexts of `length` decoder tokens, each from other passages where there are enough."""
    for start in np.linspace(0, len(passages), count, endpoint=False, dtype=int):
        text, following = "", start
        while len(text) < 8 * length:
            text += passages[following % len(passages)] + "\n"
            following += 1
        spans = decoder.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        yield text[: spans[length][0]]


def cell(compressor: LlmLingua2, contexts: Sequence[str], rate: float) -> str:
    """Achieved rates in a table's cell."""
    compressor.rate = rate
    achieved = [memory.ratio_slots for memory in compressor.compress(contexts)]
    known = [ratio for ratio in achieved if ratio is not None]
    if not known:
        return "-"
    empty = f" {len(achieved) - len(known)}-" if len(known) < len(achieved) else ""
    return f"{np.median(known):.2f} ({min(known):.1f} to {max(known):.1f}){empty}"


if __name__ == "__main__":
    main()
