"""Peak memory of compressing one text, by its length: each length in a process of its own, on a CPU.

OMP_NUM_THREADS=1 python benchmarks/long_context.py --checkpoint pcc-smollm2-4x --length 1024 --length 32768
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

# glibc returns blocks beyond this size at once, so the peak is what was in use, not what the allocator kept.
ENVIRONMENT = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}


def main() -> None:
    """Print a table: tokens, slots, seconds, the largest resident set after loading and after compressing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="pcc-smollm2-4x")
    parser.add_argument(
        "--length", type=int, action="append", help="decoder tokens; repeatable [1024 4096 8192 16384 32768]"
    )
    parser.add_argument("--rate", type=int)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(compress(given.checkpoint, given.one, given.rate)))
        return
    print("| tokens | slots | s | loaded, MiB | peak, MiB | over loaded, MiB |\n|---|---|---|---|---|---|", flush=True)
    for length in given.length or (1024, 4096, 8192, 16384, 32768):
        rate = ["--rate", str(given.rate)] if given.rate else []
        command = [sys.executable, __file__, "--checkpoint", given.checkpoint, "--one", str(length), *rate]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        row = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {row['tokens']:,} | {row['slots']:,} | {row['seconds']:.1f} | {row['loaded']:,.0f} | "
            f"{row['peak']:,.0f} | {row['peak'] - row['loaded']:,.0f} |",
            flush=True,
        )


def compress(checkpoint: str, length: int, rate: int | None) -> dict[str, float]:
    """Compress one generated text; MiB are the process's resident set, Python and weights included (Linux)."""
    from pcc_bench import ContextCompressor
    from pcc_bench.tasks.lab.world import seeded
    from pcc_bench.tasks.metadata import TokenCounter
    from pcc_bench.tasks.ruler import Narrative

    pcc = ContextCompressor.from_pretrained(checkpoint, device="cpu", **({"rate": rate} if rate else {}))
    narrative = Narrative.drawn(seeded("long", length), length, TokenCounter(pcc.tokenizer, checkpoint))
    kept, tokens = 0, 0
    while tokens + narrative.sizes[kept] <= length:
        tokens += narrative.sizes[kept]
        kept += 1
    text = " ".join(narrative.sentences[:kept])
    pcc.compress("What a first call needs is there afterwards.")
    Path("/proc/self/clear_refs").write_text("5")  # the peak, of loading so far, is forgotten
    loaded = _resident("VmRSS")
    start = time.perf_counter()
    memory = pcc.compress(text)
    return {
        "tokens": memory.memory.source_tokens,
        "slots": memory.slots,
        "seconds": time.perf_counter() - start,
        "loaded": loaded,
        "peak": _resident("VmHWM"),
    }


def _resident(field: str) -> float:
    """MiB of this process, as Linux counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


if __name__ == "__main__":
    main()
