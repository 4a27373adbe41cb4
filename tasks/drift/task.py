"""Drift: what a memory still knows of a conversation's beginning, each time the whole conversation is compressed."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import datasets

from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.data import LAB_ROWS, fingerprint, read_table
from pcc_bench.tasks.demonstrated import DemonstratedTask
from pcc_bench.tasks.documents import whole
from pcc_bench.tasks.drift.conversations import Conversation, candidates, joined, of_lab
from pcc_bench.tasks.population import data_source

TOKENS, NEGATIVES = 256, 9


class DriftTask(DemonstratedTask):
    """Which of several turns was said in the first cycle, once `cycle` cycles of a conversation are compressed.

    A cycle is `metadata.tokens` decoder tokens of whole turns (the last one may end beyond). Besides those of
    `DemonstratedTask`, whose demonstrations are the conversation here, the YAML has the keys `cycle` and `cycles`: how
    many have passed, and how many a conversation must have, so that all tasks of the group ask the same rows; and
    `sessions`, the splits that a conversation goes through.
    """

    def __init__(self, config: Mapping[str, Any], **kwargs: Any) -> None:
        own = dict(config)
        self._cycle, self._cycles = own.pop("cycle"), own.pop("cycles")
        self._sessions: Sequence[str] = own.pop("sessions")
        if own["metadata"].get("demonstrations") is not None:
            raise UsageError(f"{own['task']} has no demonstrations: tokens says how long a cycle is")
        super().__init__(own, **kwargs)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Read the conversations, cut them into cycles, and record what was read and dropped."""
        tokens = whole(self.config.metadata, "tokens", TOKENS, least=16)
        source, conversations = self._read()
        cuts = {conversation.id: self._cuts(conversation, tokens) for conversation in conversations}
        asked = [conversation for conversation in conversations if cuts[conversation.id]]
        if not asked:
            raise UsageError(
                f"no conversation of {source['place']} has {self._cycles} cycles of {tokens} decoder tokens: pass a "
                "smaller tokens"
            )
        docs = [self._doc(conversation, cuts[conversation.id], conversations) for conversation in asked]
        short = len(conversations) - len(asked)
        reason = f"conversations of fewer than {self._cycles} cycles of {tokens} tokens"
        shown = {"form": self.wanted.form, "tokens_a_cycle": tokens, "tokenizer": self.counter.name}
        account = {
            **source,
            "protocol": self.config.metadata.get("protocol", "strict"),
            "population": "all",
            "rows_read": len(conversations),
            "kept": len(docs),
            "dropped": dict(Counter({reason: short} if short else {})),
            "cycle": self._cycle,
            "fingerprint": fingerprint(docs),
            "demonstrations": {**shown, "fingerprint": fingerprint({"text": doc["demonstrations"]} for doc in docs)},
        }
        self.config.metadata = {**self.config.metadata, "population": account}
        self.dataset = {"test": datasets.Dataset.from_list(docs)}

    def blocks(self, doc: Mapping[str, Any]) -> list[str]:
        """The conversation so far."""
        return [doc["demonstrations"]]

    def answers(self, doc: Mapping[str, Any], results: Sequence[Any]) -> list[tuple[float, int]]:
        """Log-likelihood and tokens of each candidate."""
        pairs = zip(doc["candidates"], results, strict=True)
        return [(float(result[0]), self.answer_tokens(doc, text, result)) for text, result in pairs]

    def _read(self) -> tuple[dict[str, Any], list[Conversation]]:
        metadata = self.config.metadata
        if data_source(metadata) == "lab":
            count, seed = whole(metadata, "lab_rows", LAB_ROWS), whole(metadata, "lab_seed", 0, least=0)
            source = {"source": "lab", "place": "the lab", "dataset": "drift", "split": "test", "hub": None}
            return source, of_lab(count, seed)
        read = [read_table({**metadata, "split": split}, self._read_row) for split in self._sessions]
        return {**read[0][0], "splits": list(self._sessions)}, joined([docs for _, docs in read])

    def _cuts(self, conversation: Conversation, tokens: int) -> list[int]:
        """Turns said by the end of each cycle; [] where there are too few."""
        ends = list(accumulate(self.counter.count_all([f"{turn}\n" for turn in conversation.turns])))
        cuts = [bisect_left(ends, cycle * tokens) + 1 for cycle in range(1, self._cycles + 1)]
        return cuts if cuts[-1] <= len(ends) else []

    def _doc(
        self, conversation: Conversation, cuts: Sequence[int], conversations: Sequence[Conversation]
    ) -> dict[str, Any]:
        """A row: of the first half of the first cycle the longest turn is asked for, since it says most."""
        metadata = self.config.metadata
        turn = max(range(-(-cuts[0] // 2)), key=lambda number: len(conversation.turns[number]))
        negatives, seed = whole(metadata, "negatives", NEGATIVES), whole(metadata, "seed", 0, least=0)
        return {
            "id": conversation.id,
            "demonstrations": "\n".join(conversation.turns[: cuts[self._cycle - 1]]),
            "role": conversation.turns[turn].partition(": ")[0],
            "candidates": candidates(conversation, turn, conversations, negatives, seed),
        }
