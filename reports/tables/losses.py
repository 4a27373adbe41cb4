"""What is lost: answers by what kind of thing they are, and by how near to a segment's border they stand."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Literal

import numpy as np

from pcc_bench.core import shipped
from pcc_bench.core.documents import is_file
from pcc_bench.reports import measure
from pcc_bench.reports.measure import ScoredRows
from pcc_bench.reports.table import Cell, Column, Table
from pcc_bench.reports.tables import Line, cell_of
from pcc_bench.reports.tables.quality import METRIC, TASKS, of_table2
from pcc_bench.results.collection import Results
from pcc_bench.results.reading import Answer, read_answers
from pcc_bench.results.run import Run

Labels = Mapping[int, str]  # row -> the column it belongs to
Span = tuple[int, int]  # characters of a context, the end not included
Offsets = Sequence[Span]  # of each token
DISTANCES = {"0 to 4": 4, "5 to 16": 16}  # tokens, at most
FAR = "17 or more"
NO_TOKENIZER = "lines whose tokenizer is not here"
OTHER_TOKENS = "rows of which the tokenizer here makes another number of tokens than was recorded"
NOWHERE = "rows whose answer stands in their context nowhere or twice"
ONE_SEGMENT = "rows whose context is one segment"
KINDS_NOTE = (
    "F1 of the rows of all sets together, by what the first reference is: a date or number by its form; a place "
    "where the question asks where or which city, country or the like; a name where it asks who, or where every word "
    "begins with a capital; other."
)
BORDERS_NOTE = (
    "F1 of the rows of all sets together, by the encoder's tokens between the answer and the nearest border of two "
    "segments (0: the border is inside the answer). Methods that cut contexts into segments only."
)


def kinds(results: Results) -> Table:
    """F1 by kind of answer, a row a line of Table 2."""
    known: dict[tuple[str, str], Labels] = {}

    def labels(run: Run, task: str) -> Labels:
        key = (task, run.tasks[task].population.fingerprint or run.id)
        if key not in known:
            known[key] = {answer.row: answer_kind(answer) for answer in read_answers(run.tasks[task])}
        return known[key]

    pairs = [(line, _cells(line, labels, KINDS)) for line in _lines(results)]
    return _table("kinds", "Answers by kind", KINDS, pairs, (KINDS_NOTE,))


def borders(results: Results) -> Table:
    """F1 by distance to a segment's border, a row a line of Table 2 whose method cuts contexts."""
    columns = (*DISTANCES, FAR)
    pairs = []
    reasons: dict[str, dict[int, list[str]]] = {}  # rows left out: why, how many, of which lines
    for line in _lines(results):
        segment = segment_length(line.runs[0]) if line.row.role == "method" else None
        if not segment:
            continue
        left: Counter[str] = Counter()
        if (tokens := tokens_of(line.runs[0])) is None:
            left[NO_TOKENIZER] += 1
        else:
            pairs.append((line, _cells(line, partial(border_labels, tokens, segment, left), columns)))
        for reason, count in left.items():
            reasons.setdefault(reason, {}).setdefault(count, []).append(line.row.label)
    notes = [BORDERS_NOTE]
    for reason, by_count in reasons.items():
        counts = "; ".join(f"{count} of {', '.join(labels)}" for count, labels in by_count.items())
        notes.append(f"Left out: {reason}: {counts}.")
    return _table("borders", "Answers by distance to a segment's border", columns, pairs, notes, "tokens to a border")


def _lines(results: Results) -> list[Line]:
    """The lines of Table 2 whose rows are known."""
    return [line for line in of_table2(results) if all(task.samples for _, task in line.results())]


def border_labels(tokens: Callable[[str], Offsets], segment: int, left: Counter[str], run: Run, task: str) -> Labels:
    """How far the answer of each row is from a border; rows without an answer or a border are counted in `left`."""
    recorded = run.tasks[task].rows.account.get("compressor_tokens")
    counts = {} if recorded is None else dict(zip(run.tasks[task].rows.number.tolist(), recorded, strict=True))
    places = {}
    for answer in read_answers(run.tasks[task]):
        span, offsets = answer_span(answer.context, answer.references), tokens(answer.context)
        distance = None if span is None else border_distance(offsets, span, segment)
        if counts.get(answer.row, len(offsets)) != len(offsets):
            left[OTHER_TOKENS] += 1
        elif distance is None:
            left[NOWHERE if span is None else ONE_SEGMENT] += 1
        else:
            places[answer.row] = next((name for name, most in DISTANCES.items() if distance <= most), FAR)
    return places


def _cells(line: Line, labels: Callable[[Run, str], Labels], columns: Sequence[str]) -> tuple[Cell, ...]:
    """A cell a column: the line's rows of all sets that belong to it."""
    parts: dict[str, list[ScoredRows]] = {column: [] for column in columns}
    for task in TASKS:
        score = measure.measure(line.runs, task, METRIC)
        if score is not None and score.rows is not None:
            of_row = labels(line.runs[0], task)
            names = np.array([of_row.get(row, "") for row in score.rows.number.tolist()])
            for column in columns:
                parts[column].append(score.rows.only(np.flatnonzero(names == column)))
    scores = (measure.pooled(METRIC, rows) for rows in parts.values())
    return tuple(cell_of([score] if score else []) for score in scores)


def _table(
    key: str,
    title: str,
    columns: Sequence[str],
    pairs: Sequence[tuple[Line, tuple[Cell, ...]]],
    notes: Iterable[str],
    group: str = "",
) -> Table:
    counts = {name: sorted({cells[j].n or 0 for _, cells in pairs}) for j, name in enumerate(columns)}
    rows = [f"{name}: {' or '.join(f'{n:,}' for n in known)} rows." for name, known in counts.items() if any(known)]
    own = (*notes, " ".join(rows)) if pairs else ()
    heads = [Column(key=f"{name}.{METRIC}", group=group, name=name, unit="%", better="higher") for name in columns]
    lines, cells = [line.row for line, _ in pairs], [cells for _, cells in pairs]
    return Table(
        key=key, title=title, columns=tuple(heads), rows=tuple(lines), cells=tuple(cells), notes=own, own_notes=own
    )


Kind = Literal["number", "date", "name", "place", "other"]
KINDS: tuple[Kind, ...] = ("number", "date", "name", "place", "other")
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = re.compile(
    rf"\b(?:{_MONTHS})\b.*\d|\d.*\b(?:{_MONTHS})\b|^(?:{_MONTHS})$|\b\d{{4}}-\d{{2}}-\d{{2}}\b"
    r"|\b\d{1,2}[/.]\d{1,2}[/.]\d{2,4}\b|^(?:in )?(?:1\d|20)\d{2}s?$",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"\d|^(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|hundred|thousand"
    r"|million|billion)\b",
    re.IGNORECASE,
)
_PLACE = re.compile(
    r"\bwhere\b|\b(?:which|what)\s+(?:\w+\s+)?(?:city|town|village|country|state|county|province|region|continent"
    r"|place|location|island|river|street|capital)\b",
    re.IGNORECASE,
)
_PERSON = re.compile(r"\b(?:who|whom|whose)\b|\b(?:what|which)\b.*\bname\b", re.IGNORECASE)
_SMALL = ("of", "the", "and", "de", "la", "von", "van", "a", "an", "in", "for", "&")


def answer_kind(answer: Answer) -> Kind:
    """What kind of thing the first reference is: see `KINDS_NOTE`; small words of a name need no capital."""
    reference = answer.references[0].strip() if answer.references else ""
    if _DATE.search(reference):
        return "date"
    if _NUMBER.search(reference):
        return "number"
    if _PLACE.search(answer.question):
        return "place"
    words = [word for word in reference.split() if word.lower() not in _SMALL]
    if _PERSON.search(answer.question) or (words and all(word[0].isupper() for word in words)):
        return "name"
    return "other"


def answer_span(context: str, references: Sequence[str]) -> Span | None:
    """Where an answer stands in its context, as whole words; None where it stands nowhere or in several places."""
    for reference in references:
        pattern = rf"(?<!\w){re.escape(reference.strip())}(?!\w)"
        places = [match.span() for match in re.finditer(pattern, context, re.IGNORECASE)] if reference.strip() else []
        if places:
            return places[0] if len(places) == 1 else None
    return None


LENGTHS = ("segment_length", "document_length")  # options that say how many tokens a segment has
TOKENIZER = "tokenizer.json"


def segment_length(run: Run) -> int | None:
    """Tokens of a segment; None where a method reads contexts whole or does not say."""
    options = run.reported.options if run.reported else {}
    return next((options[name] for name in LENGTHS if isinstance(options.get(name), int)), None)


def tokens_of(run: Run) -> Callable[[str], Offsets] | None:
    """What cuts a run's contexts into tokens: the tokenizer of its checkpoint, else of its decoder; None: not here."""
    folders = (Path(name) if Path(name).is_dir() else shipped.find(name) for name in (run.checkpoint, run.decoder))
    files = [folder / TOKENIZER for folder in folders if folder is not None and is_file(folder / TOKENIZER)]
    if not files:
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(files[0]))
    return cache(lambda text: tokenizer.encode(text, add_special_tokens=False).offsets)  # many questions, one context


def border_distance(offsets: Offsets, answer: Span, segment: int) -> int | None:
    """Tokens from an answer to the nearest joint: 0 across it, 1 beside it; None where the context is one segment."""
    inside = [i for i, (start, end) in enumerate(offsets) if start < answer[1] and end > answer[0]]
    joints = range(segment, len(offsets), segment)  # each before the token of that number
    if not inside or not joints:
        return None
    first, last = inside[0], inside[-1]
    return min(0 if first < joint <= last else joint - last if joint > last else first - joint + 1 for joint in joints)
