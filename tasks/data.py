"""Where rows come from (the hub, a folder of JSON Lines, the lab, which makes them), and which of them are scored."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import datasets
from datasets.exceptions import DatasetsError
from huggingface_hub import hf_hub_download

from pcc_bench.core import documents
from pcc_bench.core.errors import UsageError, first_line
from pcc_bench.tasks.lab import VERSION
from pcc_bench.tasks.lab import rows as lab_rows
from pcc_bench.tasks.metadata import FILTER, FILTER_OFF, TokenCounter, choice, data_source, whole
from pcc_bench.tasks.metrics.squad_answers.squad_answers import PROTOCOLS, scored_against
from pcc_bench.tasks.rows import Dropped, Example, RowReader

T = TypeVar("T")
Numbered = tuple[int, str, T]  # a row with its number, and the place to name when something is wrong with it
Doc = dict[str, Any]
LAB_ROWS = 300  # rows of a generated data set, unless `lab_rows` says otherwise
BATCH = 1000  # contexts a tokenizer call: enough for its threads, small in memory


def load_docs(metadata: Mapping[str, Any], read_row: RowReader) -> tuple[list[Doc], dict[str, Any]]:
    """The docs of a task (`id`, `context`, `question`, `answers`), and how they came about: source, counts, filter.

    A `UsageError` where the data can't be found or read, or no row is left.
    """
    protocol = choice(metadata, "protocol", PROTOCOLS)
    population = choice(metadata, "population", ("paper", "all"))
    source, rows = _open_source(metadata)
    examples: list[Example] = []
    dropped = Counter[str]()
    for number, place, example in _converted(rows, read_row):
        if isinstance(example, Dropped):
            dropped[example.reason] += 1
            continue
        answers = (("answers", answer) for answer in example.answers)
        for column, text in (("context", example.context), ("question", example.question), *answers):
            _check_text(text, f"{place}: {column}")
        name = str(example.id) or str(number)
        if not example.context.strip() or not example.answers:
            what = "the context is empty" if example.answers else "there is no reference answer"
            raise UsageError(f"{place} (id {name}): {what}: fill it in or take the row out")
        examples.append(replace(example, id=name))
    if not examples:
        counts = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        raise UsageError(f"{source['place']} has no row to ask ({counts or 'it is empty'}): check the file")
    account: dict[str, Any] = {"population": population, "filter": None, "tokenizer": None}
    if source["source"] == "lab":
        note = "every row of the lab is scored: the paper's filters are for the real data sets"
        account |= {"population": "all", "note": note}
    elif population == "paper" and (rule := metadata["population_filter"]) is not None:
        examples, counter = _paper_population(examples, rule, metadata, source["place"], dropped)
        if counter is not None:
            account |= {"filter": dict(rule), "tokenizer": counter.name}
    references = protocol if metadata.get("official_references") == "first" else "strict"
    docs = [
        {"id": e.id, "context": e.context, "question": e.question, "answers": scored_against(e.answers, references)}
        for e in examples
    ]
    kinds = dict(Counter(example.kind for example in examples if example.kind))
    return docs, {**source, "protocol": protocol, **account, "dropped": dict(dropped), "kinds": kinds}


def _paper_population(
    examples: list[Example], rule: Mapping[str, Any], metadata: Mapping[str, Any], place: str, dropped: Counter[str]
) -> tuple[list[Example], TokenCounter | None]:
    """The examples that the paper's code would score; the others are counted in `dropped`.

    `rule`: `more_than` and `at_most` bound a context's decoder tokens, BOS counted; `kind`: the rows that it is for.
    """
    subject = [example for example in examples if rule.get("kind", example.kind) == example.kind]
    if not subject:
        return examples, None
    counter = TokenCounter.open(metadata, FILTER, FILTER_OFF)
    contexts = sorted({example.context for example in subject})
    least, most = rule.get("more_than", -1), rule.get("at_most", math.inf)
    reasons: dict[str, str] = {}
    for start in range(0, len(contexts), BATCH):
        batch = contexts[start : start + BATCH]
        for context, ids in zip(batch, counter.ids(batch), strict=True):
            tokens = len(ids) + (counter.tokenizer.bos_token_id is not None)
            if not least < tokens <= most:
                bound = f"{least} tokens or fewer" if tokens <= least else f"more than {most} tokens"
                reasons[context] = f"context of {bound}"
    out = Counter(reasons[example.context] for example in subject if example.context in reasons)
    scored = [e for e in examples if e.context not in reasons or rule.get("kind", e.kind) != e.kind]
    if not scored:
        counts = ", ".join(f"{count} with {reason}" for reason, count in out.items())
        raise UsageError(
            f"the paper's filter {dict(rule)} leaves no row of {place} ({counts}; decoder tokens with BOS, "
            f'tokenizer {counter.name}): pass --metadata \'{{"population": "all"}}\' to score every row'
        )
    dropped.update(out)
    return scored, counter


def read_table(metadata: Mapping[str, Any], read_row: Callable[[Mapping[str, Any]], Doc]) -> tuple[Doc, list[Doc]]:
    """The source of a data set that is not questions on contexts, and its rows as its own reader makes them.

    Each has an `id`: the row's number, where the data has none. A `UsageError` where the data can't be found or read.
    """
    source, rows = _open_source(metadata)
    docs = []
    for number, place, doc in _converted(rows, read_row):
        for column, value in doc.items():
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str):
                    _check_text(text, f"{place}: {column}")
        docs.append({**doc, "id": str(doc.get("id") or number)})
    if not docs:
        raise UsageError(f"{source['place']} has no row to ask (it is empty): check the file")
    return source, docs


def demonstration_rows(metadata: Mapping[str, Any]) -> int:
    """Rows of the lab that demonstrations are taken from: enough for any budget, however few are asked."""
    return max(LAB_ROWS, whole(metadata, "lab_rows", LAB_ROWS))


def fingerprint(docs: Iterable[Doc]) -> str:
    digest = hashlib.sha256()
    for doc in docs:
        digest.update(json.dumps(doc, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()[:16]


def _open_source(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], Iterator[Numbered[Doc]]]:
    dataset, split, data = metadata["dataset"], metadata["split"], data_source(metadata)
    source: dict[str, Any] = {"source": "folder", "dataset": dataset, "split": split, "hub": None}
    if data == "lab":
        count, seed = whole(metadata, "lab_rows", LAB_ROWS), whole(metadata, "lab_seed", 0, least=0)
        try:
            table: Iterable[Doc] = lab_rows(dataset, split, count, seed)
        except ValueError as error:
            raise UsageError(f"data=lab: {error}; use data=hub or data=<folder>") from error
        place = f"the lab's {dataset} ({split})"
        source |= {"source": "lab", "place": place, "world_version": VERSION, "seed": seed}
    elif data == "hub":
        hub, files = metadata["hub"], f"{dataset}/<split>.jsonl"
        if hub is None:
            raise UsageError(
                f"{dataset} is not on the hub: keep its rows in <folder>/{files} and pass data=<folder> or "
                "PCC_DATA=<folder>"
            )
        table = read_hub(hub, files)
        place = f"{hub['path']} ({hub['split']})"
        source |= {"source": "hub", "place": place, "split": hub["split"], "hub": dict(hub)}
    else:
        path = _find_file(Path(data).expanduser(), dataset, split)
        return {**source, "place": str(path)}, _read_file(path)
    return source, ((number, f"{place}, row {number}", row) for number, row in enumerate(table, 1))


def read_hub(hub: Mapping[str, Any], files: str, column: str | None = None, **options: Any) -> Iterator[Any]:
    """Rows of a data set on the hub, or their `column`; `files`: where a data folder has them, for messages."""
    path, split, revision = hub["path"], hub["split"], hub.get("revision")
    try:
        if file := hub.get("file"):
            local = hf_hub_download(path, file, repo_type="dataset", revision=revision)
            table = datasets.load_dataset("json", data_files={split: local}, split=split)
        else:
            table = datasets.load_dataset(path, hub.get("name"), split=split, revision=revision, **options)
        for row in table:
            yield row[column] if column else row
    except (OSError, ValueError, RuntimeError, KeyError, DatasetsError) as error:  # no network, unknown name or split
        raise UsageError(
            f"can't load {path} from the hub ({first_line(error)}): check the network, or keep the rows in "
            f"<folder>/{files} and pass data=<folder> or PCC_DATA=<folder>"
        ) from error


def _find_file(folder: Path, dataset: str, split: str) -> Path:
    path = folder / dataset / f"{split}.jsonl"
    for file in (path, path.with_suffix(".json")):
        if file.is_file():
            return file
    if not folder.is_dir():
        raise UsageError(f"no data folder {folder}: pass data=<folder>, PCC_DATA=<folder>, or data=hub")
    exists = path.parent.is_dir()
    entries = path.parent.iterdir() if exists else (entry for entry in folder.iterdir() if entry.is_dir())
    present = ", ".join(sorted(entry.name for entry in entries)) or "nothing"
    if exists:
        raise UsageError(f"data folder {path.parent} has no file {split}.jsonl (it has {present})")
    raise UsageError(f"data folder {folder} has no folder {dataset} (it has {present}): put {split}.jsonl there")


def _read_file(path: Path) -> Iterator[Numbered[Doc]]:
    """Rows of a JSON Lines file, or of one JSON object (name -> row, as Harry Potter Dialogue is published) or list."""
    if path.suffix == ".json":
        table = documents.read_json(path)
        rows = list(table.values()) if isinstance(table, dict) else table
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UsageError(f"{path}: not a JSON object of rows or a list of them: fix the file")
        yield from ((number, f"{path}, row {number}", row) for number, row in enumerate(rows, 1))
        return
    for number, row in documents.read_json_lines(path):
        place = f"{path}, line {number}"
        if not isinstance(row, dict):
            raise UsageError(f"{place}: a row is a JSON object, not {type(row).__name__}: correct the line")
        yield number, place, row


def _converted(rows: Iterable[Numbered[Doc]], read_row: Callable[[Mapping[str, Any]], T]) -> Iterator[Numbered[T]]:
    for number, place, row in rows:
        try:
            converted = read_row(row)
        except KeyError as error:
            columns = ", ".join(row)
            raise UsageError(f"{place}: no column or field {error}; the row's columns are {columns}") from error
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise UsageError(f"{place}: not in the data set's hub format ({error}): fix the row") from error
        yield number, place, converted


def _check_text(value: Any, place: str) -> None:
    if not isinstance(value, str):
        raise UsageError(f"{place} holds {type(value).__name__}, not text: fix the row")
    if documents.SURROGATE.search(value):
        raise UsageError(f"{place} holds half of a surrogate pair, which is no character: fix the row")
