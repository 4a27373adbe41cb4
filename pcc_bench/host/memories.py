"""The memories of a run: each distinct context (and question, where it matters) is compressed once, by one process."""

import random
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from more_itertools import constrained_batches
from tqdm import tqdm

from pcc_bench.core.compressor import Compressor, Memory
from pcc_bench.core.errors import UsageError, memory_errors
from pcc_bench.host.store.store import MemoryStore, compress

CHUNK_CHARACTERS = 400_000  # given to a compressor in one call: large forwards, and a progress bar that moves
WAVE_CHARACTERS = 4_000_000  # held at once where the texts of a run are larger than that


class Source(NamedTuple):  # of a memory
    context: str
    query: str = ""  # the question it is compressed for; "" for methods that don't see it


@dataclass(eq=False)
class MemoryBook:
    """Memories by source, shared by all processes, which call `fill` alike; `trim` forgets the oldest."""

    compressor: Compressor
    rank: int = 0
    world_size: int = 1
    max_bytes: int = 4 << 30  # of memories that `trim` leaves
    store: MemoryStore | None = None
    stored: Counter[str] = field(default_factory=Counter)  # counts of the store, over all processes
    trouble: str = ""  # why the store could not keep a memory, "" if it could
    compressions: int = 0  # memories that were made, not read from a store
    seconds: float = 0.0  # of making and reading them, over all processes
    _memories: dict[Source, Memory] = field(default_factory=dict)

    def __getitem__(self, source: Source) -> Memory:
        return self._memories[source]

    def fill(self, sources: Iterable[Source], quiet: bool = True, alone: bool = False) -> None:
        """Make or read what is missing of `sources`; a collective call of all processes, unless `alone`."""
        rank, world_size = (0, 1) if alone else (self.rank, self.world_size)
        missing = sorted({s for s in sources if s not in self._memories}, key=lambda s: (-len(s.context), s))
        mine = missing[rank::world_size]
        own: dict[Source, Memory] = {}
        with tqdm(total=len(mine), desc="Compressing contexts", disable=quiet or not mine) as progress:
            for chunk in constrained_batches(mine, CHUNK_CHARACTERS, get_len=lambda s: len(s.context), strict=False):
                texts, queries = [source.context for source in chunk], [source.query for source in chunk]
                with memory_errors(f"compressing {len(chunk)} contexts", "use a smaller dtype or encoder batch"):
                    memories = compress(self.compressor, texts, queries, self.store)
                own |= zip(chunk, memories, strict=True)
                progress.update(len(chunk))
        of_store = (self.store.counts, self.store.trouble) if self.store else (Counter[str](), "")
        if self.store:  # its counts are those since the last time
            self.store.counts = Counter()
        for share, stored, trouble in gather((own, *of_store), world_size):
            self._memories |= share
            self.stored += stored
            if trouble and not self.trouble:
                self.trouble = trouble
                what = f"the memory store could not keep a memory ({trouble}): the run goes on without keeping it"
                warnings.warn(f"{what}; its results are whole, and count such memories as 'unwritten'", stacklevel=2)
            self.compressions += len(share) - stored["hits"]
            self.seconds += sum(memory.seconds for memory in share.values())

    def trim(self) -> None:
        """Forget the oldest memories until the rest fits `max_bytes`."""

        def bytes_of(memory: Memory) -> int:
            return memory.vectors.nbytes if memory.vectors is not None else len(memory.text or "")

        size = sum(map(bytes_of, self._memories.values()))
        for source in list(self._memories):
            if size <= self.max_bytes:
                return
            size -= bytes_of(self._memories.pop(source))


def waves(groups: Iterable[tuple[Source, ...]]) -> Iterator[set[tuple[Source, ...]]]:
    """Split the sources of a run's prompts into sets held in memory together, longest first, alike in all processes."""

    def size(group: tuple[Source, ...]) -> int:
        return sum(len(source.context) for source in group)

    order = sorted(set(groups), key=lambda group: (-size(group), group))
    return map(set, constrained_batches(order, WAVE_CHARACTERS, get_len=size, strict=False))


def wrong_partners(contexts: Iterable[str], seed: int) -> dict[str, str]:
    """For each context another of similar length, by the set of contexts and the seed (`control=wrong_memory`)."""
    order = sorted(set(contexts), key=lambda context: (len(context.encode()), context))
    if len(order) < 2:
        raise UsageError("control=wrong_memory needs at least two different contexts in the run: raise --limit")
    chance = random.Random(seed)
    near = ([*range(max(0, i - 2), i), *range(i + 1, min(len(order), i + 3))] for i in range(len(order)))
    return {context: order[chance.choice(indices)] for context, indices in zip(order, near, strict=True)}


def gather(value: Any, world_size: int) -> list[Any]:  # in the order of the processes' ranks
    if world_size == 1:
        return [value]
    values: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(values, value)
    return values
