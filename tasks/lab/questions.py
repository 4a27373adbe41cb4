"""Questions over a passage: one hop, two hops, and lessons that ask all there is to ask."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from pcc_bench.tasks.lab.draws import pick
from pcc_bench.tasks.lab.facts import Fact, ask
from pcc_bench.tasks.lab.passages import Passage, Stated, draw_passage
from pcc_bench.tasks.lab.world import RELATIONS

_COMPANY_QUESTIONS = (
    "In which city is the company that {name} works for?",
    "Where is the office of the company that {name} works for?",
)
# What the pair has in common anyway, so that it takes one hop only.
_COMMON = {("colleague", "company"), ("neighbour", "city")}


class Question(NamedTuple):
    """A question, its short answer, and the stated facts that it takes (one, or two for two hops)."""

    text: str
    answer: str
    needs: tuple[Stated, ...]


def one_hop(random: Random, passage: Passage) -> list[Question]:
    """A question for each stated fact, in the order of the text."""
    return [
        Question(ask(random, stated.fact.attribute, stated.fact.subject), stated.fact.value, (stated,))
        for stated in passage.stated
    ]


def contested(random: Random, passage: Passage) -> list[Question]:
    """The one-hop questions to which the passage has a wrong answer too: the same attribute of another subject."""
    values: dict[str, set[str]] = {}
    for stated in passage.stated:
        values.setdefault(stated.fact.attribute, set()).add(stated.fact.value)
    questions = one_hop(random, passage)
    return [question for question in questions if len(values[question.needs[0].fact.attribute]) > 1]


def two_hop(random: Random, passage: Passage) -> list[Question]:
    """All questions that take two sentences: about somebody's colleague, cousin, neighbour or company.

    Left out are those whose answer is also a value of the person in the question, or names somebody of whom that
    person is a value, so that no single sentence has both.
    """
    of_subject: dict[str, list[Stated]] = {}
    for stated in passage.stated:
        of_subject.setdefault(stated.fact.subject, []).append(stated)
    lives = {person.name: person.attributes for person in passage.cast.people}
    questions = []
    for link in passage.stated:
        fact = link.fact
        if fact.attribute not in RELATIONS and fact.attribute != "company":
            continue
        own = {*lives[fact.subject].values(), fact.subject}
        own.update(name for name, attributes in lives.items() if fact.subject in attributes.values())
        for end in of_subject.get(fact.value, ()):
            if (fact.attribute, end.fact.attribute) not in _COMMON and end.fact.value not in own:
                questions.append(Question(_ask_twice(random, fact, end.fact), end.fact.value, (link, end)))
    return questions


def _ask_twice(random: Random, link: Fact, end: Fact) -> str:
    if link.attribute == "company":
        return pick(random, _COMPANY_QUESTIONS).replace("{name}", link.subject)
    return ask(random, end.attribute, f"the {link.attribute} of {link.subject}")


def lesson(
    random: Random,
    facts: int,
    people: int | None = None,
    fillers: int = 0,
    *,
    hops: int = 1,
    alike: bool = False,
    split: str = "train",
) -> tuple[str, list[tuple[str, str]]]:
    """A passage with all its questions and answers, for training a decoder.

    Args:
        random: The generator.
        facts: How many facts the passage states.
        people: How many people it is about; None: drawn.
        fillers: How many further sentences state nothing.
        hops: 1 for a question a fact; 2 for all questions over two facts (there may be none in a short passage).
        alike: The people are near-duplicates of each other.
        split: Whose names it may use.

    Returns:
        The text, and pairs of question and short answer.
    """
    passage = draw_passage(random, facts, people, fillers, split=split, alike=alike, hops=hops)
    questions = (one_hop if hops == 1 else two_hop)(random, passage)
    return passage.text, [(question.text, question.answer) for question in questions]
