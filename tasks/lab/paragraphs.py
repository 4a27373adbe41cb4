"""Titled paragraphs, each about one person or company, over which a question takes two."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from pcc_bench.tasks.lab.draws import integer, shuffle
from pcc_bench.tasks.lab.facts import Fact
from pcc_bench.tasks.lab.passages import Passage, chains, write
from pcc_bench.tasks.lab.world import draw_cast


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
    about: dict[str, list[Fact]] = {}
    for fact in chains(random, cast, facts):
        about.setdefault(fact.subject, []).append(fact)
    titles = shuffle(random, list(about))
    passages = []
    for left, title in zip(range(len(titles), 0, -1), titles, strict=True):
        share = fillers if left == 1 else integer(random, 0, 2 * fillers // left)
        fillers -= share
        passages.append(write(random, [shuffle(random, about[title])], cast, share))
    stated = [stated for passage in passages for stated in passage.stated]
    places = {
        stated.fact: (title, passage.sentences.index(passage.text[stated.start : stated.end]))
        for title, passage in zip(titles, passages, strict=True)
        for stated in passage.stated
    }
    whole = Passage("", stated, [], cast)
    return Paragraphs(titles, [passage.sentences for passage in passages], places, whole)
