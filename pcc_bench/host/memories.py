"""The memories of a run: each distinct context is compressed once, by one of its processes, in sorted batches.

For a query-aware method that is each distinct pair of context and question.
"""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from pcc_bench.core.compressor import Compressor, Memory
from pcc_bench.core.errors import UsageError, memory_errors
from pcc_bench.host.store.store import MemoryStore, compress

CHUNK_CHARACTERS = 400_000  # given to a compressor in one call: large forwards, and a progress bar that moves
WAVE_CHARACTERS = 4_000_000  # held at once where the texts of a run are larger than that


class Source(NamedTuple):
    """What a memory is made from.

    Attributes:
        context: The text.
        query: The question it is compressed for; "" for methods that don't see it.
    """

    context: str
    query: str = ""


class MemoryBook:
    """Memories by source, shared by all processes.

    Args:
        compressor: Makes them.
        rank: This process.
        world_size: Number of processes; every one calls `fill` with the same sources.
        max_bytes: Memories beyond this are forgotten, oldest first, by `trim`.
        store: Keeps memories for other runs; None: nothing is kept.

    Attributes:
        compressions: Memories that were made, not read from a store.
        seconds: What making and reading them took, over all processes.
        stored: Counts of the store, over all processes; see `MemoryStore`.
        trouble: Why the store could not keep a memory, "" if it could.
    """

    def __init__(
        self,
        compressor: Compressor,
        rank: int = 0,
        world_size: int = 1,
        max_bytes: int = 4 << 30,
        store: MemoryStore | None = None,
    ) -> None:
        self.compressor = compressor
        self.rank = rank
        self.world_size = world_size
        self.max_bytes = max_bytes
        self.store = store
        self.stored: Counter[str] = Counter()
        self.trouble = ""
        self.compressions = 0
        self.seconds = 0.0
        self._memories: dict[Source, Memory] = {}

    def __getitem__(self, source: Source) -> Memory:
        return self._memories[source]

    def fill(self, sources: Iterable[Source], quiet: bool = True) -> None:
        """Make or read those of `sources` that are missing; a collective call where there are several processes."""
        missing = sorted({s for s in sources if s not in self._memories}, key=lambda s: (-len(s.context), s))
        mine = missing[self.rank :: self.world_size]
        made: dict[Source, Memory] = {}
        with tqdm(total=len(mine), desc="Compressing contexts", disable=quiet or not mine) as progress:
            for chunk in _chunks(mine, CHUNK_CHARACTERS):
                with memory_errors(f"compressing {len(chunk)} contexts", "use a smaller dtype or encoder batch"):
                    made |= zip(chunk, self._compress(chunk), strict=True)
                progress.update(len(chunk))
        for share, stored, trouble in gather((made, *self._stored()), self.world_size):
            self._memories |= share
            self.stored += stored
            self._note(trouble)
            self.compressions += len(share) - stored["hits"]
            self.seconds += sum(memory.seconds for memory in share.values())

    def fill_alone(self, sources: Sequence[Source]) -> None:
        """As `fill`, of sources that only this process needs."""
        alone = MemoryBook(self.compressor, store=self.store)
        alone.fill(source for source in sources if source not in self._memories)
        self._memories |= alone._memories
        self.stored += alone.stored
        self.trouble = self.trouble or alone.trouble
        self.compressions += alone.compressions
        self.seconds += alone.seconds

    def _compress(self, sources: Sequence[Source]) -> list[Memory]:
        contexts, queries = [source.context for source in sources], [source.query for source in sources]
        if self.store is None:
            return compress(self.compressor, contexts, queries)
        return self.store.compress(contexts, queries)

    def _stored(self) -> tuple[Counter[str], str]:
        """What the store counted since the last time, and its trouble."""
        if self.store is None:
            return Counter(), ""
        counts, self.store.counts = self.store.counts, Counter()
        return counts, self.store.trouble

    def _note(self, trouble: str) -> None:
        if trouble and not self.trouble:
            warnings.warn(
                f"the memory store could not keep a memory ({trouble}): the run goes on without keeping it; its "
                "results are whole, and count such memories as 'unwritten'",
                stacklevel=3,
            )
            self.trouble = trouble

    def trim(self) -> None:
        """Forget the oldest memories until the rest fits `max_bytes`."""
        size = sum(map(_bytes, self._memories.values()))
        for source in list(self._memories):
            if size <= self.max_bytes:
                return
            size -= _bytes(self._memories.pop(source))


def waves(groups: Iterable[tuple[Source, ...]]) -> Iterator[set[tuple[Source, ...]]]:
    """Split the groups of sources of a run's prompts into sets that are held in memory together, longest first.

    Args:
        groups: The sources of each prompt. The result does not depend on their order, so all processes agree.
    """
    order = sorted(set(groups), key=lambda group: (-_characters(group), group))
    wave: set[tuple[Source, ...]] = set()
    size = 0
    for group in order:
        if wave and size + _characters(group) > WAVE_CHARACTERS:
            yield wave
            wave, size = set(), 0
        wave.add(group)
        size += _characters(group)
    if wave:
        yield wave


def wrong_partners(contexts: Iterable[str], seed: int) -> dict[str, str]:
    """For each context another one of similar length: whose memory it gets under `control=wrong_memory`.

    The choice depends on the set of contexts and the seed only.

    Raises:
        UsageError: There are fewer than two contexts.
    """
    order = sorted(set(contexts), key=lambda context: (len(context.encode()), context))
    if len(order) < 2:
        raise UsageError("control=wrong_memory needs at least two different contexts in the run: raise --limit")
    chance = random.Random(seed)
    near = ([*range(max(0, i - 2), i), *range(i + 1, min(len(order), i + 3))] for i in range(len(order)))
    return {context: order[chance.choice(indices)] for context, indices in zip(order, near, strict=True)}


def gather(value: Any, world_size: int) -> list[Any]:
    """The value of every process, in the order of their ranks."""
    if world_size == 1:
        return [value]
    values: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(values, value)
    return values


def _chunks(sources: Sequence[Source], characters: int) -> Iterator[list[Source]]:
    chunk: list[Source] = []
    size = 0
    for source in sources:
        if chunk and size + len(source.context) > characters:
            yield chunk
            chunk, size = [], 0
        chunk.append(source)
        size += len(source.context)
    if chunk:
        yield chunk


def _characters(group: Iterable[Source]) -> int:
    return sum(len(source.context) for source in group)


def _bytes(memory: Memory) -> int:
    return memory.vectors.nbytes if memory.vectors is not None else len(memory.text or "")
