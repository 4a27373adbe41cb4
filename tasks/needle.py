"""The needle tasks: questions on a generated context, in a grid of lengths, depths and distances to a segment's end."""

import re
import uuid
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, product
from random import Random
from typing import Any, Self

from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.documents import read_documents
from pcc_bench.tasks.lab.facts import ask, facts_of, state
from pcc_bench.tasks.lab.world import CITIES, NAMES, VERSION, draw_cast, integer, pick, seeded, shuffle
from pcc_bench.tasks.metadata import TokenCounter, choice, numbers, whole, wholes
from pcc_bench.tasks.task import QuestionTask

LENGTHS, DEPTHS, DISTANCES = (256, 512, 1024), (0.0, 0.25, 0.5, 0.75, 1.0), (0, 64, 128)
PER_CELL = 5
TRIES = 1000
TOLERANCE = 4  # tokens that a needle's middle may be off; a word of rare letters has more
_PRONOUN = re.compile(r"\s*(?:He|She|His|Her|It|Its|They|Their)\b")


@dataclass(frozen=True)
class Place:
    length: int  # decoder tokens of the whole context (a word more or less)
    depth: float  # where the needle's middle is wanted, from 0 (the beginning) to 1
    # decoder tokens from the needle's middle to the nearest end of a segment (the context's own two ends among
    # them); None where it may be any
    distance: int | None


class NeedleTask(QuestionTask):
    """One fact about somebody in a text about others, at a chosen place.

    Settings in the metadata: `lengths`, `depths`, `distances` (see `Place`; lengths and distances in decoder tokens),
    `per_cell` (rows of each, default 5), `segment_length` (decoder tokens, default 256), `seed`, and those of the
    documents the text is made of (`data`, `documents`). Cells that no place fits are left out and counted.
    """

    has_distances = True

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        metadata = self.config.metadata
        lengths, depths = wholes(metadata, "lengths", LENGTHS, 16, None), numbers(metadata, "depths", DEPTHS, 0, 1)
        distances = wholes(metadata, "distances", DISTANCES, 0, None) if self.has_distances else [None]
        self.segment = whole(metadata, "segment_length", 256)  # decoder tokens
        source, docs, dropped = self.rows([Place(*cell) for cell in product(lengths, depths, distances)])
        if not docs:
            raise UsageError(f"no cell of {self.config.task} has a place: pass other distances or lengths")
        source |= {"protocol": "strict", "tokenizer": self.counter.name, "world_version": VERSION}
        self.take(docs, dropped, **{**source, "segment_length": self.segment, "seed": self.seed})

    def rows(self, cells: Sequence[Place]) -> tuple[dict[str, Any], list[dict[str, Any]], Counter[str]]:
        """The source, the rows, and how many could not be made, by reason."""
        source, documents = read_documents(self.config.metadata)
        hays = Text.drawn(documents, 2 * max(cell.length for cell in cells), self.counter)
        per_cell = whole(self.config.metadata, "per_cell", PER_CELL)
        texts = list(islice(hays, per_cell))  # the same in all cells: only the place differs
        if not texts:
            raise UsageError(f"the documents of {source['place']} are too short for these lengths: pass more documents")
        docs, dropped = [], Counter[str]()
        for cell, number in product(cells, range(per_cell)):
            hay = texts[number % len(texts)]
            random = seeded("needle", self.seed, number)
            drawn = (pick(random, facts_of(draw_cast(random, "test", 2))[0]) for _ in range(TRIES))
            fact = next((fact for fact in drawn if fact.subject not in hay.text), None)
            if fact is None:
                raise UsageError(f"{TRIES} people were drawn and the text names all of them: pass shorter lengths")
            needle = hay.around(state(random, fact)[0], cell, self.segment)
            if needle is None:
                dropped[f"no place {cell.distance} tokens from a segment's end in {cell.length}"] += 1
                continue
            context, tokens, place = needle
            doc: dict[str, Any] = {"id": f"{cell.length}-{cell.depth:g}-{cell.distance}-{number}", "context": context}
            doc |= {"question": ask(random, fact.attribute, fact.subject), "answers": [fact.value], **asdict(cell)}
            docs.append({**doc, "tokens": tokens, **measured(tokens, place, self.segment)})
        return source, docs, dropped


class PairsTask(NeedleTask):
    """A list of keys with values, and the question for one of them.

    Settings: those of `NeedleTask` without `distances` and documents, and `keys`: `uuid` (both are UUIDs) or `names`
    (people of the lab and cities, words a small tokenizer knows).
    """

    has_distances = False  # a pair stands at any distance to a segment's end

    def rows(self, cells: Sequence[Place]) -> tuple[dict[str, Any], list[dict[str, Any]], Counter[str]]:
        keys = choice(self.config.metadata, "keys", ("uuid", "names"))
        docs, dropped = [], Counter[str]()
        for cell, number in product(cells, range(whole(self.config.metadata, "per_cell", PER_CELL))):
            random = seeded("pairs", self.seed, cell.length, number)
            lines, size = list[str](), 0
            for key, value in pairs(random, keys):
                size += self.counter.count(f"{key}: {value}.\n")
                if size > cell.length:
                    break
                lines.append(f"{key}: {value}.")
            if len(shuffle(random, lines)) < 2:
                dropped[f"fewer than two pairs in {cell.length} tokens"] += 1
                continue
            asked = round(cell.depth * (len(lines) - 1))
            key, value = lines[asked].rstrip(".").split(": ")
            texts = ("\n".join(lines[:asked]), lines[asked], "\n".join(lines))
            before, needle, tokens = (len(ids) for ids in self.counter.ids(texts))
            doc: dict[str, Any] = {"id": f"{cell.length}-{cell.depth:g}-{number}", "context": texts[-1]}
            doc |= {"question": f"What is the value of the key {key}?", "answers": [value]}
            doc |= {"length": cell.length, "depth": cell.depth, "tokens": tokens, "pairs": len(lines)}
            docs.append({**doc, **measured(tokens, before + needle / 2, self.segment)})
        source = {"source": "generated", "place": f"generated pairs ({keys})", "dataset": "pairs", "split": "test"}
        return {**source, "hub": None}, docs, dropped


def pairs(random: Random, keys: str) -> Iterator[tuple[str, str]]:
    """Keys with values: two UUIDs without end (`uuid`), or people and cities (`names`)."""
    if keys == "names":
        yield from ((f"{first} {last}", pick(random, CITIES)) for first, last in shuffle(random, list(NAMES["test"])))
        return
    while True:
        key, value = (str(uuid.UUID(int=integer(random, 0, 2**62) << 64 | integer(random, 0, 2**62))) for _ in "kv")
        yield key, value


class Text:
    """A text cut into words, with the decoder tokens before each; the tokenizer is a fast one."""

    def __init__(self, text: str, counter: TokenCounter) -> None:
        self.text, self._counter = text, counter
        ends = [end for _, end in counter.spans(text)]
        self.tokens = len(ends)
        # A place to cut: before a blank. `before` counts the tokens that end there or earlier.
        self.places = [0, *(i for i, char in enumerate(text) if char.isspace()), len(text)]
        self.before = [bisect_left(ends, place + 1) for place in self.places]
        # Before a pronoun a needle would be taken for what it stands for ("The pet of Adam is a cat. He has a dog.").
        starts = [n for n, place in enumerate(self.places) if n == 0 or text[place - 1] in ".!?"]
        self.sentences = [n for n in starts if not _PRONOUN.match(text, self.places[n])]

    @classmethod
    def drawn(cls, documents: Iterator[str], tokens: int, counter: TokenCounter) -> Iterator[Self]:
        """Texts of at least so many tokens, each of as many documents as it takes."""
        parts: list[str] = []
        for document in documents:
            parts.append(" ".join(document.split()))
            if sum(map(len, parts)) >= 2 * tokens:
                text = cls(" ".join(parts)[: 16 * tokens], counter)
                if text.tokens >= tokens:
                    yield text
                    parts = []

    def at(self, tokens: int) -> int:
        """The number of the first place with at least so many tokens before it."""
        return min(bisect_left(self.before, tokens), len(self.places) - 1)

    def around(self, needle: str, cell: Place, segment: int) -> tuple[str, int, float] | None:
        """A context of the text's beginning with a needle between two sentences; None where the cell has no such place.

        It may begin in the middle of a sentence, to bring the needle to its place, and ends behind a word. With it come
        its decoder tokens and those before the needle's middle, as measured when it is done.
        """
        size = self._counter.count(needle)
        if (target := middle(cell, size, segment)) is None:
            return None
        start = round(target - size / 2)
        sentence = next((n for n in self.sentences if self.before[n] >= start), self.sentences[-1])
        first = self.at(self.before[sentence] - start)
        last = self.at(self.before[sentence] + cell.length - size - start)
        cuts = [self.places[n] for n in (first, sentence, last)]
        before, after = self.text[cuts[0] : cuts[1]].strip(), self.text[cuts[1] : cuts[2]].strip()
        context = " ".join(part for part in (before, needle, after) if part)
        return context, self._counter.count(context), self._counter.count(before) + size / 2


def middle(cell: Place, needle: int, segment: int) -> float | None:
    """Tokens before the middle of a needle of so many: as near to the cell's depth as its distance allows, or None."""
    low, high = needle / 2, cell.length - needle / 2
    target = min(max(cell.depth * cell.length, low), high)
    if cell.distance is None:
        return target
    places = [end + side * cell.distance for end in ends_of_segments(cell.length, segment) for side in (-1, 1)]
    inside = [place for place in places if low <= place <= high]
    fits = [place for place in inside if distance_to_end(place, cell.length, segment) == cell.distance]
    return min(fits, key=lambda place: abs(place - target), default=None)


def ends_of_segments(length: int, segment: int) -> list[int]:
    """Tokens from the beginning to each end of a segment, the context's beginning and end among them."""
    return [*range(0, length, segment), length]


def distance_to_end(place: float, length: int, segment: int) -> float:
    return min(abs(place - end) for end in ends_of_segments(length, segment))


def measured(tokens: int, place: float, segment: int) -> dict[str, float]:
    """Where a needle's middle really stands, in a context of so many tokens."""
    return {"found_depth": place / tokens, "found_distance": distance_to_end(place, tokens, segment)}
