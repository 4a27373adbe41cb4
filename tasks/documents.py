"""Plain documents, from the hub (streamed), a folder of text files or the lab, and pieces of them by decoder tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetsError
from transformers import PreTrainedTokenizerBase

from pcc_bench.core import documents
from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.data import read_table
from pcc_bench.tasks.population import data_source, load_tokenizer, tokenizer_name

DOCUMENTS = 500  # looked at, unless `documents` says otherwise
PER_TOKEN = 16  # characters: so much text holds a token for sure, or nearly; else the whole document is tokenized
PARAGRAPHS = 20_000  # characters of paragraphs of a .txt file that make a document


@dataclass(frozen=True)
class Pieces:
    """Stretches of documents, and what the results say about them.

    Attributes:
        texts: For each document kept, its consecutive stretches, one of each wanted length; joined they are the
            document's beginning.
        account: Source, counts, lengths, tokenizer.
        tokenizer: The decoder's, which measured them.
    """

    texts: list[tuple[str, ...]]
    account: dict[str, Any]
    tokenizer: PreTrainedTokenizerBase


def pieces(metadata: Mapping[str, Any], lengths: Sequence[int], why: str) -> Pieces:
    """The beginnings of documents, cut into stretches of so many decoder tokens.

    Args:
        metadata: `data`, `documents` (how many are looked at), `hub`, and what says which decoder it is.
        lengths: Most decoder tokens of each stretch (it has less than a word fewer); with metadata `characters`, that
            many characters in place of the first and the others in proportion.
        why: What needs a tokenizer, for messages.

    Raises:
        UsageError: No documents, none long enough, or no tokenizer.
    """
    name = tokenizer_name(metadata, why, "")
    tokenizer = load_tokenizer(name, metadata, "")
    characters = metadata.get("characters")
    if characters is not None:
        lengths = [round(whole(metadata, "characters", 1) * length / lengths[0]) for length in lengths]
    source, documents = read_documents(metadata)
    read, texts, dropped = 0, [], Counter[str]()
    unit = "tokens" if characters is None else "characters"
    for document in documents:
        read += 1
        cut = _by_characters(document, lengths) if characters is not None else cut_tokens(document, lengths, tokenizer)
        if cut is None:
            dropped[f"documents of fewer than {sum(lengths)} {unit}"] += 1
        else:
            texts.append(cut)
    if not texts:
        raise UsageError(
            f"none of the {read} documents of {source['place']} has {sum(lengths)} {unit}: pass a smaller length or "
            "longer documents"
        )
    account = {
        **source,
        "protocol": metadata.get("protocol", "strict"),
        "population": "all",
        "rows_read": read,
        "kept": len(texts),
        "dropped": dict(dropped),
        "lengths": {unit: list(lengths)},
        "tokenizer": name,
    }
    return Pieces(texts, account, tokenizer)


def read_documents(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], Iterator[str]]:
    """Where documents come from, and the first `documents` of them.

    A folder's are in `<data>/text/`: `.jsonl` files with a column `text`, a document a row, and `.txt` files, read
    paragraph by paragraph. Where some have the split's name in theirs (or `validation`), only those are read; of
    several files the documents come in turn.

    Raises:
        UsageError: There are none, or they can't be read.
    """
    count = whole(metadata, "documents", DOCUMENTS)
    data = data_source(metadata)
    if data == "lab":
        source, rows = read_table({"lab_rows": count, **metadata}, lambda row: {"text": row["text"]})
        return source, (row["text"] for row in rows[:count])
    hub = metadata["hub"]
    if data == "hub":
        source = {"source": "hub", "place": f"{hub['path']} ({hub['split']})", "hub": dict(hub)}
        found: Iterable[str] = _streamed(hub)
    else:
        files = _text_files(Path(data).expanduser() / metadata["dataset"], metadata["split"])
        source = {"source": "folder", "place": str(Path(data) / metadata["dataset"]), "hub": None}
        source["files"] = [file.name for file in files]
        found = _in_turn([_of_file(file) for file in files])
    return {**source, "dataset": metadata["dataset"], "split": metadata["split"]}, islice(found, count)


def cut_tokens(text: str, lengths: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...] | None:
    """The text's first stretches of at most so many tokens; None where it is too short.

    A cut falls before a blank, which belongs to the next stretch: so both sides keep their tokens wherever they stand.
    Where a stretch has no blank (or a word is longer), it falls between two tokens.
    """
    wanted = sum(lengths)
    spans = _spans(text[: PER_TOKEN * wanted], tokenizer)
    if len(spans) <= wanted:
        spans = _spans(text, tokenizer)
    if len(spans) < wanted:
        return None
    cuts, first = [0], 0
    for length in lengths:
        last = first + length
        whole_words = (n for n in range(last, first, -1) if not text[spans[n - 1][1] : spans[n - 1][1] + 1].strip())
        first = next(whole_words, last)
        cuts.append(spans[first - 1][1])
    return tuple(text[start:end] for start, end in pairwise(cuts))


def whole(metadata: Mapping[str, Any], key: str, default: int, least: int = 1, most: int | None = None) -> int:
    """A whole number among the settings.

    Raises:
        UsageError: It is something else, too small or too large.
    """
    value = metadata.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UsageError(f"{key}={value!r}: {key} is a whole number of {least} or more")
    if most is not None and value > most:
        raise UsageError(f"{key}={value}: {key} is at most {most:,}")
    return value


def _by_characters(text: str, lengths: Sequence[int]) -> tuple[str, ...] | None:
    if len(text) < sum(lengths):
        return None
    ends = [sum(lengths[: n + 1]) for n in range(len(lengths))]
    return tuple(text[end - length : end] for end, length in zip(ends, lengths, strict=True))


def _spans(text: str, tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, int]]:
    encoded = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
    )
    return [(start, end) for start, end in encoded["offset_mapping"]]


def _streamed(hub: Mapping[str, Any]) -> Iterator[str]:
    """Rows of a corpus that nobody wants to download as a whole."""
    try:
        table = datasets.load_dataset(
            hub["path"], hub.get("name"), split=hub["split"], revision=hub.get("revision"), streaming=True
        )
        for row in table:
            yield row[hub.get("column", "text")]
    except (OSError, ValueError, RuntimeError, KeyError, DatasetsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"can't read {hub['path']} from the hub ({reason}): check the network, or keep documents in "
            "<folder>/text/ (*.txt, *.jsonl) and pass data=<folder> or PCC_DATA=<folder>"
        ) from error


def _text_files(folder: Path, split: str) -> list[Path]:
    found = sorted(path for path in folder.glob("*") if path.suffix in (".txt", ".jsonl")) if folder.is_dir() else []
    if not found:
        raise UsageError(f"no documents in {folder}: put *.txt or *.jsonl (column text) there, or pass data=lab")
    for word in (split, "validation"):
        if named := [path for path in found if word in path.stem]:
            return named
    return found


def _of_file(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            yield from _rows(path, lines) if path.suffix == ".jsonl" else _paragraphs(lines)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text ({error.reason}): save it as UTF-8") from error


def _rows(path: Path, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            row = documents.parse_json(line, f"{path}, line {number}")
            if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                raise UsageError(f"{path}, line {number}: no JSON object with a text in the column text: correct it")
            yield row["text"]


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """Documents of whole lines, `PARAGRAPHS` characters or a little more each."""
    held: list[str] = []
    size = 0
    for line in lines:
        if line.strip() or held:
            held.append(line)
            size += len(line)
        if size >= PARAGRAPHS and not line.strip():
            yield "".join(held).strip()
            held, size = [], 0
    if size:
        yield "".join(held).strip()


def _in_turn(streams: Sequence[Iterator[str]]) -> Iterator[str]:
    left = list(streams)
    while left:
        for stream in list(left):
            try:
                yield next(stream)
            except StopIteration:
                left.remove(stream)
