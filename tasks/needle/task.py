"""The needle tasks: questions on a generated context, in a grid of lengths, depths and distances to a segment's end."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from random import Random
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase

from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.data import fingerprint
from pcc_bench.tasks.documents import read_documents, whole
from pcc_bench.tasks.lab.draws import integer, pick, seeded, shuffle
from pcc_bench.tasks.lab.facts import Fact, ask, facts_of, state
from pcc_bench.tasks.lab.words import CITIES
from pcc_bench.tasks.lab.world import NAMES, VERSION, draw_cast
from pcc_bench.tasks.needle.haystack import Cell, Text, distance_to_end, ends_of_segments, place
from pcc_bench.tasks.population import choice, load_tokenizer, tokenizer_name
from pcc_bench.tasks.task import QuestionTask

LENGTHS, DEPTHS, DISTANCES = (256, 512, 1024), (0.0, 0.25, 0.5, 0.75, 1.0), (0, 64, 128)
PER_CELL = 5
TRIES = 1000


class NeedleTask(QuestionTask):
    """One fact about somebody in a text about others, at a chosen place.

    Settings in the metadata: `lengths`, `depths`, `distances` (see `Cell`; lengths and distances in decoder tokens),
    `per_cell` (rows of each, default 5), `segment_length` (decoder tokens, default 256), `seed`, and those of the
    documents the text is made of (`data`, `documents`). Cells that no place fits are left out and counted.
    """

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Make the rows and record what they are made of."""
        metadata = self.config.metadata
        name = tokenizer_name(metadata, f"{self.config.task} counts decoder tokens", "")
        tokenizer = load_tokenizer(name, metadata, "")
        cells = self.cells()
        source, docs, dropped = self.rows(cells, tokenizer)
        if not docs:
            raise UsageError(f"no cell of {self.config.task} has a place: pass other distances or lengths")
        account = {
            **source,
            "protocol": "strict",
            "population": "all",
            "rows_read": len(docs) + dropped.total(),
            "kept": len(docs),
            "dropped": dict(dropped),
            "tokenizer": name,
            "segment_length": self.segment,
            "seed": self.seed,
            "fingerprint": fingerprint(docs),
        }
        self.config.metadata = {**metadata, "population": account}
        self.dataset = {"test": datasets.Dataset.from_list(docs)}

    @property
    def segment(self) -> int:
        """Decoder tokens of a segment."""
        return whole(self.config.metadata, "segment_length", 256)

    @property
    def seed(self) -> int:
        """Of everything drawn."""
        return whole(self.config.metadata, "seed", 0, least=0)

    def cells(self) -> list[Cell]:
        """The grid."""
        metadata = self.config.metadata
        lengths = [int(n) for n in numbers(metadata, "lengths", LENGTHS, 16, None)]
        depths = numbers(metadata, "depths", DEPTHS, 0, 1)
        distances = [int(n) for n in numbers(metadata, "distances", DISTANCES, 0, None)]
        return [Cell(*cell) for cell in product(lengths, depths, distances)]

    def rows(
        self, cells: Sequence[Cell], tokenizer: PreTrainedTokenizerBase
    ) -> tuple[dict[str, Any], list[dict[str, Any]], Counter[str]]:
        """The source, the rows, and how many could not be made, by reason."""
        source, documents = read_documents(self.config.metadata)
        hays = _hays(documents, 2 * max(cell.length for cell in cells), tokenizer)
        dropped: Counter[str] = Counter()
        docs = []
        per_cell = whole(self.config.metadata, "per_cell", PER_CELL)
        found = [next(hays, None) for _ in range(per_cell)]  # the same texts in all cells: only the place differs
        texts = [hay for hay in found if hay is not None]
        if not texts:
            raise UsageError(f"the documents of {source['place']} are too short for these lengths: pass more documents")
        for cell, number in product(cells, range(per_cell)):
            hay = texts[number % len(texts)]
            random = seeded("needle", self.seed, number)
            fact = _stranger(random, hay.text)
            needle = state(random, fact)[0]
            made = place(cell, needle, hay, tokenizer, self.segment)
            if made is None:
                dropped[f"no place {cell.distance} tokens from a segment's end in {cell.length}"] += 1
                continue
            docs.append(
                {
                    "id": f"{cell.length}-{cell.depth:g}-{cell.distance}-{number}",
                    "context": made.text,
                    "question": ask(random, fact.attribute, fact.subject),
                    "answers": [fact.value],
                    "length": cell.length,
                    "depth": cell.depth,
                    "distance": cell.distance,
                    "tokens": made.length,
                    "found_depth": made.middle / made.length,
                    "found_distance": made.distance,
                }
            )
        return {**source, "world_version": VERSION}, docs, dropped


class PairsTask(NeedleTask):
    """A list of keys with values, and the question for one of them.

    Settings: `lengths`, `depths`, `per_cell`, `segment_length` and `seed` as in `NeedleTask`, and `keys`: `uuid` (both
    are UUIDs) or `names` (people of the lab and cities, words a small tokenizer knows).
    """

    def cells(self) -> list[Cell]:
        """The grid, whatever the distance to a segment's end."""
        metadata = self.config.metadata
        lengths = [int(n) for n in numbers(metadata, "lengths", LENGTHS, 16, None)]
        return [Cell(length, depth, None) for length in lengths for depth in numbers(metadata, "depths", DEPTHS, 0, 1)]

    def rows(
        self, cells: Sequence[Cell], tokenizer: PreTrainedTokenizerBase
    ) -> tuple[dict[str, Any], list[dict[str, Any]], Counter[str]]:
        """As many pairs as fit each length, the asked one at its depth."""
        keys = choice(self.config.metadata, "keys", ("uuid", "names"))
        docs, dropped = [], Counter[str]()
        for cell, number in product(cells, range(whole(self.config.metadata, "per_cell", PER_CELL))):
            random = seeded("pairs", self.seed, cell.length, number)
            lines = _lines(random, keys, cell.length, tokenizer)
            if len(lines) < 2:
                dropped[f"fewer than two pairs in {cell.length} tokens"] += 1
                continue
            asked = round(cell.depth * (len(lines) - 1))
            key, value = lines[asked].rstrip(".").split(": ")
            docs.append(
                {
                    "id": f"{cell.length}-{cell.depth:g}-{number}",
                    "context": "\n".join(lines),
                    "question": f"What is the value of the key {key}?",
                    "answers": [value],
                    **self._measured(cell, lines, asked, tokenizer),
                }
            )
        source = {"source": "generated", "place": f"generated pairs ({keys})", "dataset": "pairs", "split": "test"}
        return {**source, "hub": None, "world_version": VERSION}, docs, dropped

    def _measured(
        self, cell: Cell, lines: Sequence[str], asked: int, tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        sizes = [_count(text, tokenizer) for text in ("\n".join(lines[:asked]), lines[asked], "\n".join(lines))]
        middle = sizes[0] + sizes[1] / 2
        return {
            "length": cell.length,
            "depth": cell.depth,
            "tokens": sizes[2],
            "pairs": len(lines),
            "found_depth": middle / sizes[2],
            "found_distance": distance_to_end(middle, ends_of_segments(sizes[2], self.segment)),
        }


def numbers(
    metadata: Mapping[str, Any], key: str, default: Sequence[float], least: float, most: float | None
) -> list[float]:
    """A list of numbers among the settings.

    Raises:
        UsageError: It is none, or empty, or a number is out of bounds.
    """
    values = metadata.get(key, default)
    bounds = f"{least:g} or more" if most is None else f"from {least:g} to {most:g}"
    if not isinstance(values, list | tuple) or not values:
        raise UsageError(f"{key}={values!r}: {key} is a list of numbers, {bounds}")
    for value in values:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not value >= least or (most is not None and value > most):  # NaN is neither
            raise UsageError(f"{key}={values!r}: {value!r} is no number {bounds}")
    return list(values)


def _hays(documents: Iterator[str], tokens: int, tokenizer: PreTrainedTokenizerBase) -> Iterator[Text]:
    """Texts of at least so many tokens, each of as many documents as it takes."""
    held: list[str] = []
    for document in documents:
        held.append(" ".join(document.split()))
        if sum(map(len, held)) >= 2 * tokens:
            text = Text(" ".join(held)[: 16 * tokens], tokenizer)
            if text.tokens >= tokens:
                yield text
                held = []


def _stranger(random: Random, text: str) -> Fact:
    """A fact about a person of the lab's whom the text does not name."""
    for _ in range(TRIES):
        fact = pick(random, facts_of(draw_cast(random, "test", 2))[0])
        if fact.subject not in text:
            return fact
    raise UsageError(f"{TRIES} people were drawn and the text names all of them: pass shorter lengths")


def _lines(random: Random, keys: str, tokens: int, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Lines `key: value`, as many as fit."""
    lines: list[str] = []
    size = 0
    for key, value in _uuids(random) if keys == "uuid" else _named(random):
        line = f"{key}: {value}."
        size += _count(f"{line}\n", tokenizer)
        if size > tokens:
            break
        lines.append(line)
    return shuffle(random, lines)


def _uuids(random: Random) -> Iterator[tuple[str, str]]:
    while True:
        key, value = (str(uuid.UUID(int=integer(random, 0, 2**62) << 64 | integer(random, 0, 2**62))) for _ in "kv")
        yield key, value


def _named(random: Random) -> Iterator[tuple[str, str]]:
    for first, last in shuffle(random, list(NAMES["test"])):
        yield f"{first} {last}", pick(random, CITIES)


def _count(text: str, tokenizer: PreTrainedTokenizerBase) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)) if text else 0
