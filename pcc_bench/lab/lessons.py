"""What the lab's decoders learn from: passages with all their questions, texts to say again, and the other tasks.

A lesson is a list of runs, each tokenized by itself as the evaluation will (a prompt in one piece; a question after a
memory apart from it), made of pieces with a weight in the loss. Lessons grow from two facts to whole passages. Every
passage is followed by many of its questions, so that each shows the decoder many times how a name leads to a value:
with one question a passage there is little to learn it from.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import Any, NamedTuple

from pcc_bench.core.questions import question_prompt
from pcc_bench.core.tiny import EOS
from pcc_bench.model.pcc import SPECIAL_TOKENS
from pcc_bench.tasks.lab import row
from pcc_bench.tasks.lab.passages import draw_document, draw_paragraphs, lesson, two_hop
from pcc_bench.tasks.lab.world import integer, seeded, shuffle
from pcc_bench.tasks.rows import gsm8k, sst2, wsc

QUESTIONS = 16  # most questions after a passage
LONGEST = 36  # facts of the longest passages
ANSWER, SAY_AGAIN, SPOKEN, SHOWN, NARRATIVE = 1.0, 0.9, 0.3, 0.1, 0.2  # weights in the loss
RANDOM = "<random>"  # a run that is replaced by drawn tokens


class Piece(NamedTuple):
    text: str
    weight: float = 0.0  # of its tokens in the loss


Run = tuple[Piece, ...]
Lesson = list[Run]

_OPEN, _CLOSE, _AGAIN = ((Piece(token),) for token in SPECIAL_TOKENS)


def draw_lesson(seed: int, index: int, ease: float) -> Lesson:
    """A lesson by its number; `ease` is 1 for the shortest passages, 0 for those of full length."""
    random = seeded(seed, "lesson", index)
    draw = random.random() * (1 - 0.6 * max(0.0, 2 * ease - 1))  # the first ones mostly say something again
    for share, kind in _KINDS:
        if draw < share:
            return kind(random, 1 - ease)
        draw -= share
    return _questions(random, 1 - ease)


def corpus(seed: int, count: int) -> Iterator[str]:
    for index in range(count):
        for run in draw_lesson(seed, index, 0.5):
            yield "".join(piece.text for piece in run if not piece.text.startswith(RANDOM))


def _questions(random: Random, size: float) -> Lesson:
    """A passage and its questions, behind it as text or behind it as a memory."""
    hops = 2 if random.random() < 0.3 * min(1.0, 2 * size) else 1
    facts = integer(random, 2, 2 + int((LONGEST - 2) * size)) + 2 * (hops - 1)
    fillers = integer(random, 0, facts // 3)
    text, pairs = lesson(random, facts, fillers=fillers, hops=hops, alike=random.random() < 0.4)
    return _asked(random, text, pairs)


def _paragraphs(random: Random, size: float) -> Lesson:
    paragraphs = draw_paragraphs(random, integer(random, 6, 6 + int(24 * size)), split="train")
    titled = zip(paragraphs.titles, paragraphs.sentences, strict=True)
    texts = [f"{title}\n{' '.join(lines)}" for title, lines in titled]
    pairs = [(question.text, question.answer) for question in two_hop(random, paragraphs.whole)]
    return _asked(random, "\n\n".join(texts), pairs)


def _asked(random: Random, text: str, pairs: list[tuple[str, str]]) -> Lesson:
    ended: Lesson = []
    for question, answer in shuffle(random, pairs)[:QUESTIONS]:
        ended += [(Piece(question_prompt().asking(question)),), (Piece(f" {answer}", ANSWER),), _END]
    if random.random() < 0.3 or not ended:
        return [_OPEN, (Piece(text, SHOWN),), _CLOSE, *ended]
    return [(Piece(text, SHOWN), Piece("\n\n"), *ended[0]), *ended[1:]]


def _random_again(random: Random, size: float) -> Lesson:
    length = integer(random, 6, 12 + int(52 * size))
    said = (Piece(f"{RANDOM}{length}", SAY_AGAIN),)
    return [_OPEN, said, _CLOSE, _AGAIN, said, _END_AGAIN]


def _text_again(random: Random, size: float) -> Lesson:
    words = draw_document(random, integer(random, 3, 4 + int(10 * size))).split(" ")
    start = integer(random, 0, len(words) // 2)
    text = " ".join(words[start : start + integer(random, 5, 14 + int(50 * size))])
    return [_OPEN, (Piece(text, SHOWN),), _CLOSE, _AGAIN, (Piece(text, SAY_AGAIN),), _END_AGAIN]


def _narrative(random: Random, size: float) -> Lesson:
    """A document; sometimes its beginning is framed as a memory, and only the rest is to be learned."""
    if random.random() < 0.5:
        words = draw_document(random, integer(random, 6, 10 + int(12 * size))).split(" ")
        half = integer(random, len(words) // 3, 2 * len(words) // 3)
        start, rest = " ".join(words[:half]), " ".join(words[half:])
        return [_OPEN, (Piece(start),), _CLOSE, (Piece(rest, NARRATIVE),)]
    return [(Piece(draw_document(random, integer(random, 5, 8 + int(20 * size))), NARRATIVE),)]


def _examples(dataset: str, random: Random, size: float) -> Lesson:
    """Rows of a task with their answers, one after the other; of worked solutions it is learned too where they end."""
    read, options, prompt, fewest, more = _TASKS[dataset]
    shown: list[Piece] = []
    for _ in range(integer(random, 1, fewest + int(more * size))):
        doc = read(row(dataset, "train", integer(random, 0, 10**9)))
        answer = options[doc["label"]] if options else doc["answer"]
        shown += [Piece(prompt.format_map(doc)), Piece(f" {answer}", ANSWER)]
        shown.append(Piece("\n\n", 0.0 if options else ANSWER))
    return [tuple(shown[:-1])] if options else [tuple(shown[:-1]), _END]


def _talk(random: Random, size: float) -> Lesson:
    role, seed = integer(random, 0, 15), integer(random, 0, 10**6)
    shown: list[Piece] = []
    for _ in range(integer(random, 1, 1 + int(3 * size))):
        session = row("hpd", "train", role + 16 * integer(random, 0, 1000), seed)
        turns = [Piece(f"{turn}\n", SPOKEN) for turn in session["dialogue"]]
        shown += [Piece(f"{session['scene']}\n\n"), *turns]
        shown += [Piece(f"{session['role']}:"), Piece(f" {session['positive_response']}", SPOKEN), Piece("\n\n")]
    return [tuple(shown[:-1])]


_END, _END_AGAIN = (Piece(EOS, ANSWER),), (Piece(EOS, SAY_AGAIN),)
_WSC = "Question: In the sentence \"{text}\", does the pronoun '{span2_text}' refer to {span1_text}?\nAnswer:"
# Reader of rows, options, prompt as in the task's YAML, most rows of a short lesson, and how many more of a long one.
_TASKS: dict[str, tuple[Callable[[Any], dict[str, Any]], tuple[str, ...], str, int, int]] = {
    "gsm8k": (gsm8k, (), "Question: {question}\nAnswer:", 1, 4),
    "sst2": (sst2, ("negative", "positive"), "Sentence: {sentence}\nSentiment:", 2, 10),
    "wsc": (wsc, ("no", "yes"), _WSC, 2, 5),
}
_KINDS: Sequence[tuple[float, Callable[[Random, float], Lesson]]] = (
    (0.14, _random_again),
    (0.12, _text_again),
    (0.06, _narrative),
    (0.12, _paragraphs),
    (0.03, partial(_examples, "gsm8k")),
    (0.02, partial(_examples, "sst2")),
    (0.02, partial(_examples, "wsc")),
    (0.03, _talk),
)
