"""The lab: a small generated world that stands in for the real data sets, in their row formats.

Any row can be made alone from its number.
"""

from collections.abc import Iterator
from random import Random
from typing import Any

from pcc_bench.tasks.lab.passages import contested, draw_document, draw_paragraphs, lesson, one_hop, passage_of, two_hop
from pcc_bench.tasks.lab.problems import draw_problem, draw_pronoun, draw_review, draw_session
from pcc_bench.tasks.lab.world import VERSION, integer, seeded, shuffle

__all__ = ["DATASETS", "SPLITS", "VERSION", "lesson", "row", "rows"]

SPLITS = ("train", "validation", "test")
QUESTIONS = 4  # rows on one context, one after the other; fewer where contexts are asked to be shorter
DATASETS = ("squad", "hotpotqa", "adversarialqa", "nq", "gsm8k", "sst2", "wsc", "hpd", "text")
WITH_CONTEXT = DATASETS[:4]
# What the roles of `hpd` said before any of its sessions: the splits of the lab share no roles.
EARLIER = ("hpd_earlier",)
LENGTHS = (9, 32)  # sentences of most contexts; about 9 tokens each

Row = dict[str, Any]
Lengths = tuple[int, int] | None


def rows(dataset: str, split: str, count: int, seed: int = 0, *, sentences: Lengths = None) -> list[Row]:
    """The first rows of one of `DATASETS`; `validation` and `test` use names that `train` never has.

    `sentences`: shortest and longest context of the questions (and of `text`); None: 7 to 60, mostly `LENGTHS`. A
    `ValueError` where there is no such data set or split, or lengths can't be.
    """
    starts = range(0, count, QUESTIONS)
    return [row for start in starts for row in _block(dataset, split, start, seed, sentences)][:count]


def row(dataset: str, split: str, index: int, seed: int = 0, *, sentences: Lengths = None) -> Row:
    return _block(dataset, split, index - index % QUESTIONS, seed, sentences)[index % QUESTIONS]


def _block(dataset: str, split: str, start: int, seed: int, sentences: Lengths) -> list[Row]:
    """The `QUESTIONS` rows from `start` on, which share their context where the data set has contexts."""
    if dataset not in (*DATASETS, *EARLIER):
        raise ValueError(f"the lab has no data set {dataset}; it has {', '.join(DATASETS)}")
    if split not in SPLITS:
        raise ValueError(f"the lab has no split {split}; it has {', '.join(SPLITS)}")
    if sentences is not None and not 2 <= sentences[0] <= sentences[1]:
        raise ValueError(f"contexts of {sentences[0]} to {sentences[1]} sentences: at least 2, the shorter first")
    if dataset not in WITH_CONTEXT:
        numbers = range(start, start + QUESTIONS)
        return [without_context(seeded(seed, split, dataset, n), dataset, split, n, seed, sentences) for n in numbers]
    count = QUESTIONS if sentences is None or sentences[0] >= 8 else 1  # rows a context
    table: list[Row] = []
    for first in range(start, start + QUESTIONS, count):  # its number names the context
        random = seeded(seed, split, dataset, first)
        if sentences is not None:
            length = integer(random, *sentences)
        elif (draw := random.random()) < 0.8:
            length = integer(random, *LENGTHS)
        else:
            length = integer(random, 7, 10) if draw < 0.9 else integer(random, 33, 58)
        if dataset == "nq":
            table += nq(random, length, split, count)
        elif dataset == "hotpotqa":
            table += hotpotqa(random, length, split, count)
        else:
            passages = squad(random, length, split, count, alike=dataset == "adversarialqa")
            table += [{"title": f"Passage {first}", **row} for row in passages]
    if dataset == "nq":
        return table
    return [{"id": f"lab-{dataset}-{split}-{seed}-{number}", **row} for number, row in enumerate(table, start)]


def without_context(random: Random, dataset: str, split: str, index: int, seed: int, sentences: Lengths) -> Row:
    match dataset:
        case "gsm8k":
            return {**draw_problem(random, split=split)}
        case "sst2":
            return draw_review(random, index)
        case "wsc":
            return draw_pronoun(random, index, split=split)
        case "text":
            return {"text": draw_document(random, integer(random, *(sentences or (20, 100))), split=split)}
    return draw_session(random, index, split=split, seed=seed, when="Day" if dataset == "hpd" else "Year 0, day")


def squad(random: Random, length: int, split: str, count: int, *, alike: bool) -> Iterator[Row]:
    """Rows of SQuAD, or of AdversarialQA (`alike`), on one passage of so many sentences."""
    questions = list[Any]()
    while len(questions) < count:  # near-duplicates may agree in all that is said of them
        passage = passage_of(random, length, split, alike=alike)
        questions = (contested if alike else one_hop)(random, passage)
    metadata = {"metadata": {"split": split, "model_in_the_loop": "none"}} if alike else {}
    for question in shuffle(random, questions)[:count]:
        answers = {"text": [question.answer], "answer_start": [question.needs[0].value_start]}
        yield {"context": passage.text, "question": question.text, "answers": answers, **metadata}


def nq(random: Random, length: int, split: str, count: int) -> Iterator[Row]:
    """Rows of Natural Questions on the same passages, of which the gold one has so many sentences."""
    gold = passage_of(random, length, split)
    subjects = {stated.fact.subject for stated in gold.stated}
    passages, others = [gold], integer(random, 2, 5)
    while len(passages) <= others:  # about nobody and no company of the gold one
        passage = passage_of(random, integer(random, 3, 8), split)
        if not subjects & {stated.fact.subject for stated in passage.stated}:
            passages.append(passage)
    shuffle(random, passages)
    titles = [" and ".join(person.name for person in passage.cast.people[:2]) for passage in passages]
    for question in shuffle(random, one_hop(random, gold))[:count]:
        contexts = [
            {"title": title, "text": p.text, "hasanswer": question.answer in p.text, "isgold": p is gold}
            for title, p in zip(titles, passages, strict=True)
        ]
        yield {"question": question.text, "answers": [question.answer], "ctxs": contexts}


def hotpotqa(random: Random, length: int, split: str, count: int) -> Iterator[Row]:
    """Rows of HotpotQA on the same paragraphs of so many sentences in all."""
    questions = list[Any]()
    while len(questions) < count:  # short ones may have no two facts that lean on each other
        paragraphs = draw_paragraphs(random, length, split=split)
        questions = two_hop(random, paragraphs.whole)
    # As on the hub, each sentence but a paragraph's first begins with the blank before it.
    texts = [[sentence if n == 0 else f" {sentence}" for n, sentence in enumerate(p)] for p in paragraphs.sentences]
    for question in shuffle(random, questions)[:count]:
        needs = [paragraphs.places[stated.fact] for stated in question.needs]
        facts = {"title": [title for title, _ in needs], "sent_id": [at for _, at in needs]}
        context = {"title": list(paragraphs.titles), "sentences": [list(text) for text in texts]}
        row = {"question": question.text, "answer": question.answer, "type": "bridge", "level": "easy"}
        yield {**row, "supporting_facts": facts, "context": context}
