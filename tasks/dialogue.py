"""Dialogue: a role's next turn after what was said before, and what a memory still knows of a conversation's beginning.

Role play is Harry Potter Dialogue, MSC and PersonaChat. Drift compresses a whole conversation each time it has grown.
"""

import random
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, islice
from typing import Any, Self

from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.data import LAB_ROWS, demonstration_rows, fingerprint
from pcc_bench.tasks.demonstrations import SEPARATOR, Block, DemonstratedTask, fill, without_repeats
from pcc_bench.tasks.lab.facts import Fact, facts_of, state
from pcc_bench.tasks.lab.world import draw_cast, seeded, shuffle
from pcc_bench.tasks.metadata import TokenCounter, data_source, whole
from pcc_bench.tasks.metrics.perplexity.perplexity import score_log_likelihood

NEGATIVES = 9  # wrong responses a row, unless `negatives` says otherwise


@dataclass(frozen=True)
class Session:
    id: str
    role: str  # who responds, as written before the response
    who: str  # tells roles of the same name apart; sessions of the same `who` are of one role
    scene: str  # what stands before the turns; "" for nothing
    turns: tuple[str, ...]  # lines `Name: text`, the response not among them
    response: str  # what the role says next, without its name
    negatives: tuple[str, ...]  # what it does not say; [] where the data set has none
    position: tuple[int, ...]  # where in the story; a smaller one is earlier

    @classmethod
    def of(cls, doc: Mapping[str, Any], *first: int) -> Self:
        """A session from what a reader made of a row; `first` goes before its own position."""
        lists = {key: tuple(doc[key]) for key in ("turns", "negatives")}
        return cls(**{**doc, **lists, "position": (*first, *doc["position"])})

    @property
    def text(self) -> str:
        return (self.scene + SEPARATOR if self.scene else "") + "\n".join(self.turns)

    @cached_property
    def pieces(self) -> list[str]:  # with what separates each from the next; the last first
        scene = [self.scene + SEPARATOR] if self.scene else []
        turns = [f"{turn}\n" for turn in self.turns]
        return [f"{self.role}: {self.response}{SEPARATOR}", *reversed(turns), *reversed(scene)]


class DialogueTask(DemonstratedTask):
    """A role's next turn after its dialogue, with what it said earlier as demonstrations.

    Besides those of `DemonstratedTask`, the YAML has the key `earlier`: the splits that hold earlier sessions, in their
    order (a data set's own split may be among them: then its rows stand before each other). `metadata.negatives` is
    the number of wrong responses to rank against; data sets that have none get responses of other rows, drawn with
    `metadata.seed`. All forms ask the same rows.
    """

    OWN = ("earlier",)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if self.shots.count is not None:
            raise UsageError('demonstrations are dialogue up to a budget here: pass {"tokens": 750}')
        metadata = self.config.metadata
        source, sessions = self._read(metadata["split"], len(self._earlier))
        count, rows = whole(metadata, "negatives", NEGATIVES, least=0), []
        for session in sessions:
            negatives = session.negatives[:count]
            if not negatives:  # those of other rows
                order = without_repeats(random.Random(f"{self.seed}-negatives-{session.id}"), len(sessions))
                others = (sessions[number].response for number in order)
                negatives = tuple(islice((text for text in others if text != session.response), count))
            row = {"id": session.id, "session": session.text, "role": session.role}
            rows.append({**row, "candidates": [session.response, *negatives]})
        blocks, shown = self._shots(sessions, on_lab=source["source"] == "lab")
        candidates = [len(row["candidates"]) for row in rows]
        docs = [{**row, "demonstrations": block.text} for row, block in zip(rows, blocks, strict=True)]
        account = {**source, "fewest_candidates": min(candidates), "most_candidates": max(candidates)}
        shown["fingerprint"] = fingerprint({"text": block.text} for block in blocks)
        self.take(docs, {}, **account, fingerprint=fingerprint(rows), demonstrations=shown)

    def _read(self, split: str, place: int, **other: Any) -> tuple[dict[str, Any], list[Session]]:
        source, docs = self.read(split, **other)
        return source, [Session.of(doc, *([place] if len(self._earlier) > 1 else [])) for doc in docs]

    def _shots(self, sessions: Sequence[Session], *, on_lab: bool) -> tuple[list[Block], dict[str, Any]]:
        budget, metadata = self.shots.tokens, self.config.metadata
        shown: dict[str, Any] = {"form": self.shots.form, "budget": budget, "tokenizer": None, "seeds": {}}
        if budget is None:
            return [Block()] * len(sessions), shown
        split = metadata["split"]
        if on_lab:  # no two splits of the lab share a role: what a role said before is a set of its own
            other = {"dataset": f"{metadata['dataset']}_earlier", "lab_rows": demonstration_rows(metadata)}
            others = self._read(split, 0, **other)[1]
        else:
            splits = enumerate(self._earlier)
            read = (sessions if name == split else self._read(name, place)[1] for place, name in splits)
            others = [session for of_split in read for session in of_split]
        pool = Pool([] if split in self._earlier else sessions, others, self.seed)
        pairs = [pool.block(session, budget, self.counter) for session in sessions]
        tokens = [block.tokens or 0 for block, _ in pairs]
        own = sum(is_own for _, is_own in pairs)
        shown |= {"tokenizer": self.counter.name, "least_tokens": min(tokens), "mean_tokens": sum(tokens) / len(tokens)}
        shown |= {"rows_with_own_earlier_dialogue": own, "rows_with_other_dialogue_too": len(pairs) - own}
        return [block for block, _ in pairs], shown


class Pool:
    """The dialogue that may stand before a session.

    Nearest stands what its role said before, going back in the story. Where that is too little, sessions of the same
    role that come later and then those of other roles, in an order drawn for the row by `seed`, stand before it.
    Sessions that are `asked` stand only before later ones of the same role, `others` before any.
    """

    def __init__(self, asked: Sequence[Session], others: Sequence[Session], seed: int) -> None:
        self._others, self._seed = others, seed
        self._roles: dict[str, list[tuple[Session, bool]]] = defaultdict(list)
        for session, is_asked in [*((session, True) for session in asked), *((session, False) for session in others)]:
            self._roles[session.who].append((session, is_asked))

    def before(self, session: Session) -> Iterator[tuple[Session, bool]]:
        """Sessions from the nearest on, each with whether it is the role's own and earlier."""
        own = sorted(self._roles[session.who], key=lambda pair: pair[0].position)
        earlier = [other for other, _ in own if other.position < session.position]
        later = [other for other, is_asked in own if other.position > session.position and not is_asked]
        yield from ((other, True) for other in reversed(earlier))
        yield from ((other, False) for other in later)
        generator = random.Random(f"{self._seed}-{session.id}")
        for number in without_repeats(generator, len(self._others)):
            if self._others[number].who != session.who:
                yield self._others[number], False

    def block(self, session: Session, budget: int, counter: TokenCounter) -> tuple[Block, bool]:
        """Turns (scenes too) that `fill` a budget of decoder tokens, and whether all are the role's own and earlier."""
        pieces, own, total = [], [], 0
        for other, is_own in self.before(session):
            pieces += other.pieces
            own += [is_own] * len(other.pieces)
            total += sum(counter.count_all(other.pieces))
            if total > 2 * budget:  # more than enough: tokens merge a little where turns meet
                break
        first = f"the turn before session {session.id}"
        few = f"there is too little dialogue ({total} decoder tokens) before session {session.id}"
        block = fill(pieces, budget, counter, first=first, few=few, backwards=True)
        return block, all(own[: block.count])


def score_responses(doc: Mapping[str, Any], answers: Sequence[tuple[float, int]]) -> dict[str, Any]:
    """Scores of a row (lm-eval's `process_results`), of whose `candidates` the first is the reference response.

    `answers`: log-likelihood and decoder tokens of each candidate. Perplexities are the reference's. With negatives,
    `ranking_acc`: whether it has the lowest mean token NLL; `mrr`: one over its rank. A tie counts against it.
    """
    logprob, tokens = answers[0]
    scores: dict[str, Any] = score_log_likelihood(logprob, tokens, doc["candidates"][0])
    if len(answers) > 1:
        nlls = [-total / count for total, count in answers]
        rank = sum(nll <= nlls[0] for nll in nlls)  # itself among them
        scores |= {"ranking_acc": float(rank == 1), "mrr": 1 / rank}
    return scores


TOKENS = 256  # decoder tokens of a cycle
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
