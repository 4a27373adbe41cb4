"""The role-play task over any dialogue data set."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import datasets

from pcc_bench.core.errors import UsageError
from pcc_bench.tasks.data import demonstration_rows, fingerprint, read_table
from pcc_bench.tasks.demonstrated import DemonstratedTask
from pcc_bench.tasks.demonstrations import Block, without_repeats
from pcc_bench.tasks.hpd.sessions import Pool, Session

NEGATIVES = 9  # wrong responses a row, unless `negatives` says otherwise


class DialogueTask(DemonstratedTask):
    """A role's next turn after its dialogue, with what it said earlier as demonstrations.

    Besides those of `DemonstratedTask`, the YAML has the key `earlier`: the splits that hold earlier sessions, in their
    order (a data set's own split may be among them: then its rows stand before each other). `metadata.negatives` is
    the number of wrong responses to rank against; data sets that have none get responses of other rows, drawn with
    `metadata.seed`. All forms ask the same rows.
    """

    def __init__(self, config: Mapping[str, Any], **kwargs: Any) -> None:
        own = dict(config)
        self._earlier = own.pop("earlier")
        super().__init__(own, **kwargs)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Load the rows and what stands before them, and record both."""
        if self.wanted.count is not None:
            raise UsageError('demonstrations are dialogue up to a budget here: pass {"tokens": 750}')
        metadata = self.config.metadata
        source, sessions = self._read(metadata["split"], len(self._earlier))
        rows = [self._doc(session, sessions) for session in sessions]
        blocks, shown = self._shots(sessions, on_lab=source["source"] == "lab")
        account = {
            **source,
            "protocol": metadata.get("protocol", "strict"),
            "population": "all",
            "rows_read": len(rows),
            "kept": len(rows),
            "dropped": {},
            "fingerprint": fingerprint(rows),
            "fewest_candidates": min(len(row["candidates"]) for row in rows),
            "most_candidates": max(len(row["candidates"]) for row in rows),
            "demonstrations": {**shown, "fingerprint": fingerprint({"text": block.text} for block in blocks)},
        }
        self.config.metadata = {**metadata, "population": account}
        docs = [{**row, "demonstrations": block.text} for row, block in zip(rows, blocks, strict=True)]
        self.dataset = {"test": datasets.Dataset.from_list(docs)}

    def blocks(self, doc: Mapping[str, Any]) -> list[str]:
        """The row's own."""
        return [doc["demonstrations"]]

    def answers(self, doc: Mapping[str, Any], results: Sequence[Any]) -> list[tuple[float, int]]:
        """Log-likelihood and tokens of each candidate."""
        tokens = [self.answer_tokens(doc, *pair) for pair in zip(doc["candidates"], results, strict=True)]
        return [(float(result[0]), count) for result, count in zip(results, tokens, strict=True)]

    def _read(self, split: str, place: int, **other: Any) -> tuple[dict[str, Any], list[Session]]:
        metadata = self.config.metadata
        hub = metadata["hub"] and {**metadata["hub"], "split": split}
        source, docs = read_table({**metadata, "split": split, "hub": hub, **other}, self._read_row)
        return source, [Session.of(doc, *([place] if len(self._earlier) > 1 else [])) for doc in docs]

    def _doc(self, session: Session, sessions: Sequence[Session]) -> dict[str, Any]:
        count = _whole(self.config.metadata, "negatives", NEGATIVES)
        negatives = session.negatives[:count] or self._drawn(session, sessions, count)
        candidates = [session.response, *negatives]
        return {"id": session.id, "session": session.text, "role": session.role, "candidates": candidates}

    def _drawn(self, session: Session, sessions: Sequence[Session], count: int) -> list[str]:
        """Responses of other rows."""
        generator = random.Random(f"{_whole(self.config.metadata, 'seed', 0)}-negatives-{session.id}")
        others = (sessions[number].response for number in without_repeats(generator, len(sessions)))
        return list(islice((text for text in others if text != session.response), count))

    def _shots(self, sessions: Sequence[Session], *, on_lab: bool) -> tuple[list[Block], dict[str, Any]]:
        """The demonstrations of each row, and what the results say about them."""
        budget = self.wanted.tokens
        shown: dict[str, Any] = {"form": self.wanted.form, "budget": budget, "tokenizer": None, "seeds": {}}
        if budget is None:
            return [Block()] * len(sessions), shown
        own_split = self.config.metadata["split"]
        others = self._said_before_on_lab() if on_lab else self._said_before(sessions)
        pool = Pool([] if own_split in self._earlier else sessions, others, _whole(self.config.metadata, "seed", 0))
        made = [pool.block(session, budget, self.counter) for session in sessions]
        tokens = [block.tokens or 0 for block, _ in made]
        own = sum(is_own for _, is_own in made)
        shown |= {"tokenizer": self.counter.name, "least_tokens": min(tokens), "mean_tokens": sum(tokens) / len(tokens)}
        shown |= {"rows_with_own_earlier_dialogue": own, "rows_with_other_dialogue_too": len(made) - own}
        return [block for block, _ in made], shown

    def _said_before(self, sessions: Sequence[Session]) -> list[Session]:
        """The sessions of the splits that hold earlier ones."""
        return [
            session
            for place, split in enumerate(self._earlier)
            for session in (sessions if split == self.config.metadata["split"] else self._read(split, place)[1])
        ]

    def _said_before_on_lab(self) -> list[Session]:
        """No two splits of the lab share a role: what a role said before is a set of its own."""
        metadata = self.config.metadata
        other = {"dataset": f"{metadata['dataset']}_earlier", "lab_rows": demonstration_rows(metadata)}
        return self._read(metadata["split"], 0, **other)[1]


def _whole(metadata: Mapping[str, Any], key: str, default: int) -> int:
    value = metadata.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UsageError(f"{key}={value!r}: {key} is a whole number of 0 or more")
    return value
