"""Rows without a context: word problems (GSM8K's format), film reviews (SST-2's), pronouns (WSC's)."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

from pcc_bench.tasks.lab.facts import PLACES
from pcc_bench.tasks.lab.world import THINGS, Person, article, draw_names, draw_person, integer, pick

_MORE = ("{She} buys {n} {things}.", "Then {she} finds {n} {things}.", "{friend} gives {her} {n} {things}.")
_LESS = ("{She} sells {n} {things}.", "Then {she} loses {n} {things}.", "{She} gives {n} {things} to {friend}.")


class Problem(NamedTuple):
    """A word problem on its way: its sentences, and the steps of its answer, with words to fill in."""

    sentences: list[str]
    steps: list[str]

    def begin(self, random: Random, *, in_boxes: bool) -> int:
        """How many things there are, in boxes that are to be multiplied or not."""
        if not in_boxes:
            count = integer(random, 4, 60)
            self.sentences.append(f"{{name}} has {count} {{things}}.")
            return count
        boxes, each = integer(random, 2, 9), integer(random, 2, 9)
        self.sentences.append(f"{{name}} has {boxes} boxes with {each} {{things}} in each.")
        self.steps.append(f"In the boxes there are {boxes} * {each} = {boxes * each} {{things}}.")
        return boxes * each

    def change(self, random: Random, count: int) -> int:
        """Some more, or some less; at least 2 stay, so that the plural is right."""
        less = count >= 4 and random.random() < 0.5
        number = integer(random, 2, count - 2 if less else 20)
        self.sentences.append(pick(random, _LESS if less else _MORE).replace("{n}", str(number)))
        result = count - number if less else count + number
        self.steps.append(f"Then {{she}} has {count} {'-' if less else '+'} {number} = {result} {{things}}.")
        return result

    def end(self, random: Random, count: int) -> tuple[int, str]:
        """A last step that asks for another number: dollars, a share, or what the friend has."""
        shares = [boxes for boxes in range(2, 10) if count % boxes == 0 and count > boxes]
        draw = random.random()
        if draw < 0.35 and shares:
            boxes = pick(random, shares)
            self.sentences.append(f"{{She}} puts them in {boxes} boxes, the same number in each.")
            self.steps.append(f"In each box there are {count} / {boxes} = {count // boxes} {{things}}.")
            return count // boxes, "How many {things} are in each box?"
        if draw < 0.7:
            price = integer(random, 2, 9)
            self.sentences.append(f"{{She}} sells all of them for {price} dollars each.")
            self.steps.append(f"{{She}} gets {count} * {price} = {count * price} dollars.")
            return count * price, "How many dollars does {she} get?"
        self.sentences.append("{friend} has twice as many {things} as {name} has now.")
        self.steps.append(f"{{friend}} has {count} * 2 = {count * 2} {{things}}.")
        return count * 2, "How many {things} does {friend} have?"


def draw_problem(random: Random, *, split: str = "train") -> dict[str, str]:
    """A row {"question", "answer"}; the answer has a line a step and ends in "#### " and the number."""
    person, friend = (draw_person(random, name) for name in draw_names(random, split, 2))
    she, her = ("she", "her") if person.gender == "f" else ("he", "him")
    words = {"name": person.name, "friend": friend.name, "things": pick(random, THINGS)}
    words |= {"she": she, "She": she.capitalize(), "her": her}
    problem = Problem([], [])
    steps = integer(random, 1, 3)
    in_boxes = random.random() < 0.4
    result = problem.begin(random, in_boxes=in_boxes)
    left = steps - in_boxes
    at_end = left > 0 and random.random() < 0.4
    for _ in range(left - at_end):
        result = problem.change(random, result)
    question = "How many {things} does {she} have now?"
    if at_end:
        result, question = problem.end(random, result)
    text = " ".join([*problem.sentences, question]).format_map(words)
    return {"question": text, "answer": "\n".join([*problem.steps, f"#### {result}"]).format_map(words)}


# ---------------------------------------------------------------- film reviews


POSITIVE = ("good", "great", "lovely", "clever", "funny", "fresh", "brilliant", "bright", "rich", "strong")
NEGATIVE = ("bad", "poor", "dull", "slow", "silly", "stale", "weak", "flat", "boring", "cheap")
_PARTS = ("film", "story", "music", "cast", "end", "writer", "singing")
_DEGREES = ("", "very ", "so ", "really ")
_NOT = ("not ", "never ", "not at all ")


def draw_review(random: Random, index: int) -> dict[str, Any]:
    """A row {"idx", "sentence", "label"} with a lower-case sentence; of the rows 2k and 2k + 1 one is positive.

    Punctuation stands apart, as SST-2 has it. What counts is the last clause: "the story is dull , but the film is
    great ." is positive.
    """
    positive = index % 2 == 0
    draw = random.random()
    if draw < 0.4:
        sentence = f"{_clause(random, pick(random, _PARTS), positive)} ."
    else:
        first, second = _two(random, _PARTS)
        if draw < 0.65:
            sentence = f"{_clause(random, first, positive)} , and {_clause(random, second, positive)} ."
        elif draw < 0.85:
            contrary = _clause(random, first, not positive)
            sentence = f"{contrary} , but the film as a whole is {_judgement(random, positive)} ."
        else:
            one, other = _two(random, POSITIVE if positive else NEGATIVE)
            sentence = f"it is a {one} and {other} film ."
    return {"idx": index, "sentence": sentence, "label": int(positive)}


def _two(random: Random, words: tuple[str, ...]) -> tuple[str, str]:
    """Two different words."""
    first = int(random.random() * len(words))
    step = 1 + int(random.random() * (len(words) - 1))
    return words[first], words[(first + step) % len(words)]


def _clause(random: Random, part: str, positive: bool) -> str:
    verb = "is" if random.random() < 0.5 else "was"
    return f"the {part} {verb} {_judgement(random, positive)}"


def _judgement(random: Random, positive: bool) -> str:
    """An adjective of the kind, or one of the other kind denied."""
    denied = random.random() < 0.3
    degree = pick(random, _NOT if denied else _DEGREES)
    return degree + pick(random, POSITIVE if positive is not denied else NEGATIVE)


# ---------------------------------------------------------------- pronouns


# {A} and {B} are the two, {p} the pronoun, {its} its possessive; the letter is the one that {p} stands for.
_BY_GENDER = (
    "{A} met {B} at the {place} and then {p} went home.",
    "{A} was at the {place} with {B} when {p} began to sing.",
    "{A} walked to the {place} with {B} because {p} had a free day.",
)
_BY_FACT = {
    "job": ("{A} is {ja} and {B} is {jb}. In the evening {p} talked about the work of {j}.",),
    "pet": ("{A} has {ja} and {B} has {jb}. In the evening {p} went home to {its} {bare}.",),
    "city": ("{A} lives in {ja} and {B} lives in {jb}. Then {p} went home to {j}.",),
    "food": ("{A} likes to eat {ja} and {B} likes to eat {jb}. In the evening {p} had {j}.",),
    "hobby": ("{A} enjoys {ja} and {B} enjoys {jb}. The next day {p} had time for {j}.",),
}
_BY_GRAMMAR = (
    ("A", "{A} gave {n} {things} to {B} and now {p} has {n} {things} less."),
    ("B", "{A} gave {n} {things} to {B} and now {p} has {n} {things} more."),
    ("A", "{A} asked {B} for help because {p} could not do the work alone."),
    ("B", "{A} asked {B} for help because {p} could do the work best."),
    ("A", "{A} thanked {B} because {p} had been helped."),
    ("B", "{A} thanked {B} because {p} had helped."),
)


def draw_pronoun(random: Random, index: int, *, split: str = "train") -> dict[str, Any]:
    """A row {"text", "target", "idx", "label"}; of the rows 2k and 2k + 1 one is true.

    Indices count words apart by blanks, as SuperGLUE's do.
    """
    draw = random.random()
    by_gender = draw < 1 / 3
    while True:  # two genders where only that tells them apart, and two jobs
        a, b = (draw_person(random, name) for name in draw_names(random, split, 2))
        if a.attributes["job"] != b.attributes["job"] and not (by_gender and a.gender == b.gender):
            break
    words = {"A": a.name, "B": b.name, "place": pick(random, PLACES), "things": pick(random, THINGS)}
    if by_gender:
        referent, template = pick(random, (a, b)), pick(random, _BY_GENDER)
    elif draw < 2 / 3:
        referent = pick(random, (a, b))
        template = _fact_template(random, a, b, referent, words)
    else:
        letter, template = pick(random, _BY_GRAMMAR)
        referent = a if letter == "A" else b
    pronoun, words["its"] = ("she", "her") if referent.gender == "f" else ("he", "his")
    text = template.format(n=integer(random, 2, 20), p=pronoun, **words)
    label = index % 2 == 0
    candidate = referent if label else (b if referent is a else a)
    tokens = text.split()
    target = {
        "span2_index": tokens.index(pronoun),
        "span1_index": next(n for n in range(len(tokens)) if tokens[n : n + 2] == [candidate.first, candidate.last]),
        "span1_text": candidate.name,
        "span2_text": pronoun,
    }
    return {"text": text, "target": target, "idx": index, "label": label}


def _fact_template(random: Random, a: Person, b: Person, referent: Person, words: dict[str, str]) -> str:
    """A template about an attribute in which the two differ, with its words added."""
    attribute = pick(random, [key for key in _BY_FACT if a.attributes[key] != b.attributes[key]])
    values = {"ja": a.attributes[attribute], "jb": b.attributes[attribute], "j": referent.attributes[attribute]}
    words["bare"] = values["j"]
    with_article = attribute in ("job", "pet")
    words |= {key: f"{article(value)} {value}" if with_article else value for key, value in values.items()}
    return pick(random, _BY_FACT[attribute])
