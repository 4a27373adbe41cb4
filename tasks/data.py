"""Where rows come from: the hub, a folder of JSON Lines, or the lab, which makes them."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import datasets
from datasets.exceptions import DatasetsError
from huggingface_hub import hf_hub_download

from pcc_bench.core import documents
from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.example import Dropped, Example, RowReader
from pcc_bench.tasks.lab import rows as lab_rows
from pcc_bench.tasks.lab.world import VERSION
from pcc_bench.tasks.metrics.squad_answers.scores import PROTOCOLS, references
from pcc_bench.tasks.population import choice, data_source, paper_population

T = TypeVar("T")
Doc = dict[str, Any]
LAB_ROWS = 300  # rows of a generated data set, unless `lab_rows` says otherwise
_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can spell half a pair; no encoding and no tokenizer takes it
FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "context": datasets.Value("string"),
        "question": datasets.Value("string"),
        "answers": datasets.List(datasets.Value("string")),
    }
)


@dataclass(frozen=True)
class Row:
    """A row as it was read, with the place to name when something is wrong with it."""

    columns: Mapping[str, Any]
    number: int
    place: str


def sample_folder() -> Path:
    """A data folder with a few real SQuAD rows that ships with the project: `data=<this>` works with pcc_squad."""
    return Path(__file__).parent / "sample"


def load_docs(metadata: Mapping[str, Any], read_row: RowReader) -> tuple[list[Doc], dict[str, Any]]:
    """The docs of a task, and the account of how they came about.

    Args:
        metadata: The YAML's metadata, overlaid by `--model_args` and `--metadata`.
        read_row: The data set's own function of a row.

    Returns:
        Docs with `id`, `context`, `question` and `answers`; and the population: source, counts, fingerprint.

    Raises:
        UsageError: The data can't be found or read, or no row is left.
    """
    protocol = choice(metadata, "protocol", PROTOCOLS)
    source, rows = _open_source(metadata)
    examples, dropped = _read_examples(rows, read_row, source["place"])
    rows_read = len(examples) + dropped.total()
    if source["source"] == "lab":
        kept, filtered, population_filter = examples, Counter[str](), _everything(metadata)
    else:
        kept, filtered, population_filter = paper_population(examples, metadata, source["place"])
    scored_against = protocol if metadata["official_references"] == "first" else "strict"
    docs = [_doc(example, references(example.answers, scored_against)) for example in kept]
    return docs, {
        **source,
        "protocol": protocol,
        **population_filter,
        "rows_read": rows_read,
        "kept": len(docs),
        "dropped": dict(dropped + filtered),
        "kinds": dict(Counter(example.kind for example in kept if example.kind)),
        "fingerprint": fingerprint(docs),
    }


def read_table(
    metadata: Mapping[str, Any], read_row: Callable[[Mapping[str, Any]], Doc]
) -> tuple[dict[str, Any], list[Doc]]:
    """The rows of a data set that is not questions on contexts, as its own reader makes them.

    Args:
        metadata: `dataset`, `split`, `hub` and what the user said, as in `load_docs`.
        read_row: The data set's own function of a row.

    Returns:
        What the results say about the source, and the docs; each has an `id`, the row's number where the data has none.

    Raises:
        UsageError: The data can't be found or read, a row is not in the data set's format, or there is none.
    """
    source, rows = _open_source(metadata)
    docs = []
    for row in rows:
        doc = _convert(row, read_row)
        _check_texts(doc, row.place)
        docs.append({**doc, "id": str(doc.get("id") or row.number)})
    if not docs:
        raise UsageError(f"{source['place']} has no row to ask (it is empty): check the file")
    return source, docs


def demonstration_rows(metadata: Mapping[str, Any]) -> int:
    """Rows of the lab that demonstrations are taken from: enough for any budget, however few are asked."""
    return max(LAB_ROWS, _whole(metadata, "lab_rows", LAB_ROWS, least=1))


def to_dataset(docs: list[Doc]) -> datasets.Dataset:
    """Docs in the form lm-eval wants them in."""
    return datasets.Dataset.from_list(docs, features=FEATURES)


def fingerprint(docs: Iterable[Doc]) -> str:
    """A short hash of docs, the same on any machine."""
    digest = hashlib.sha256()
    for doc in docs:
        digest.update(json.dumps(doc, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()[:16]


def _doc(example: Example, answers: list[str]) -> Doc:
    return {"id": example.id, "context": example.context, "question": example.question, "answers": answers}


def _open_source(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], Iterator[Row]]:
    """What the results say about the source, and its rows."""
    dataset, split = metadata["dataset"], metadata["split"]
    data = data_source(metadata)
    if data == "lab":
        return _open_lab(dataset, split, metadata)
    if data == "hub":
        return _open_hub(dataset, metadata["hub"])
    path = _find_file(Path(data).expanduser(), dataset, split)
    source = {"source": "folder", "place": str(path), "dataset": dataset, "split": split, "hub": None}
    return source, _file_rows(path)


# Lab


def _open_lab(dataset: str, split: str, metadata: Mapping[str, Any]) -> tuple[dict[str, Any], Iterator[Row]]:
    """Generated rows: `lab_rows` of them (default 300), others for another `lab_seed` (default 0)."""
    count, seed = _whole(metadata, "lab_rows", LAB_ROWS, least=1), _whole(metadata, "lab_seed", 0, least=0)
    try:
        table = lab_rows(dataset, split, count, seed)
    except ValueError as error:
        raise UsageError(f"data=lab: {error}; use data=hub or data=<folder>") from error
    place = f"the lab's {dataset} ({split})"
    world = {"world_version": VERSION, "seed": seed}
    source = {"source": "lab", "place": place, "dataset": dataset, "split": split, "hub": None, **world}
    return source, (Row(row, number, f"{place}, row {number}") for number, row in enumerate(table, 1))


def _everything(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the results say instead of the paper's filter, which is about lengths of the real data sets."""
    choice(metadata, "population", ("paper", "all"))  # a wrong value is a mistake here too
    note = "every row of the lab is scored: the paper's filters are for the real data sets"
    return {"population": "all", "filter": None, "tokenizer": None, "note": note}


def _whole(metadata: Mapping[str, Any], key: str, default: int, *, least: int) -> int:
    value = metadata.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UsageError(f"{key}={value!r}: {key} is a whole number of {least} or more")
    return value


# Folder


def _find_file(folder: Path, dataset: str, split: str) -> Path:
    path = folder / dataset / f"{split}.jsonl"
    for found in (path, path.with_suffix(".json")):
        if found.is_file():
            return found
    if not folder.is_dir():
        raise UsageError(f"no data folder {folder}: pass data=<folder>, PCC_DATA=<folder>, or data=hub")
    if not path.parent.is_dir():
        present = _names(entry for entry in folder.iterdir() if entry.is_dir())
        raise UsageError(f"data folder {folder} has no folder {dataset} (it has {present}): put {split}.jsonl there")
    present = _names(path.parent.iterdir())
    raise UsageError(f"data folder {path.parent} has no file {split}.jsonl (it has {present})")


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(sorted(path.name for path in paths)) or "nothing"


def _file_rows(path: Path) -> Iterator[Row]:
    if path.suffix == ".json":
        yield from _sessions(path)
        return
    for number, row in documents.read_json_lines(path):
        place = f"{path}, line {number}"
        if not isinstance(row, dict):
            raise UsageError(f"{place}: a row is a JSON object, not {type(row).__name__}: correct the line")
        yield Row(row, number, place)


def _sessions(path: Path) -> Iterator[Row]:
    """Rows of a file that is one JSON object (name -> row, as Harry Potter Dialogue is published) or one list."""
    table = documents.read_json(path)
    rows = table.values() if isinstance(table, dict) else table
    if not isinstance(table, dict | list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path}: not a JSON object of rows or a list of them: mend the file")
    yield from (Row(row, number, f"{path}, row {number}") for number, row in enumerate(rows, 1))


# Hub


def _open_hub(dataset: str, hub: Mapping[str, Any] | None) -> tuple[dict[str, Any], Iterator[Row]]:
    if hub is None:
        raise UsageError(
            f"{dataset} is not on the hub: keep its rows in <folder>/{dataset}/<split>.jsonl and pass data=<folder> or "
            "PCC_DATA=<folder>"
        )
    try:
        table = _load_hub(hub)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:  # no network, unknown name, unknown split
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"can't load {hub['path']} from the hub ({reason}): check the network, or keep the rows in "
            f"<folder>/{dataset}/<split>.jsonl and pass data=<folder> or PCC_DATA=<folder>"
        ) from error
    place = f"{hub['path']} ({hub['split']})"
    source = {"source": "hub", "place": place, "dataset": dataset, "split": hub["split"], "hub": dict(hub)}
    return source, (Row(row, number, f"{place}, row {number}") for number, row in enumerate(table, 1))


def _load_hub(hub: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    path, split, revision = hub["path"], hub["split"], hub.get("revision")
    if file := hub.get("file"):
        local = hf_hub_download(path, file, repo_type="dataset", revision=revision)
        table = datasets.load_dataset("json", data_files={split: local}, split=split)
    else:
        table = datasets.load_dataset(path, hub.get("name"), split=split, revision=revision)
    rows: Iterable[dict[str, Any]] = table
    return rows


# Rows


def _read_examples(rows: Iterable[Row], read_row: RowReader, place: str) -> tuple[list[Example], Counter[str]]:
    examples: list[Example] = []
    dropped: Counter[str] = Counter()
    for row in rows:
        example = _read_example(row, read_row)
        if isinstance(example, Dropped):
            dropped[example.reason] += 1
        else:
            examples.append(example)
    if not examples:
        raise UsageError(f"{place} has no row to ask ({_counts(dropped) or 'it is empty'}): check the file")
    return examples, dropped


def _read_example(row: Row, read_row: RowReader) -> Example | Dropped:
    example = _convert(row, read_row)
    return example if isinstance(example, Dropped) else _checked(example, row)


def _convert(row: Row, read_row: Callable[[Mapping[str, Any]], T]) -> T:
    try:
        return read_row(row.columns)
    except KeyError as error:
        columns = ", ".join(row.columns)
        raise UsageError(f"{row.place}: no column or field {error}; the row's columns are {columns}") from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise UsageError(f"{row.place}: not in the data set's hub format ({error}): mend the row") from error


def _checked(example: Example, row: Row) -> Example:
    """The example with an id, if its texts are texts and its context is not blank."""
    columns = {"context": [example.context], "question": [example.question], "answers": example.answers}
    for column, values in columns.items():
        for value in values:
            _check_text(value, f"{row.place}: {column}")
    name = str(example.id) or str(row.number)
    if not example.context.strip():
        raise UsageError(f"{row.place} (id {name}): the context is empty: fill it in or take the row out")
    if not example.answers:
        raise UsageError(f"{row.place} (id {name}): there is no reference answer: fill it in or take the row out")
    return Example(example.context, example.question, example.answers, name, example.kind)


def _check_text(value: Any, place: str) -> None:
    if not isinstance(value, str):
        raise UsageError(f"{place} holds {type(value).__name__}, not text: mend the row")
    if _SURROGATE.search(value):
        raise UsageError(f"{place} holds half of a surrogate pair, which is no character: mend the row")


def _check_texts(doc: Doc, place: str) -> None:
    for column, value in doc.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                _check_text(text, f"{place}: {column}")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())
