"""Documents whose later sentences lean on the earlier ones; sessions of talk as Harry Potter Dialogue has them."""

from __future__ import annotations

from functools import lru_cache
from random import Random
from typing import Any, NamedTuple

from pcc_bench.tasks.lab.facts import PLACES, Fact, ask, clause, facts_of, scenery, state
from pcc_bench.tasks.lab.world import FOODS, HOBBIES, RELATIONS, draw_cast, draw_names, integer, pick, seeded, shuffle

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
    """A narrative: people come in with some facts; then they do things, and their facts return in other words.

    Args:
        random: The generator.
        sentences: How many sentences it has.
        split: Whose names it may use.
    """
    cast = draw_cast(random, split, max(2, min(40, sentences // 10)))
    genders = {person.name: person.gender for person in cast.people}
    waiting = [shuffle(random, facts) for facts in facts_of(cast)[:-1]]
    known: list[Fact] = []
    lines: list[str] = []
    while len(lines) < sentences:
        # Somebody new as long as there is somebody, sooner in a document that has little to lean on.
        if not waiting or random.random() * (len(known) + 4) >= 6:
            lines.append(_go_on(random, known))
            continue
        facts, pronoun = waiting.pop(), None
        for fact in facts[: integer(random, 2, 5)]:
            lines.append(state(random, fact, pronoun if random.random() < 0.7 else None)[0])
            known.append(fact)
            pronoun = None if fact.attribute in RELATIONS else genders[fact.subject]
    return " ".join(lines[:sentences])


def _go_on(random: Random, known: list[Fact]) -> str:
    """An event with what was said before, a question with its answer, a fact again, or scenery."""
    fact = pick(random, known)
    draw = random.random()
    if draw < 0.55:
        event = pick(random, _EVENTS).replace("{place}", pick(random, PLACES))
        return f"{pick(random, _OPENINGS)} {fact.subject}, {clause(random, fact.attribute, fact.value)}, {event}."
    if draw < 0.7:
        return f"{ask(random, fact.attribute, fact.subject)} {state(random, fact)[0]}"
    if draw < 0.85:
        return state(random, fact)[0]
    return scenery(random)


ROLES = 16  # roles of a split; row i is about role i % ROLES, so that a role has many sessions
_GREETINGS = ("Hello", "Good day", "Welcome", "Hi", "Good to see you")
_PHRASES = (
    "All in good time.",
    "That is the way of the world.",
    "One day at a time.",
    "Never say never.",
    "Home is best.",
    "I knew it.",
    "Old but good.",
    "The more the better.",
)
_ENDINGS = ("my friend", "you know", "I think", "of course", "as ever", "I say")
_ON_TOPIC = (
    "I like {topic} more than all the rest",
    "Nothing is better than {topic}",
    "I talked about {topic} all day",
    "It is a good day for {topic}",
    "I can not live without {topic}",
)
_PROMPTS = (
    "How are you?",
    "What is new?",
    "What do you like best?",
    "Was it a good week?",
    "Do you have time now?",
    "What did you do all day?",
)


class Role(NamedTuple):
    """Somebody with a way of speaking: first and last words, a phrase, and what the talk always comes to."""

    name: str
    greeting: str
    phrase: str
    topic: str
    ending: str

    def reply(self, random: Random) -> str:
        """Something that only this role would say in this way."""
        return f"{self.phrase} {pick(random, _ON_TOPIC).replace('{topic}', self.topic)}, {self.ending}."


@lru_cache(maxsize=16)
def roles(split: str, seed: int = 0) -> tuple[Role, ...]:
    """The roles of a split."""
    random = seeded(seed, split, "roles")
    names = draw_names(random, split, ROLES)
    topics = shuffle(random, [*FOODS, *HOBBIES])
    return tuple(
        Role(f"{first} {last}", pick(random, _GREETINGS), pick(random, _PHRASES), topic, pick(random, _ENDINGS))
        for (first, last), topic in zip(names, topics, strict=False)
    )


def draw_session(
    random: Random, index: int, *, split: str = "train", seed: int = 0, when: str = "Day"
) -> dict[str, Any]:
    """A session of the role whose turn it is, the reply the role would give, and three that others would."""
    cast = roles(split, seed)
    role = cast[index % ROLES]
    others = shuffle(random, [other for other in cast if other.phrase != role.phrase and other.ending != role.ending])
    partner = others[0]
    turns = [
        f"{role.name}: {role.greeting}, {partner.name}. {role.reply(random)}",
        f"{partner.name}: {partner.greeting}, {role.name}. {pick(random, _PROMPTS)}",
    ]
    for _ in range(integer(random, 1, 4)):
        turns.append(f"{role.name}: {role.reply(random)}")
        turns.append(f"{partner.name}: {pick(random, _PROMPTS)}")
    return {
        "position": f"{when} {1 + index // ROLES}",
        "role": role.name,
        "speakers": [role.name, partner.name],
        "scene": f"{role.name} and {partner.name} are at the {pick(random, PLACES)}. {scenery(random)}",
        "dialogue": turns,
        "positive_response": role.reply(random),
        "negative_responses": [other.reply(random) for other in others[:3]],
    }
