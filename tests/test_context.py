"""Marked contexts come back byte for byte, whatever is in them, and cost time in proportion to their length."""

from __future__ import annotations

import pickle
import random
import time

import dill
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.utils import apply_template

from pcc_bench.core.context import Kind, Part, Prompt, as_prompt, literal, mark, mark_row
from pcc_bench.core.errors import UsageError

TEMPLATE = "{{context}}Question: {{question}}\n\nAnswer: "
NASTY = [
    *"\x02\x03\x04\x0e\x10\x11",  # the grammar itself
    "\x10s",
    "\x10\x10",
    "\x02context\x04\n\n\x03",
    "\x0eliteral\x03",
    "\x00",
    "\x1b[0m",
    "\x7f\x85\u2028",
    "<|eot_id|>",
    "<|begin_of_text|>",
    "<mem_0>",
    "<mem>",
    "</mem>",
    "<ae>",
    "{{ context }}",
    "{% raw %}",
    "{# no #}",
    "\r\n",
    "\n\n",
    " ",
    "\t",
    "",
    "e\u0301",
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "مرحبا",
    "\u202eשלום\u202c",
    "\ufeff",
    "\U0010ffff",
    "plain words, and more of them. ",
]


def assemble(rows: list[dict[str, str]]) -> str:
    """As lm-eval does with few-shot examples and a chat template: rendered, joined, wrapped."""
    turns = [apply_template(TEMPLATE, mark_row(row, {"context": "\n\n"})) for row in rows]
    shots = [turn + literal(row["answer"]) + "\n\n" for turn, row in zip(turns, rows, strict=True)]
    return "<|user|>" + "".join(shots[:-1]) + turns[-1] + "<|assistant|>"


def check_round_trip(rows: list[dict[str, str]]) -> None:
    prompt = Prompt.parse(assemble(rows))
    assert prompt.contexts == [row["context"] for row in rows]
    literals = [part.text for part in prompt.parts if part.kind is Kind.LITERAL]
    expected = [row[column] for row in rows for column in ("question", "answer")][:-1]
    assert literals == expected
    shown = [f"{row['context']}\n\nQuestion: {row['question']}\n\nAnswer: {row['answer']}\n\n" for row in rows]
    shown[-1] = shown[-1][: len(shown[-1]) - len(rows[-1]["answer"]) - 2]
    assert prompt == "<|user|>" + "".join(shown) + "<|assistant|>"


def row(context: str, question: str = "who?", answer: str = "she") -> dict[str, str]:
    return {"context": context, "question": question, "answer": answer}


texts = st.one_of(st.text(), st.lists(st.sampled_from(NASTY), max_size=8).map("".join))


@given(st.lists(st.builds(row, texts, texts, texts), min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_any_text_round_trips(rows: list[dict[str, str]]) -> None:
    check_round_trip(rows)


def test_ten_thousand_random_contexts_round_trip() -> None:
    rng = random.Random(20250727)

    def text() -> str:
        pieces = rng.choices(NASTY, k=rng.randrange(12))
        pieces += [chr(rng.choice([rng.randrange(0x80), rng.randrange(0xD800)])) for _ in range(rng.randrange(20))]
        rng.shuffle(pieces)
        return "".join(pieces)

    for _ in range(5_000):
        check_round_trip([row(text(), text(), text()), row(text(), text())])


@pytest.mark.parametrize("piece", ["word ", "\x02\x03", "\x10", "🏳️‍🌈"])
def test_a_hundred_thousand_characters_round_trip(piece: str) -> None:
    check_round_trip([row((piece * 100_000)[:100_000], (piece * 100)[:100])])


@pytest.mark.parametrize("piece", ["\x02", "\x10", "\x03\x04", "a\x0e"])
def test_time_is_linear(piece: str) -> None:
    def seconds(characters: int) -> float:
        marked = mark(piece * (characters // len(piece)), "\n\n") + "Question"
        start = time.perf_counter()
        Prompt.parse(marked)
        return time.perf_counter() - start

    once = min(seconds(100_000) for _ in range(3))
    tenfold = min(seconds(1_000_000) for _ in range(3))
    assert tenfold < 40 * once + 0.05  # ten times the text; a quadratic parser would take a hundred times as long


@pytest.mark.parametrize(
    "marked",
    [
        "\x02context without its end",
        "\x02no separator\x03",
        "text\x03",
        "text\x04",
        "\x0eliteral without its end",
        "\x0e" + mark("nested") + "\x03",
        mark("outer")[:-1] + literal("nested") + "\x03",
        "\x02\x02",
        mark("fine") + "\x04",
    ],
)
def test_unmatched_and_nested_marks_are_refused(marked: str) -> None:
    with pytest.raises(UsageError, match=r"unmatched context mark at character \d+ of the prompt"):
        Prompt.parse(marked)


@pytest.mark.parametrize("marked", [literal("a\x04").upper(), "\x0ea\x10\x03", mark("\x02").replace("s", "x")])
def test_unknown_escapes_are_refused(marked: str) -> None:
    with pytest.raises(UsageError, match="unknown escape in a context mark"):
        Prompt.parse(marked)


def test_parts_of_a_prompt() -> None:
    prompt = Prompt.parse("Read: " + mark("a\x02b", "\n\n") + "Q: " + literal("<|eot_id|>?"))
    assert prompt.parts == (
        Part("Read: "),
        Part("a\x02b", Kind.CONTEXT, "\n\n"),
        Part("Q: "),
        Part("<|eot_id|>?", Kind.LITERAL),
    )
    assert prompt == "Read: a\x02b\n\nQ: <|eot_id|>?"
    assert prompt.contexts == ["a\x02b"]


def test_plain_strings_have_nothing_to_compress() -> None:
    assert as_prompt("\x02not parsed").parts == (Part("\x02not parsed"),)
    assert as_prompt("").parts == ()
    prompt = Prompt.parse(mark("a"))
    assert as_prompt(prompt) is prompt


@pytest.mark.parametrize("library", [pickle, dill])  # lm-eval's request cache uses dill
def test_pickling_keeps_the_parts(library: object) -> None:
    prompt = Prompt.parse(mark("a\x02b", "\n\n") + "Q: " + literal("q"))
    again = library.loads(library.dumps(prompt))  # type: ignore[attr-defined]
    assert (again, again.parts, type(again)) == (prompt, prompt.parts, Prompt)


def test_rows_are_marked_all_through() -> None:
    marked = mark_row({"context": "c", "answers": ["a", {"deep": "d"}], "label": 1}, {"context": "\n\n"})
    assert marked == {"context": mark("c", "\n\n"), "answers": [literal("a"), {"deep": literal("d")}], "label": 1}
