"""Drift: what a memory still knows of a conversation's beginning, each time the whole conversation is compressed."""

import random
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.data import LAB_ROWS, fingerprint
from pcc_bench.tasks.demonstrations import DemonstratedTask
from pcc_bench.tasks.lab.facts import Fact, facts_of, state
from pcc_bench.tasks.lab.world import draw_cast, seeded, shuffle
from pcc_bench.tasks.metadata import data_source, whole

TOKENS, NEGATIVES = 256, 9
PEOPLE = 24  # of a conversation of the lab's: 200 facts, or 2,000 tokens and more
SPEAKERS = ("Anna", "Ben")


@dataclass(frozen=True)
class Conversation:
    id: str
    turns: tuple[str, ...]  # lines `Name: text`
    facts: tuple[Fact, ...] = ()  # what each turn says, on the lab; () elsewhere


class DriftTask(DemonstratedTask):
    """Which of several turns was said in the first cycle, once `cycle` cycles of a conversation are compressed.

    A cycle is `metadata.tokens` decoder tokens of whole turns (the last one may end beyond). Besides those of
    `DemonstratedTask`, whose demonstrations are the conversation here, the YAML has the keys `cycle` and `cycles`: how
    many have passed, and how many a conversation must have, so that all tasks of the group ask the same rows; and
    `sessions`, the splits that a conversation goes through.
    """

    OWN = ("cycle", "cycles", "sessions")

    def __init__(self, config: Mapping[str, Any], **kwargs: Any) -> None:
        if config["metadata"].get("demonstrations") is not None:
            raise UsageError(f"{config['task']} has no demonstrations: tokens says how long a cycle is")
        super().__init__(config, **kwargs)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        metadata = self.config.metadata
        tokens = whole(metadata, "tokens", TOKENS, least=16)
        negatives = whole(metadata, "negatives", NEGATIVES)
        source: dict[str, Any] = {"source": "lab", "place": "the lab", "dataset": "drift", "split": "test", "hub": None}
        if data_source(metadata) == "lab":
            count, lab_seed = whole(metadata, "lab_rows", LAB_ROWS), whole(metadata, "lab_seed", 0, least=0)
            conversations = of_lab(count, lab_seed)
        else:
            read = [self.read(split) for split in self._sessions]
            source = {**read[0][0], "splits": list(self._sessions)}
            conversations = joined([docs for _, docs in read])
        docs = []
        for conversation in conversations:
            turns = conversation.turns
            ends = list(accumulate(self.counter.count_all([f"{turn}\n" for turn in turns])))
            # Turns said by the end of each cycle.
            cuts = [bisect_left(ends, cycle * tokens) + 1 for cycle in range(1, self._cycles + 1)]
            if cuts[-1] > len(ends):
                continue
            # Of the first half of the first cycle the longest turn is asked for, since it says most.
            asked = max(range(-(-cuts[0] // 2)), key=lambda number: len(turns[number]))
            options = candidates(conversation, asked, conversations, negatives, self.seed)
            doc = {"id": conversation.id, "demonstrations": "\n".join(turns[: cuts[self._cycle - 1]])}
            docs.append({**doc, "role": turns[asked].partition(": ")[0], "candidates": options})
        if not docs:
            length = f"{self._cycles} cycles of {tokens} decoder tokens"
            raise UsageError(f"no conversation of {source['place']} has {length}: pass a smaller tokens")
        short = len(conversations) - len(docs)
        reason = f"conversations of fewer than {self._cycles} cycles of {tokens} tokens"
        shown = {"form": self.shots.form, "tokens_a_cycle": tokens, "tokenizer": self.counter.name}
        shown["fingerprint"] = fingerprint({"text": doc["demonstrations"]} for doc in docs)
        self.take(docs, {reason: short} if short else {}, **source, cycle=self._cycle, demonstrations=shown)


def joined(sessions: Sequence[Sequence[Mapping[str, Any]]]) -> list[Conversation]:
    """Conversations (the docs of one `who`) that go through all splits, which stand in the order of the story."""
    of_split = [{doc["who"]: doc for doc in docs} for docs in sessions]
    ids = [who for who in of_split[0] if all(who in docs for docs in of_split[1:])]
    conversations = []
    for who in ids:
        own = [docs[who] for docs in of_split]
        turns = [turn for doc in own for turn in (*doc["turns"], f"{doc['role']}: {doc['response']}")]
        conversations.append(Conversation(who, tuple(" ".join(turn.split()) for turn in turns)))
    return conversations


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
    """The text of a turn (its number), and at most `count` texts that were not said.

    On the lab the wrong ones say the same about another value; elsewhere they are turns of others.
    """
    said = conversation.turns[turn].partition(": ")[2]
    draw = random.Random(f"{seed}-drift-{conversation.id}")
    wrong: list[str] = []
    if conversation.facts:
        fact = conversation.facts[turn]
        values = {other.value for other in conversation.facts if other.attribute == fact.attribute} - {fact.value}
        words = set(said.split())
        for value in draw.sample(sorted(values), min(count, len(values))):
            # Among the ways to state it the one that has the same other words.
            forms = {state(random.Random(number), fact._replace(value=value))[0] for number in range(40)}
            wrong.append(max(sorted(forms), key=lambda form: len(words & set(form.split()))))
        return [said, *wrong]
    for other in draw.sample(list(others), len(others)):
        # Of like length, since long turns are likelier by the token.
        texts = (text.partition(": ")[2] for text in other.turns)
        text = min(texts, key=lambda text: abs(len(text) - len(said)))
        if other.id != conversation.id and text not in (said, *wrong):
            wrong.append(text)
        if len(wrong) == count:
            break
    return [said, *wrong]
