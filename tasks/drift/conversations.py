"""Long conversations, from Multi-Session Chat or the lab, with a turn to ask for and turns that were not said."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pcc_bench.tasks.lab.draws import seeded, shuffle
from pcc_bench.tasks.lab.facts import Fact, facts_of, state
from pcc_bench.tasks.lab.world import draw_cast

PEOPLE = 24  # of a conversation of the lab's: 200 facts, or 2,000 tokens and more
SPEAKERS = ("Anna", "Ben")


@dataclass(frozen=True)
class Conversation:
    """A conversation.

    Attributes:
        id: The row's.
        turns: Lines `Name: text`.
        facts: What each turn says, on the lab; () elsewhere.
    """

    id: str
    turns: tuple[str, ...]
    facts: tuple[Fact, ...] = ()


def joined(sessions: Sequence[Sequence[Mapping[str, Any]]]) -> list[Conversation]:
    """Conversations whose sessions stand in several splits, one after the other.

    Args:
        sessions: The docs of each split, in the order of the story; those of one conversation have the same `who`.

    Returns:
        Those that every split goes on with, in the order of the first.
    """
    of_split = [{doc["who"]: doc for doc in docs} for docs in sessions]
    ids = [who for who in of_split[0] if all(who in docs for docs in of_split[1:])]
    return [
        Conversation(
            who,
            tuple(
                " ".join(turn.split())
                for doc in (docs[who] for docs in of_split)
                for turn in (*doc["turns"], f"{doc['role']}: {doc['response']}")
            ),
        )
        for who in ids
    ]


def of_lab(count: int, seed: int) -> list[Conversation]:
    """Conversations of two who tell each other about other people, a fact a turn."""
    conversations = []
    for number in range(count):
        draw = seeded("drift", seed, number)
        facts = shuffle(draw, [fact for person in facts_of(draw_cast(draw, "test", PEOPLE)) for fact in person])
        turns = [f"{SPEAKERS[n % 2]}: {state(draw, fact)[0]}" for n, fact in enumerate(facts)]
        conversations.append(Conversation(str(number), tuple(turns), tuple(facts)))
    return conversations


def candidates(
    conversation: Conversation, turn: int, others: Sequence[Conversation], count: int, seed: int
) -> list[str]:
    """A turn's text, and texts that were not said: on the lab the same about another value, else others' turns.

    Args:
        conversation: The conversation.
        turn: Number of its turn.
        others: Conversations that wrong turns are taken from.
        count: Most wrong texts.
        seed: Of what is drawn.
    """
    said = _text(conversation.turns[turn])
    draw = random.Random(f"{seed}-drift-{conversation.id}")
    if conversation.facts:
        fact = conversation.facts[turn]
        values = {other.value for other in conversation.facts if other.attribute == fact.attribute} - {fact.value}
        wrong = [_restated(fact, value, said) for value in draw.sample(sorted(values), min(count, len(values)))]
        return [said, *wrong]
    wrong = []
    for other in draw.sample(list(others), len(others)):
        # Of like length, since long turns are likelier by the token.
        text = min(map(_text, other.turns), key=lambda text: abs(len(text) - len(said)))
        if other.id != conversation.id and text not in (said, *wrong):
            wrong.append(text)
        if len(wrong) == count:
            break
    return [said, *wrong]


def _restated(fact: Fact, value: str, said: str) -> str:
    """The same statement about another value: among a form's ways to say it the one that has the same other words."""
    forms = {state(random.Random(number), fact._replace(value=value))[0] for number in range(40)}
    words = set(said.split())
    return max(sorted(forms), key=lambda form: len(words & set(form.split())))


def _text(turn: str) -> str:
    return turn.partition(": ")[2]
