"""Plain documents, from the hub (streamed), a folder of text files or the lab, and pieces of them by decoder tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetsError

from pcc_bench.core.documents import read_json_lines
from pcc_bench.core.errors import UsageError, first_line
from pcc_bench.tasks.data import read_table
from pcc_bench.tasks.metadata import TokenCounter, data_source, whole

DOCUMENTS = 500  # looked at, unless `documents` says otherwise
PER_TOKEN = 16  # characters: so much text holds a token for sure, or nearly; else the whole document is tokenized
PARAGRAPHS = 20_000  # characters of paragraphs of a .txt file that make a document


@dataclass(frozen=True)
class Pieces:
    """Stretches of documents, and what the results say about them."""

    texts: list[tuple[str, ...]]  # of each document scored the consecutive stretches, from its beginning
    dropped: dict[str, int]
    account: dict[str, Any]  # source, lengths, tokenizer
    counter: TokenCounter  # of the decoder's tokens


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
    counter = TokenCounter.open(metadata, why)
    unit = "tokens"
    if metadata.get("characters") is not None:
        unit = "characters"
        lengths = [round(whole(metadata, "characters", 1) * length / lengths[0]) for length in lengths]
    source, texts = read_documents(metadata)
    cuts, short = [], 0
    for text in texts:
        cut = cut_characters(text, lengths) if unit == "characters" else cut_tokens(text, lengths, counter)
        if cut is None:
            short += 1
        else:
            cuts.append(cut)
    if not cuts:
        raise UsageError(
            f"none of the {short} documents of {source['place']} has {sum(lengths)} {unit}: pass a smaller length or "
            "longer documents"
        )
    dropped = {f"documents of fewer than {sum(lengths)} {unit}": short} if short else {}
    return Pieces(cuts, dropped, {**source, "lengths": {unit: list(lengths)}, "tokenizer": counter.name}, counter)


def cut_characters(text: str, lengths: Sequence[int]) -> tuple[str, ...] | None:
    """The text's first stretches of so many characters; None where it is too short."""
    if len(text) < sum(lengths):
        return None
    return tuple(text[start:end] for start, end in pairwise(accumulate(lengths, initial=0)))


def cut_tokens(text: str, lengths: Sequence[int], counter: TokenCounter) -> tuple[str, ...] | None:
    """The text's first stretches of at most so many tokens; None where it is too short.

    A cut falls before a blank, which belongs to the next stretch: so both sides keep their tokens wherever they stand.
    Where a stretch has no blank (or a word is longer), it falls between two tokens.
    """
    total = sum(lengths)
    spans = counter.spans(text[: PER_TOKEN * total])
    if len(spans) <= total:
        spans = counter.spans(text)
    if len(spans) < total:
        return None
    cuts, first = [0], 0
    for length in lengths:
        last = first + length
        whole_words = (n for n in range(last, first, -1) if not text[spans[n - 1][1] : spans[n - 1][1] + 1].strip())
        first = next(whole_words, last)
        cuts.append(spans[first - 1][1])
    return tuple(text[start:end] for start, end in pairwise(cuts))


def read_documents(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], Iterator[str]]:
    """Where documents come from, and the first `documents` of them.

    A folder's are in `<data>/text/`: `.jsonl` files with a column `text`, a document a row, and `.txt` files, read
    paragraph by paragraph. Where some have the split's name in theirs (or `validation`), only those are read; of
    several files the documents come in turn.

    Raises:
        UsageError: There are none, or they can't be read.
    """
    count = whole(metadata, "documents", DOCUMENTS)
    data, dataset, split = data_source(metadata), metadata["dataset"], metadata["split"]
    if data == "lab":
        source, rows = read_table({"lab_rows": count, **metadata}, lambda row: {"text": row["text"]})
        return source, (row["text"] for row in rows[:count])
    hub = metadata["hub"]
    if data == "hub":
        source = {"source": "hub", "place": f"{hub['path']} ({hub['split']})", "hub": dict(hub)}
        return {**source, "dataset": dataset, "split": split}, islice(_streamed(hub), count)
    folder = Path(data).expanduser() / dataset
    files = sorted(path for path in folder.glob("*") if path.suffix in (".txt", ".jsonl")) if folder.is_dir() else []
    if not files:
        raise UsageError(f"no documents in {folder}: put *.txt or *.jsonl (column text) there, or pass data=lab")
    of_split = ([path for path in files if word in path.stem] for word in (split, "validation"))
    files = next(filter(None, of_split), files)
    source = {"source": "folder", "place": str(Path(data) / dataset), "hub": None}
    source |= {"files": [file.name for file in files], "dataset": dataset, "split": split}
    return source, islice(_in_turn([_of_file(file) for file in files]), count)


def _streamed(hub: Mapping[str, Any]) -> Iterator[str]:
    """Rows of a corpus that nobody wants to download as a whole."""
    try:
        table = datasets.load_dataset(
            hub["path"], hub.get("name"), split=hub["split"], revision=hub.get("revision"), streaming=True
        )
        for row in table:
            yield row[hub.get("column", "text")]
    except (OSError, ValueError, RuntimeError, KeyError, DatasetsError) as error:
        raise UsageError(
            f"can't read {hub['path']} from the hub ({first_line(error)}): check the network, or keep documents in "
            "<folder>/text/ (*.txt, *.jsonl) and pass data=<folder> or PCC_DATA=<folder>"
        ) from error


def _of_file(path: Path) -> Iterator[str]:
    if path.suffix == ".jsonl":
        for number, row in read_json_lines(path):
            if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                raise UsageError(f"{path}, line {number}: no JSON object with a text in the column text: correct it")
            yield row["text"]
        return
    try:
        with path.open(encoding="utf-8-sig") as lines:
            yield from _paragraphs(lines)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text ({error.reason}): save it as UTF-8") from error


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """Documents of whole lines, `PARAGRAPHS` characters or a little more each."""
    document: list[str] = []
    size = 0
    for line in lines:
        if line.strip() or document:
            document.append(line)
            size += len(line)
        if size >= PARAGRAPHS and not line.strip():
            yield "".join(document).strip()
            document, size = [], 0
    if size:
        yield "".join(document).strip()


def _in_turn(streams: Sequence[Iterator[str]]) -> Iterator[str]:
    left = list(streams)
    while left:
        for stream in list(left):
            try:
                yield next(stream)
            except StopIteration:
                left.remove(stream)
