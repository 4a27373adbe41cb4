"""What a row of any dialogue data set becomes, and which dialogue stands before it as demonstration."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.demonstrations import SEPARATOR, Block, TokenCounter, fit, without_repeats


@dataclass(frozen=True)
class Session:
    """A dialogue whose next turn is a role's response.

    Attributes:
        id: The row's.
        role: Who responds, as written before the response.
        who: Tells roles of the same name apart; sessions of the same `who` are of one role.
        scene: What stands before the turns; "" for nothing.
        turns: Lines `Name: text`, the response not among them.
        response: What the role says next, without its name.
        negatives: What it does not say; [] where the data set has none.
        position: Where in the story; a smaller one is earlier.
    """

    id: str
    role: str
    who: str
    scene: str
    turns: tuple[str, ...]
    response: str
    negatives: tuple[str, ...]
    position: tuple[int, ...]

    @classmethod
    def of(cls, doc: Mapping[str, Any], *first: int) -> Session:
        """A session from what a reader made of a row; `first` goes before its own position."""
        lists = {key: tuple(doc[key]) for key in ("turns", "negatives")}
        return cls(**{**doc, **lists, "position": (*first, *doc["position"])})

    @property
    def text(self) -> str:
        """Scene and turns: the test item up to the role's name."""
        return (self.scene + SEPARATOR if self.scene else "") + "\n".join(self.turns)

    @cached_property
    def pieces(self) -> list[str]:
        """Scene, turns and response, each with what separates it from the next; the last first."""
        scene = [self.scene + SEPARATOR] if self.scene else []
        turns = [f"{turn}\n" for turn in self.turns]
        return [f"{self.role}: {self.response}{SEPARATOR}", *reversed(turns), *reversed(scene)]


def checked(doc: dict[str, Any]) -> dict[str, Any]:
    """What a reader made of a row, if something can be asked about it.

    Raises:
        ValueError: There is no dialogue, or the response is empty.
    """
    if not doc["turns"]:
        raise ValueError("the dialogue is empty")
    if not all(isinstance(text, str) for text in (doc["response"], *doc["turns"], *doc["negatives"])):
        raise ValueError("turns and responses are not all text")
    if not doc["response"].strip() or not all(text.strip() for text in doc["negatives"]):
        raise ValueError("a response is empty")
    return doc


class Pool:
    """The dialogue that may stand before a session.

    Nearest the session stands what its role said before; then, going back, what is earlier in the story. Where a role
    has said too little, sessions of the same role that come later and then those of other roles, in an order drawn for
    the row, stand before that: they still show how such dialogue goes.

    Args:
        asked: The sessions that are scored: they stand only before later ones of the same role.
        others: Sessions that may stand before any.
        seed: Of the order of other roles' sessions.
    """

    def __init__(self, asked: Sequence[Session], others: Sequence[Session], seed: int) -> None:
        self._others = others
        self._seed = seed
        self._roles: dict[str, list[tuple[Session, bool]]] = {}
        for sessions, is_asked in ((asked, True), (others, False)):
            for session in sessions:
                self._roles.setdefault(session.who, []).append((session, is_asked))

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
        """As many turns as fit a budget of decoder tokens, and whether all of them are the role's own and earlier.

        With one more turn it would be over the budget. `count` of the block counts turns, scenes among them.

        Raises:
            UsageError: Not even one turn fits, or all there is does not fill the budget.
        """
        pieces, own, total = [], [], 0
        for other, is_own in self.before(session):
            pieces += other.pieces
            own += [is_own] * len(other.pieces)
            total += sum(counter.count_all(other.pieces))
            if total > 2 * budget:  # more than enough: tokens merge a little where turns meet
                break
        sizes = counter.count_all(pieces)
        count = fit(sizes, budget, lambda first: counter.count(_joined(pieces[:first])))
        if not count and pieces:
            raise UsageError(
                f"the turn before session {session.id} has {sizes[0]} decoder tokens and can't fit the budget of "
                f"{budget}: pass a larger budget"
            )
        if count == len(pieces):
            raise UsageError(
                f"there is too little dialogue ({sum(sizes)} decoder tokens) before session {session.id} to fill a "
                f"budget of {budget}: provide more sessions or pass a smaller budget"
            )
        text = _joined(pieces[:count])
        return Block(text.removesuffix(SEPARATOR), count, counter.count(text)), all(own[:count])


def _joined(pieces: Sequence[str]) -> str:
    return "".join(reversed(pieces))
