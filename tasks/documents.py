"""Plain documents, from the hub (streamed), a folder of text files or the lab, and pieces of them by decoder tokens."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, islice, pairwise, zip_longest
from pathlib import Path
from typing import Any

from pcc_bench.core.documents import read_json_lines
from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.data import read_hub, read_table
from pcc_bench.tasks.metadata import TokenCounter, data_source, whole

DOCUMENTS = 500  # looked at, unless `documents` says otherwise
PER_TOKEN = 16  # characters: so much text holds a token for sure, or nearly; else the whole document is tokenized
PARAGRAPHS = 20_000  # characters of paragraphs of a .txt file that make a document


def pieces(
    metadata: Mapping[str, Any], lengths: Sequence[int], counter: TokenCounter
) -> tuple[list[tuple[str, ...]], dict[str, int], dict[str, Any]]:
    """The beginnings of documents, cut into stretches of at most so many decoder tokens (less than a word fewer).

    With metadata `characters`, it is that many characters in place of the first length, and the others in proportion.
    With the consecutive stretches of each document come the counts of those dropped, by reason, and the account
    (source, lengths, tokenizer). A `UsageError` where no document is long enough.
    """
    unit = "tokens" if metadata.get("characters") is None else "characters"
    if unit == "characters":
        lengths = [round(whole(metadata, "characters", 1) * length / lengths[0]) for length in lengths]
    ends = list(pairwise(accumulate(lengths, initial=0)))
    source, texts = read_documents(metadata)
    cuts: list[tuple[str, ...]] = []
    short = 0
    for text in texts:
        if unit == "tokens":
            cut = cut_tokens(text, lengths, counter)
        else:
            cut = tuple(text[start:end] for start, end in ends) if len(text) >= sum(lengths) else None
        cuts += [] if cut is None else [cut]
        short += cut is None
    if not cuts:
        raise UsageError(
            f"none of the {short} documents of {source['place']} has {sum(lengths)} {unit}: pass a smaller length or "
            "longer documents"
        )
    dropped = {f"documents of fewer than {sum(lengths)} {unit}": short} if short else {}
    return cuts, dropped, {**source, "lengths": {unit: list(lengths)}, "tokenizer": counter.name}


def cut_tokens(text: str, lengths: Sequence[int], counter: TokenCounter) -> tuple[str, ...] | None:
    """The text's first stretches of at most so many tokens; None where it is too short.

    A cut falls before a blank, which the next stretch begins with, so that both sides keep their tokens; in a stretch
    without one, between two tokens.
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

    A folder's are in `<data>/text/`, in `.jsonl` (column `text`) and `.txt` files. Where some have the split's name (or
    `validation`) in theirs, only those are read; of several files the documents come in turn. A `UsageError` where
    there are none, or they can't be read.
    """
    count = whole(metadata, "documents", DOCUMENTS)
    data, dataset, split = data_source(metadata), metadata["dataset"], metadata["split"]
    if data == "lab":
        source, rows = read_table({"lab_rows": count, **metadata}, lambda row: {"text": row["text"]})
        return source, (row["text"] for row in rows[:count])
    hub = metadata["hub"]
    if data == "hub":
        source = {"source": "hub", "place": f"{hub['path']} ({hub['split']})", "hub": dict(hub)}
        texts = read_hub(hub, "text/ (*.txt, *.jsonl)", hub.get("column", "text"), streaming=True)
        return {**source, "dataset": dataset, "split": split}, islice(texts, count)
    folder = Path(data).expanduser() / dataset
    files = sorted(path for path in folder.glob("*") if path.suffix in (".txt", ".jsonl")) if folder.is_dir() else []
    if not files:
        raise UsageError(f"no documents in {folder}: put *.txt or *.jsonl (column text) there, or pass data=lab")
    of_split = ([path for path in files if word in path.stem] for word in (split, "validation"))
    files = next(filter(None, of_split), files)
    source = {"source": "folder", "place": str(Path(data) / dataset), "hub": None}
    source |= {"files": [file.name for file in files], "dataset": dataset, "split": split}
    rounds = zip_longest(*map(of_file, files))
    return source, islice((text for texts in rounds for text in texts if text is not None), count)


def of_file(path: Path) -> Iterator[str]:
    """Rows of a `.jsonl` file; of another paragraphs to the number of `PARAGRAPHS` characters, or a little more."""
    if path.suffix == ".jsonl":
        for number, row in read_json_lines(path):
            if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                raise UsageError(f"{path}, line {number}: no JSON object with a text in the column text: correct it")
            yield row["text"]
        return
    document = ""
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for line in lines:
                document += line if line.strip() or document else ""
                if len(document) >= PARAGRAPHS and not line.strip():
                    yield document.strip()
                    document = ""
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text ({error.reason}): save it as UTF-8") from error
    if document:
        yield document.strip()
