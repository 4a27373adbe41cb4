"""Passages and titled paragraphs of a size, the questions over them (one hop, two hops), lessons, and documents."""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from random import Random
from typing import Any, NamedTuple

from pcc_bench.tasks.lab.facts import PLACES, Fact, ask, clause, facts_of, scenery, state
from pcc_bench.tasks.lab.world import RELATIONS, Cast, Item, draw_cast, integer, pick, shuffle

_RUNS = (1, 2, 3, 12)  # longest run of facts about one person in a passage: from interleaved to one after the other


class Statement(NamedTuple):
    """A fact with its place: `text[start:end]` is the sentence, `text[value_start:]` starts with the value."""

    fact: Fact
    start: int
    end: int
    value_start: int


class Passage(NamedTuple):
    """A text and everything it states; each pair of subject and attribute is stated at most once."""

    text: str
    stated: list[Statement]
    sentences: list[str]
    cast: Cast


def draw_passage(
    random: Random,
    facts: int,
    people: int = 0,
    fillers: int = 0,
    *,
    split: str = "train",
    alike: bool = False,
    hops: int = 1,
) -> Passage:
    """A passage about a cast of its own, with so many facts, one a sentence, and `fillers`, which state nothing.

    There is at least one person for each 8 facts, whatever `people` says (0: drawn). `alike`: they are
    near-duplicates of each other. `hops=2` chooses facts that make chains (a colleague, and where that one lives).
    """
    fewest = max(hops, -(-facts // 8))
    people = people or integer(random, fewest, max(fewest, 2, facts // 3))
    cast = draw_cast(random, split, max(fewest, people), alike=alike)
    everything = [fact for group in facts_of(cast) for fact in group]
    if hops > 1:
        chosen = chains(random, cast, facts)
    elif alike:  # attribute by attribute, each of everybody who has it, so that an answer has rivals
        rivals = shuffle(random, list(grouped(everything, "attribute").values()))
        chosen = [fact for group in rivals for fact in group][:facts]
    else:
        chosen = shuffle(random, everything)[:facts]
    longest = pick(random, _RUNS)
    runs = []
    for group in grouped(chosen, "subject").values():
        shuffle(random, group)
        runs += [group[start : start + longest] for start in range(0, len(group), longest)]
    shuffle(random, runs)
    return write(random, runs, cast, fillers)


def passage_of(random: Random, sentences: int, split: str, *, alike: bool = False) -> Passage:
    """A passage of so many sentences, of which some state nothing; near-duplicates are few and told in full."""
    fillers = min(integer(random, 0, sentences // 4), sentences - 2)
    facts = sentences - fillers
    people = max(2, min(8, facts // 5)) if alike else 0
    return draw_passage(random, facts, people, fillers, split=split, alike=alike)


def grouped(items: Iterable[Item], by: str) -> dict[str, list[Item]]:
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(attrgetter(by)(item), []).append(item)
    return groups


def write(random: Random, runs: Sequence[Sequence[Fact]], cast: Cast, fillers: int = 0) -> Passage:
    """State the facts of each run in turn; within a run, She and He may stand for the person.

    A pronoun never follows a sentence that names somebody else or states nothing, so that it has one reading.
    """
    genders = {person.name: person.gender for person in cast.people}
    left = sum(map(len, runs))
    sentences: list[str] = []
    stated: list[Statement] = []
    position = 0
    for run in runs:
        pronoun = None
        for fact in run:
            while fillers and random.random() * (fillers + left) < fillers:
                sentence = scenery(random)
                sentences.append(sentence)
                position += len(sentence) + 1
                fillers -= 1
                pronoun = None
            sentence, offset = state(random, fact, pronoun if random.random() < 0.7 else None)
            end = position + len(sentence)
            stated.append(Statement(fact, position, end, position + offset))
            sentences.append(sentence)
            position = end + 1
            left -= 1
            pronoun = None if fact.attribute in RELATIONS else genders.get(fact.subject)
    sentences += [scenery(random) for _ in range(fillers)]
    return Passage(" ".join(sentences), stated, sentences, cast)


def chains(random: Random, cast: Cast, count: int) -> list[Fact]:
    """Facts of which many lean on each other: relations and companies first, then what is said of those named."""
    everything = shuffle(random, [fact for group in facts_of(cast) for fact in group])
    links = [fact for fact in everything if fact.attribute in RELATIONS or fact.attribute == "company"]
    chosen: dict[Fact, None] = {}
    for link in links:
        if len(chosen) + 2 > count or len(chosen) > count * 2 // 3:
            break
        ends = [fact for fact in everything if fact.subject == link.value and fact.attribute not in RELATIONS]
        chosen[link] = None
        chosen.update(dict.fromkeys(ends[:2]))
    chosen.update(dict.fromkeys(everything[:count]))
    return list(chosen)[:count]


class Paragraphs(NamedTuple):
    """Paragraphs under the name of what they are about; `places` says where a fact is: title, sentence number."""

    titles: list[str]
    sentences: list[list[str]]
    places: dict[Fact, tuple[str, int]]
    whole: Passage


def draw_paragraphs(random: Random, sentences: int, *, split: str = "train") -> Paragraphs:
    """Paragraphs with a wanted number of sentences in all, of which about one in eight states nothing."""
    fillers = integer(random, 0, sentences // 8)
    facts = sentences - fillers
    people = max(2, -(-facts // 8), integer(random, sentences // 8, max(sentences // 8, min(8, sentences // 3))))
    cast = draw_cast(random, split, people)
    about = grouped(chains(random, cast, facts), "subject")
    titles = shuffle(random, list(about))
    passages = []
    for left, title in zip(range(len(titles), 0, -1), titles, strict=True):
        share = fillers if left == 1 else integer(random, 0, 2 * fillers // left)
        fillers -= share
        passages.append(write(random, [shuffle(random, about[title])], cast, share))
    stated = [stated for passage in passages for stated in passage.stated]
    places = {}
    for title, passage in zip(titles, passages, strict=True):
        for fact, start, end, _ in passage.stated:
            places[fact] = (title, passage.sentences.index(passage.text[start:end]))
    whole = Passage("", stated, [], cast)
    return Paragraphs(titles, [passage.sentences for passage in passages], places, whole)


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
    needs: tuple[Statement, ...]


def one_hop(random: Random, passage: Passage) -> list[Question]:
    stated = ((stated, stated.fact) for stated in passage.stated)
    return [Question(ask(random, fact.attribute, fact.subject), fact.value, (place,)) for place, fact in stated]


def contested(random: Random, passage: Passage) -> list[Question]:
    """The one-hop questions to which the passage has a wrong answer too: the same attribute of another subject."""
    rivals = grouped(passage.stated, "fact.attribute")
    values = {attribute: {stated.fact.value for stated in group} for attribute, group in rivals.items()}
    questions = one_hop(random, passage)
    return [question for question in questions if len(values[question.needs[0].fact.attribute]) > 1]


def two_hop(random: Random, passage: Passage) -> list[Question]:
    """All questions that take two sentences: about somebody's colleague, cousin, neighbour or company.

    Left out are those whose answer is also a value of the person in the question, or names somebody of whom that
    person is a value, so that no single sentence has both.
    """
    of_subject = grouped(passage.stated, "fact.subject")
    lives = {person.name: person.attributes for person in passage.cast.people}
    questions = []
    for link in passage.stated:
        fact = link.fact
        if fact.attribute not in RELATIONS and fact.attribute != "company":
            continue
        own = {*lives[fact.subject].values(), fact.subject}
        own.update(name for name, attributes in lives.items() if fact.subject in attributes.values())
        for end in of_subject.get(fact.value, ()):
            if (fact.attribute, end.fact.attribute) in _COMMON or end.fact.value in own:
                continue
            if fact.attribute == "company":
                text = pick(random, _COMPANY_QUESTIONS).replace("{name}", fact.subject)
            else:
                text = ask(random, end.fact.attribute, f"the {fact.attribute} of {fact.subject}")
            questions.append(Question(text, end.fact.value, (link, end)))
    return questions


def lesson(random: Random, facts: int, *, hops: int = 1, **options: Any) -> tuple[str, list[tuple[str, str]]]:
    """A passage (`options`: see `draw_passage`) with pairs of question and answer: one a fact, or all of two hops."""
    passage = draw_passage(random, facts, hops=hops, **options)
    questions = (one_hop if hops == 1 else two_hop)(random, passage)
    return passage.text, [(question.text, question.answer) for question in questions]


_OPENINGS = ("As said before,", "Later", "In the evening", "Then", "The next day", "As we know,", "In the morning")
_EVENTS = (
    "went to the {place}",
    "came back from the {place}",
    "met a friend at the {place}",
    "was seen near the {place}",
    "walked to the {place}",
    "went home",
)


def draw_document(random: Random, sentences: int, *, split: str = "train") -> str:
    """A narrative: people come in with some facts; then they do things, and their facts return in other words."""
    cast = draw_cast(random, split, max(2, min(40, sentences // 10)))
    genders = {person.name: person.gender for person in cast.people}
    waiting = [shuffle(random, facts) for facts in facts_of(cast)[:-1]]
    known: list[Fact] = []
    lines: list[str] = []
    while len(lines) < sentences:
        # Somebody new as long as there is somebody, sooner in a document that has little to lean on.
        if not waiting or random.random() * (len(known) + 4) >= 6:
            # An event with what was said before, a question with its answer, a fact again, or scenery.
            fact, draw = pick(random, known), random.random()
            if draw < 0.55:
                event = pick(random, _EVENTS).replace("{place}", pick(random, PLACES))
                start = pick(random, _OPENINGS)
                lines.append(f"{start} {fact.subject}, {clause(random, fact.attribute, fact.value)}, {event}.")
            elif draw < 0.7:
                lines.append(f"{ask(random, fact.attribute, fact.subject)} {state(random, fact)[0]}")
            else:
                lines.append(state(random, fact)[0] if draw < 0.85 else scenery(random))
            continue
        facts, pronoun = waiting.pop(), None
        for fact in facts[: integer(random, 2, 5)]:
            lines.append(state(random, fact, pronoun if random.random() < 0.7 else None)[0])
            known.append(fact)
            pronoun = None if fact.attribute in RELATIONS else genders[fact.subject]
    return " ".join(lines[:sentences])
