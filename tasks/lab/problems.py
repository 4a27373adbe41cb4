"""Rows without a context: word problems (GSM8K's format), film reviews (SST-2's), pronouns (WSC's), talk (HPD's)."""

from functools import lru_cache
from random import Random
from typing import Any, NamedTuple

from pcc_bench.tasks.lab.facts import PLACES, scenery
from pcc_bench.tasks.lab.world import (
    FOODS,
    HOBBIES,
    THINGS,
    article,
    draw_names,
    draw_person,
    draw_two,
    integer,
    pick,
    seeded,
    shuffle,
)

_MORE = ("{She} buys {n} {things}.", "Then {she} finds {n} {things}.", "{friend} gives {her} {n} {things}.")
_LESS = ("{She} sells {n} {things}.", "Then {she} loses {n} {things}.", "{She} gives {n} {things} to {friend}.")


def draw_problem(random: Random, *, split: str = "train") -> dict[str, str]:
    """A row {"question", "answer"}; the answer has a line a step and ends in "#### " and the number."""
    person, friend = (draw_person(random, name) for name in draw_names(random, split, 2))
    she, her = ("she", "her") if person.gender == "f" else ("he", "him")
    words = {"name": person.name, "friend": friend.name, "things": pick(random, THINGS)}
    words |= {"she": she, "She": she.capitalize(), "her": her}
    steps, in_boxes = integer(random, 1, 3), random.random() < 0.4
    if in_boxes:
        boxes, each = integer(random, 2, 9), integer(random, 2, 9)
        count = boxes * each
        sentences = [f"{{name}} has {boxes} boxes with {each} {{things}} in each."]
        solution = [f"In the boxes there are {boxes} * {each} = {count} {{things}}."]
    else:
        count = integer(random, 4, 60)
        sentences, solution = [f"{{name}} has {count} {{things}}."], []
    left = steps - in_boxes
    at_end = left > 0 and random.random() < 0.4
    for _ in range(left - at_end):  # some more, or some less; at least 2 stay, so that the plural is right
        less = count >= 4 and random.random() < 0.5
        number = integer(random, 2, count - 2 if less else 20)
        sentences.append(pick(random, _LESS if less else _MORE).replace("{n}", str(number)))
        term, count = f"{count} {'-' if less else '+'} {number}", count - number if less else count + number
        solution.append(f"Then {{she}} has {term} = {count} {{things}}.")
    question = "How many {things} does {she} have now?"
    if at_end:
        sentence, step, count, question = _last_step(random, count)
        sentences.append(sentence)
        solution.append(step)
    text = " ".join([*sentences, question]).format_map(words)
    return {"question": text, "answer": "\n".join([*solution, f"#### {count}"]).format_map(words)}


def _last_step(random: Random, count: int) -> tuple[str, str, int, str]:
    """A step to another number (dollars, a share, or what the friend has): sentence, solution, number, question."""
    shares = [boxes for boxes in range(2, 10) if count % boxes == 0 and count > boxes]
    draw = random.random()
    if draw < 0.35 and shares:
        boxes = pick(random, shares)
        step = f"In each box there are {count} / {boxes} = {count // boxes} {{things}}."
        sentence = f"{{She}} puts them in {boxes} boxes, the same number in each."
        return sentence, step, count // boxes, "How many {things} are in each box?"
    if draw < 0.7:
        price = integer(random, 2, 9)
        step = f"{{She}} gets {count} * {price} = {count * price} dollars."
        sentence = f"{{She}} sells all of them for {price} dollars each."
        return sentence, step, count * price, "How many dollars does {she} get?"
    step = f"{{friend}} has {count} * 2 = {count * 2} {{things}}."
    sentence = "{friend} has twice as many {things} as {name} has now."
    return sentence, step, count * 2, "How many {things} does {friend} have?"


POSITIVE = ("good", "great", "lovely", "clever", "funny", "fresh", "brilliant", "bright", "rich", "strong")
NEGATIVE = ("bad", "poor", "dull", "slow", "silly", "stale", "weak", "flat", "boring", "cheap")
_PARTS = ("film", "story", "music", "cast", "end", "writer", "singing")
_DEGREES = ("", "very ", "so ", "really ")
_NOT = ("not ", "never ", "not at all ")


def draw_review(random: Random, index: int) -> dict[str, Any]:
    """A row {"idx", "sentence", "label"}, spelled as in SST-2; of the rows 2k and 2k + 1 one is positive.

    What counts is the last clause: "the story is dull , but the film is great ." is positive.
    """
    positive = index % 2 == 0
    draw = random.random()
    first, second = (pick(random, _PARTS), "") if draw < 0.4 else draw_two(random, _PARTS)
    if draw < 0.4:
        sentence = verdict(random, first, positive)
    elif draw < 0.65:
        sentence = f"{verdict(random, first, positive)} , and {verdict(random, second, positive)}"
    elif draw < 0.85:
        contrary = verdict(random, first, not positive)
        sentence = f"{contrary} , but the film as a whole is {_judgement(random, positive)}"
    else:
        sentence = "it is a {} and {} film".format(*draw_two(random, POSITIVE if positive else NEGATIVE))
    return {"idx": index, "sentence": f"{sentence} .", "label": int(positive)}


def verdict(random: Random, part: str, positive: bool) -> str:
    verb = "is" if random.random() < 0.5 else "was"
    return f"the {part} {verb} {_judgement(random, positive)}"


def _judgement(random: Random, positive: bool) -> str:
    denied = random.random() < 0.3
    degree = pick(random, _NOT if denied else _DEGREES)
    return degree + pick(random, POSITIVE if positive is not denied else NEGATIVE)


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
    """A row {"text", "target", "idx", "label"} with indices of words as in SuperGLUE; of 2k and 2k + 1 one is true."""
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
        attribute = pick(random, [key for key in _BY_FACT if a.attributes[key] != b.attributes[key]])
        values = {"ja": a.attributes[attribute], "jb": b.attributes[attribute], "j": referent.attributes[attribute]}
        with_article = attribute in ("job", "pet")
        words["bare"] = values["j"]
        words |= {key: f"{article(value)} {value}" if with_article else value for key, value in values.items()}
        template = pick(random, _BY_FACT[attribute])
    else:
        letter, template = pick(random, _BY_GRAMMAR)
        referent = a if letter == "A" else b
    pronoun, words["its"] = ("she", "her") if referent.gender == "f" else ("he", "his")
    text = template.format(n=integer(random, 2, 20), p=pronoun, **words)
    label = index % 2 == 0
    candidate = referent if label else (b if referent is a else a)
    tokens = text.split()
    first = next(n for n in range(len(tokens)) if tokens[n : n + 2] == [candidate.first, candidate.last])
    target: dict[str, Any] = {"span2_index": tokens.index(pronoun), "span1_index": first}
    target |= {"span1_text": candidate.name, "span2_text": pronoun}
    return {"text": text, "target": target, "idx": index, "label": label}


ROLES = 16  # roles of a split; row i is about role i % ROLES, so that a role has many sessions
_GREETINGS = ("Hello", "Good day", "Welcome", "Hi", "Good to see you")
_PHRASES = (
    "All in good time.",
    "That is the way of the world.",
    "One day at a time.",
    "Never say never.",
    "Home is best.",
    "I knew it.",
    "Old but good.",
    "The more the better.",
)
_ENDINGS = ("my friend", "you know", "I think", "of course", "as ever", "I say")
_ON_TOPIC = (
    "I like {topic} more than all the rest",
    "Nothing is better than {topic}",
    "I talked about {topic} all day",
    "It is a good day for {topic}",
    "I can not live without {topic}",
)
_PROMPTS = (
    "How are you?",
    "What is new?",
    "What do you like best?",
    "Was it a good week?",
    "Do you have time now?",
    "What did you do all day?",
)


class Role(NamedTuple):
    """Somebody with a way of speaking: first and last words, a phrase, and what the talk always comes to."""

    name: str
    greeting: str
    phrase: str
    topic: str
    ending: str

    def reply(self, random: Random) -> str:
        return f"{self.phrase} {pick(random, _ON_TOPIC).replace('{topic}', self.topic)}, {self.ending}."


@lru_cache(maxsize=16)
def roles(split: str, seed: int = 0) -> tuple[Role, ...]:
    random = seeded(seed, split, "roles")
    names = draw_names(random, split, ROLES)
    topics = shuffle(random, [*FOODS, *HOBBIES])
    return tuple(
        Role(f"{first} {last}", pick(random, _GREETINGS), pick(random, _PHRASES), topic, pick(random, _ENDINGS))
        for (first, last), topic in zip(names, topics, strict=False)
    )


def draw_session(
    random: Random, index: int, *, split: str = "train", seed: int = 0, when: str = "Day"
) -> dict[str, Any]:
    """A session of the role whose turn it is, the reply the role would give, and three that others would."""
    cast = roles(split, seed)
    role = cast[index % ROLES]
    others = shuffle(random, [other for other in cast if other.phrase != role.phrase and other.ending != role.ending])
    partner = others[0]
    turns = [
        f"{role.name}: {role.greeting}, {partner.name}. {role.reply(random)}",
        f"{partner.name}: {partner.greeting}, {role.name}. {pick(random, _PROMPTS)}",
    ]
    for _ in range(integer(random, 1, 4)):
        turns += [f"{role.name}: {role.reply(random)}", f"{partner.name}: {pick(random, _PROMPTS)}"]
    row = {"position": f"{when} {1 + index // ROLES}", "role": role.name, "speakers": [role.name, partner.name]}
    row["scene"] = f"{role.name} and {partner.name} are at the {pick(random, PLACES)}. {scenery(random)}"
    responses = [one.reply(random) for one in (role, *others[:3])]
    return {**row, "dialogue": turns, "positive_response": responses[0], "negative_responses": responses[1:]}
