"""A fact, the ways to state it and to ask for it; and sentences that state nothing anybody asks for."""

from random import Random
from typing import NamedTuple

from pcc_bench.tasks.lab.world import CITIES, RELATIONS, THINGS, Cast, article, draw_two, pick


class Fact(NamedTuple):
    """`value` is what `attribute` is for `subject` (a full name, or a company for the attribute `seat`)."""

    subject: str
    attribute: str
    value: str


# {a} is a or an. A statement that starts with {name} may start with a pronoun in a run about one person.
STATEMENTS: dict[str, tuple[str, ...]] = {
    "city": (
        "{name} lives in {value}.",
        "The home of {name} is in {value}.",
        "{value} is the city where {name} lives.",
        "{name} has a house in {value}.",
    ),
    "birthplace": (
        "{name} was born in {value}.",
        "{value} is the city where {name} was born.",
        "The life of {name} began in {value}.",
    ),
    "birthday": (
        "{name} was born on {value}.",
        "The date of birth of {name} is {value}.",
        "{name}'s date of birth is {value}.",
    ),
    "job": ("{name} is {a} {value}.", "{name} works as {a} {value}.", "The job of {name} is that of {a} {value}."),
    "company": (
        "{name} works for {value}.",
        "{name} has a job at {value}.",
        "The company {value} pays {name} every month.",
    ),
    "food": (
        "{name}'s favourite food is {value}.",
        "The favourite food of {name} is {value}.",
        "{name} likes to eat {value}.",
    ),
    "hobby": ("{name}'s hobby is {value}.", "The hobby of {name} is {value}.", "{name} enjoys {value}."),
    "pet": ("{name} has {a} {value}.", "{name} keeps {a} {value} as a pet.", "The pet of {name} is {a} {value}."),
    "seat": (
        "The company {name} is in {value}.",
        "The office of {name} is in {value}.",
        "{value} is the city where {name} has its office.",
    ),
    "thing": (
        "{name} owns {value} {thing}.",
        "{name} has {value} {thing}.",
        "There are {value} {thing} in the house of {name}.",
    ),
    "relation": (
        "The {relation} of {name} is {value}.",
        "{name}'s {relation} is {value}.",
        "{value} is the {relation} of {name}.",
        "{name} has a {relation} called {value}.",
    ),
}
QUESTIONS: dict[str, tuple[str, ...]] = {
    "city": ("Where does {name} live?", "In which city does {name} live?"),
    "birthplace": ("Where was {name} born?", "In which city was {name} born?"),
    "birthday": ("When was {name} born?", "What is the date of birth of {name}?"),
    "job": ("What is the job of {name}?", "Which job does {name} have?"),
    "company": ("Which company does {name} work for?", "For which company does {name} work?"),
    "food": ("What is the favourite food of {name}?", "What does {name} like to eat?"),
    "hobby": ("What is the hobby of {name}?", "Which hobby does {name} have?"),
    "pet": ("Which pet does {name} have?", "What is the pet of {name}?"),
    "seat": ("In which city is the company {name}?", "Where is the office of {name}?"),
    "thing": ("How many {thing} does {name} own?", "How many {thing} does {name} have?"),
    "relation": ("Who is the {relation} of {name}?", "What is the name of the {relation} of {name}?"),
}
# What somebody's fact looks like inside another sentence: "Anna Reed, who lives in Paris, ..."
CLAUSES: dict[str, tuple[str, ...]] = {
    "city": ("who lives in {value}", "whose home is in {value}"),
    "birthplace": ("who was born in {value}", "whose life began in {value}"),
    "birthday": ("who was born on {value}", "whose date of birth is {value}"),
    "job": ("who is {a} {value}", "who works as {a} {value}"),
    "company": ("who works for {value}", "who has a job at {value}"),
    "food": ("who likes to eat {value}", "whose favourite food is {value}"),
    "hobby": ("who enjoys {value}", "whose hobby is {value}"),
    "pet": ("who has {a} {value}", "whose pet is {a} {value}"),
    "thing": ("who owns {value} {thing}", "who has {value} {thing}"),
    "relation": ("whose {relation} is {value}",),
}
for _templates in (STATEMENTS, QUESTIONS, CLAUSES):  # those of the kinds {thing} and {relation}, word by word
    for _kind, _words in (("thing", THINGS), ("relation", RELATIONS)):
        _texts = _templates.pop(_kind)
        _templates |= {word: tuple(text.replace(f"{{{_kind}}}", word) for text in _texts) for word in _words}
_PRONOUNS = {"f": ("She", "Her"), "m": ("He", "His")}


def state(random: Random, fact: Fact, pronoun: str | None = None) -> tuple[str, int]:
    """A sentence that states the fact, and where the value starts in it.

    `pronoun`: gender of the subject where the sentence may start with She or He instead of the name, else None.
    """
    text = pick(random, STATEMENTS[fact.attribute]).replace("{a}", article(fact.value))
    if pronoun and text.startswith("{name}"):
        nominative, possessive = _PRONOUNS[pronoun]
        text = possessive + text[8:] if text.startswith("{name}'s") else nominative + text[6:]
    before, after = text.replace("{name}", fact.subject).split("{value}")
    return before + fact.value + after, len(before)


def ask(random: Random, attribute: str, subject: str) -> str:
    """A question for the value of an attribute; the subject may be a name or a phrase that stands for one."""
    return pick(random, QUESTIONS[attribute]).replace("{name}", subject)


def clause(random: Random, attribute: str, value: str) -> str:
    return pick(random, CLAUSES[attribute]).replace("{a}", article(value)).replace("{value}", value)


def facts_of(cast: Cast) -> list[list[Fact]]:
    """All facts of a cast, a list for each person, then one with a fact for each company."""
    facts = [[Fact(person.name, *item) for item in person.attributes.items()] for person in cast.people]
    facts.append([Fact(company, "seat", city) for company, city in cast.seats.items()])
    return facts


PLACES = ("market", "park", "station", "bridge", "school", "square", "garden", "river")
_MOODS = ("quiet", "full", "wet", "cold", "warm", "open", "old")
_FEELS = ("quiet", "cold", "warm")
_TIMES = ("morning", "evening", "night", "week", "winter", "summer")
_TEMPLATES = (
    "The {place} was {mood} that {time}.",
    "It rained all {time}.",
    "The sun was out that {time}.",
    "It was {feel} at the {place} all {time}.",
    "There was music at the {place} that {time}.",
    "The {place} is near the {other}.",
    "The train to {city} was late that {time}.",
    "The {place} in {city} was {mood}.",
    "People talked about the rain in {city} all {time}.",
    "The road from the {place} to the {other} was {mood}.",
)


def scenery(random: Random) -> str:
    place, other = draw_two(random, PLACES)
    template = pick(random, _TEMPLATES)
    mood, feel, time = pick(random, _MOODS), pick(random, _FEELS), pick(random, _TIMES)
    return template.format(place=place, other=other, mood=mood, feel=feel, time=time, city=pick(random, CITIES))
