"""Role play (Harry Potter Dialogue, MSC, PersonaChat): a role's next turn after what was said before."""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Self

from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.data import demonstration_rows, fingerprint
from pcc_bench.tasks.demonstrations import SEPARATOR, Block, DemonstratedTask, fill, without_repeats
from pcc_bench.tasks.metadata import TokenCounter, whole
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
    def pieces(self) -> list[str]:
        """Scene, turns and response, each with what separates it from the next; the last first."""
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
