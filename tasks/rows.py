"""One reader for each original data set: a row as its authors publish it becomes what a task asks.

A row of a question task becomes an `Example` (or is `Dropped`, and counted); one of another task becomes a document of
that task's columns. A reader raises `KeyError`, `TypeError` or `ValueError` for a row that is not in its format; who
reads the rows (`data.py`) says where that row stands.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REAL = "real"  # `data=real`: the rows of `real_folder`


def real_folder() -> Path:
    """100 real SQuAD rows on 40 paragraphs that ship (CC BY-SA 4.0; see its README)."""
    return Path(__file__).parent / "real"


@dataclass(frozen=True)
class Example:
    context: str  # what may be compressed
    question: str
    answers: list[str]  # reference answers, the data set's own first one first
    id: str = ""  # the data set's id; "" where it has none (the row's number stands in)
    kind: str = ""  # the population the row belongs to, where a data set has several; "" otherwise


@dataclass(frozen=True)
class Dropped:
    reason: str  # why a row can't be asked; counted in the results


RowReader = Callable[[Mapping[str, Any]], Example | Dropped]


def squad(row: Mapping[str, Any]) -> Example | Dropped:
    """A row of SQuAD (of SQuAD 2.0 without the unanswerable ones, as in the paper), or of AdversarialQA."""
    if not (answers := answer_texts(row["answers"])):
        return Dropped("unanswerable")
    return Example(row["context"], row["question"], answers, row["id"])


def hotpotqa(row: Mapping[str, Any]) -> Example | Dropped:
    """A row of HotpotQA (distractor setting): the two supporting paragraphs and the distractors."""
    return _paragraphs(row, set(row["context"]["title"]))


def hotpotqa_gold(row: Mapping[str, Any]) -> Example | Dropped:
    return _paragraphs(row, set(row["supporting_facts"]["title"]))


def _paragraphs(row: Mapping[str, Any], titles: set[str]) -> Example:
    titled = zip(row["context"]["title"], row["context"]["sentences"], strict=True)
    paragraphs = [f"{title}\n{''.join(sentences)}" for title, sentences in titled if title in titles]
    return Example("\n\n".join(paragraphs), row["question"], [row["answer"]], row["id"])


def nq(row: Mapping[str, Any]) -> Example | Dropped:
    """A row of Natural Questions: the paper's (Tevatron/wikipedia-nq: all passages with the answer), or with one."""
    if "ctxs" in row:
        passages = [passage["text"] for passage in row["ctxs"] if passage["isgold"]]
        question, name, kind = row["question"], "", "gold_passage"
    else:
        passages = [passage["text"] for passage in row["positive_passages"]]
        question, name, kind = row["query"], row["query_id"], "positive_passages"
    if not passages:
        return Dropped(f"no {kind.replace('_', ' ').removesuffix('s')}")
    return Example("\n\n".join(passages), question, answer_texts(row["answers"]), name, kind)


def answer_texts(answers: Any) -> list[str]:
    """References in any of the shapes data sets have them in: SQuAD's dict, a list, one string."""
    if isinstance(answers, str):
        return [answers]
    return list(answers["text"] if isinstance(answers, Mapping) else answers)


def gsm8k(row: Mapping[str, Any]) -> dict[str, Any]:
    if "#### " not in row["answer"]:
        raise ValueError("the answer has no line '#### <number>'")
    return {"question": row["question"], "answer": row["answer"]}


def sst2(row: Mapping[str, Any]) -> dict[str, Any]:
    label = _option(row["label"], ("negative", "positive"))
    return {"id": str(row.get("idx", "")), "sentence": row["sentence"], "label": label}


def wsc(row: Mapping[str, Any]) -> dict[str, Any]:
    """A sentence of WSC, a noun phrase and a pronoun; flat as on the hub, or nested as in SuperGLUE's own files."""
    spans = row.get("target", row)
    doc = {"id": str(row.get("idx", "")), "text": row["text"], "label": _option(row["label"], ("no", "yes"))}
    return {**doc, "span1_text": spans["span1_text"], "span2_text": spans["span2_text"]}


def _option(label: Any, options: Sequence[str]) -> int:
    """A label as an option's number; data sets have numbers or truth values."""
    if not isinstance(label, int) or not 0 <= label < len(options):
        named = ", ".join(f"{number} ({option})" for number, option in enumerate(options))
        raise ValueError(f"label {label!r} is outside the set {named}")
    return int(label)


def hpd(row: Mapping[str, Any]) -> dict[str, Any]:
    """A session of Harry Potter Dialogue, however its columns are spelled; Harry responds, or the column `role`."""
    plain = {re.sub(r"[ -]", "_", key.strip().lower()): value for key, value in row.items()}
    columns = ("scene", "dialogue", "positive_response", "negative_responses")
    texts = {key: [plain[key]] if isinstance(plain[key], str) else list(plain[key]) for key in columns}
    role, scene = str(plain.get("role", "Harry")), " ".join(texts["scene"]).strip()
    responses = [texts["positive_response"][0], *texts["negative_responses"]]
    response, *negatives = (text.removeprefix(f"{role}:").strip() for text in responses)
    doc = {"id": str(plain.get("id", "")), "role": role, "who": role, "scene": f"Scene: {scene}" if scene else ""}
    position = [int(number) for number in re.findall(r"\d+", str(plain["position"]))]
    return _session(**doc, turns=texts["dialogue"], response=response, negatives=negatives, position=position)


def msc(row: Mapping[str, Any]) -> dict[str, Any]:
    """A session of Multi-Session Chat without the personas, which sum up those before; its last turn is asked."""
    return _chat(row, "")


def personachat(row: Mapping[str, Any]) -> dict[str, Any]:
    return _chat(row, f"Persona of Assistant: {' '.join(row['persona'])}")


def _chat(row: Mapping[str, Any], scene: str) -> dict[str, Any]:
    """A dialogue of pairs (user, assistant) whose last assistant turn is the response."""
    pairs = [zip(("User", "Assistant"), pair, strict=True) for pair in row["dialogue"]]
    turns = [f"{name}: {text.strip()}" for pair in pairs for name, text in pair]
    doc = {"id": str(row["id"]), "role": "Assistant", "who": str(row["id"]), "scene": scene}
    response = turns[-1].removeprefix("Assistant: ") if turns else ""
    return _session(**doc, turns=turns[:-1], response=response, negatives=[], position=[])


def _session(**doc: Any) -> dict[str, Any]:
    """A row of dialogue, whose columns are those of `dialogue.Session`."""
    if not doc["turns"]:
        raise ValueError("the dialogue is empty")
    if not all(isinstance(text, str) for text in (doc["response"], *doc["turns"], *doc["negatives"])):
        raise ValueError("turns and responses are not all text")
    if not doc["response"].strip() or not all(text.strip() for text in doc["negatives"]):
        raise ValueError("a response is empty")
    return doc
