"""Rows of the lab's data sets, in the formats of the real ones; any row can be made alone from its number."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from pcc_bench.tasks.lab import arithmetic, dialogue, pronouns, sentiment
from pcc_bench.tasks.lab.draws import integer, seeded, shuffle
from pcc_bench.tasks.lab.narrative import draw_document
from pcc_bench.tasks.lab.paragraphs import draw_paragraphs
from pcc_bench.tasks.lab.passages import Passage, draw_passage
from pcc_bench.tasks.lab.questions import Question, contested, one_hop, two_hop

SPLITS = ("train", "validation", "test")
QUESTIONS = 4  # rows on one context, one after the other; fewer where contexts are asked to be shorter
LENGTHS = (9, 32)  # sentences of most contexts; about 9 tokens each

Row = dict[str, Any]
Lengths = tuple[int, int] | None


def rows(dataset: str, split: str, count: int, seed: int = 0, *, sentences: Lengths = None) -> list[Row]:
    """The first rows of a data set of the lab.

    Args:
        dataset: One of `DATASETS`.
        split: `train`, `validation` or `test`; the latter two use names that `train` never has.
        count: How many rows.
        seed: Another seed gives other rows.
        sentences: Shortest and longest context of the questions (and of `text`), in sentences; None: 7 to 60,
            mostly `LENGTHS`.

    Raises:
        ValueError: Unknown data set or split, or lengths that can't be.
    """
    return [row for start in range(0, count, QUESTIONS) for row in _block(dataset, split, start, seed, sentences)][
        :count
    ]


def row(dataset: str, split: str, index: int, seed: int = 0, *, sentences: Lengths = None) -> Row:
    """One row, the same as in `rows`."""
    return _block(dataset, split, index - index % QUESTIONS, seed, sentences)[index % QUESTIONS]


def _block(dataset: str, split: str, start: int, seed: int, sentences: Lengths) -> list[Row]:
    """The `QUESTIONS` rows from `start` on, which share their context where the data set has contexts."""
    if dataset not in (*DATASETS, *_SHOWN):
        raise ValueError(f"the lab has no data set {dataset}; it has {', '.join(DATASETS)}")
    if split not in SPLITS:
        raise ValueError(f"the lab has no split {split}; it has {', '.join(SPLITS)}")
    if sentences is not None and not 2 <= sentences[0] <= sentences[1]:
        raise ValueError(f"contexts of {sentences[0]} to {sentences[1]} sentences: at least 2, the shorter first")
    if dataset in _CONTEXTS:
        return _CONTEXTS[dataset](start, split, seed, sentences)
    single = (_SINGLES | _SHOWN)[dataset]
    return [
        single(seeded(seed, split, dataset, index), index, split, seed, sentences)
        for index in range(start, start + QUESTIONS)
    ]


# Questions on contexts


def _squad(start: int, split: str, seed: int, sentences: Lengths) -> list[Row]:
    return _from_passages("squad", start, split, seed, sentences)


def _adversarialqa(start: int, split: str, seed: int, sentences: Lengths) -> list[Row]:
    metadata = {"split": split, "model_in_the_loop": "none"}
    made = _from_passages("adversarialqa", start, split, seed, sentences, alike=True)
    return [{**row, "metadata": metadata} for row in made]


def _from_passages(
    dataset: str, start: int, split: str, seed: int, sentences: Lengths, *, alike: bool = False
) -> list[Row]:
    made: list[Row] = []
    for first in _firsts(start, sentences):
        random = seeded(seed, split, dataset, first)
        length = _length(random, sentences)
        questions: list[Question] = []
        while len(questions) < _per_context(sentences):  # near-duplicates may agree in all that is said of them
            passage = _passage(random, length, split, alike=alike)
            questions = (contested if alike else one_hop)(random, passage)
        for question in _some(random, questions, sentences):
            made.append(
                {
                    "id": f"lab-{dataset}-{split}-{seed}-{start + len(made)}",
                    "title": f"Passage {first}",
                    "context": passage.text,
                    "question": question.text,
                    "answers": {"text": [question.answer], "answer_start": [question.needs[0].value_start]},
                }
            )
    return made


def _nq(start: int, split: str, seed: int, sentences: Lengths) -> list[Row]:
    made: list[Row] = []
    for first in _firsts(start, sentences):
        random = seeded(seed, split, "nq", first)
        gold = _passage(random, _length(random, sentences), split)
        passages = shuffle(random, [gold, *_others(random, gold, split)])
        for question in _some(random, one_hop(random, gold), sentences):
            contexts = [
                {
                    "title": " and ".join(person.name for person in passage.cast.people[:2]),
                    "text": passage.text,
                    "hasanswer": question.answer in passage.text,
                    "isgold": passage is gold,
                }
                for passage in passages
            ]
            made.append({"question": question.text, "answers": [question.answer], "ctxs": contexts})
    return made


def _others(random: Random, gold: Passage, split: str) -> list[Passage]:
    """Two to five passages about nobody and no company of the gold one."""
    subjects = {stated.fact.subject for stated in gold.stated}
    others: list[Passage] = []
    wanted = integer(random, 2, 5)
    while len(others) < wanted:
        passage = _passage(random, integer(random, 3, 8), split)
        if not subjects & {stated.fact.subject for stated in passage.stated}:
            others.append(passage)
    return others


def _hotpotqa(start: int, split: str, seed: int, sentences: Lengths) -> list[Row]:
    made: list[Row] = []
    for first in _firsts(start, sentences):
        random = seeded(seed, split, "hotpotqa", first)
        length = _length(random, sentences)
        questions: list[Question] = []
        while len(questions) < _per_context(sentences):  # short ones may have no two facts that lean on each other
            paragraphs = draw_paragraphs(random, length, split=split)
            questions = two_hop(random, paragraphs.whole)
        # As on the hub, each sentence but a paragraph's first begins with the blank before it.
        texts = [[sentence if n == 0 else f" {sentence}" for n, sentence in enumerate(p)] for p in paragraphs.sentences]
        for question in _some(random, questions, sentences):
            needs = [paragraphs.places[stated.fact] for stated in question.needs]
            made.append(
                {
                    "id": f"lab-hotpotqa-{split}-{seed}-{start + len(made)}",
                    "question": question.text,
                    "answer": question.answer,
                    "type": "bridge",
                    "level": "easy",
                    "supporting_facts": {"title": [title for title, _ in needs], "sent_id": [at for _, at in needs]},
                    "context": {"title": list(paragraphs.titles), "sentences": [list(text) for text in texts]},
                }
            )
    return made


def _per_context(sentences: Lengths) -> int:
    return QUESTIONS if sentences is None or sentences[0] >= 8 else 1


def _firsts(start: int, sentences: Lengths) -> range:
    """The first row on each context of a block: its number names the context."""
    return range(start, start + QUESTIONS, _per_context(sentences))


def _length(random: Random, sentences: Lengths) -> int:
    if sentences is not None:
        return integer(random, *sentences)
    draw = random.random()
    if draw < 0.8:
        return integer(random, *LENGTHS)
    return integer(random, 7, 10) if draw < 0.9 else integer(random, 33, 58)


def _passage(random: Random, sentences: int, split: str, *, alike: bool = False) -> Passage:
    fillers = min(integer(random, 0, sentences // 4), sentences - 2)
    facts = sentences - fillers
    # Near-duplicates are few and told in full.
    people = max(2, min(8, facts // 5)) if alike else None
    return draw_passage(random, facts, people, fillers, split=split, alike=alike)


def _some(random: Random, questions: list[Question], sentences: Lengths) -> list[Question]:
    return shuffle(random, questions)[: _per_context(sentences)]


# Rows on their own


def _text(random: Random, index: int, split: str, seed: int, sentences: Lengths) -> Row:
    low, high = sentences or (20, 100)
    return {"text": draw_document(random, integer(random, low, high), split=split)}


def _gsm8k(random: Random, index: int, split: str, seed: int, sentences: Lengths) -> Row:
    return dict(arithmetic.draw_problem(random, split=split))


def _sst2(random: Random, index: int, split: str, seed: int, sentences: Lengths) -> Row:
    return sentiment.draw_row(random, index)


def _wsc(random: Random, index: int, split: str, seed: int, sentences: Lengths) -> Row:
    return pronouns.draw_row(random, index, split=split)


def _hpd(random: Random, index: int, split: str, seed: int, sentences: Lengths) -> Row:
    return dialogue.draw_session(random, index, split=split, seed=seed)


def _hpd_earlier(random: Random, index: int, split: str, seed: int, sentences: Lengths) -> Row:
    """What the roles of `hpd` said before any of its sessions: the splits of the lab share no roles."""
    return dialogue.draw_session(random, index, split=split, seed=seed, when="Year 0, day")


_CONTEXTS: dict[str, Callable[[int, str, int, Lengths], list[Row]]] = {
    "squad": _squad,
    "hotpotqa": _hotpotqa,
    "adversarialqa": _adversarialqa,
    "nq": _nq,
}
_SINGLES: dict[str, Callable[[Random, int, str, int, Lengths], Row]] = {
    "gsm8k": _gsm8k,
    "sst2": _sst2,
    "wsc": _wsc,
    "hpd": _hpd,
    "text": _text,
}
DATASETS = (*_CONTEXTS, *_SINGLES)
# Demonstrations, about which nothing is asked.
_SHOWN: dict[str, Callable[[Random, int, str, int, Lengths], Row]] = {"hpd_earlier": _hpd_earlier}
