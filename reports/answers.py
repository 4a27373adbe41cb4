"""What is asked for in an answer, and where in its context it stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pcc_bench.results.reading import Answer

Kind = Literal["number", "date", "name", "place", "other"]
KINDS: tuple[Kind, ...] = ("number", "date", "name", "place", "other")
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = re.compile(
    rf"\b(?:{_MONTHS})\b.*\d|\d.*\b(?:{_MONTHS})\b|^(?:{_MONTHS})$|\b\d{{4}}-\d{{2}}-\d{{2}}\b"
    r"|\b\d{1,2}[/.]\d{1,2}[/.]\d{2,4}\b|^(?:in )?(?:1\d|20)\d{2}s?$",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"\d|^(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|hundred|thousand"
    r"|million|billion)\b",
    re.IGNORECASE,
)
_PLACE = re.compile(
    r"\bwhere\b|\b(?:which|what)\s+(?:\w+\s+)?(?:city|town|village|country|state|county|province|region|continent"
    r"|place|location|island|river|street|capital)\b",
    re.IGNORECASE,
)
_PERSON = re.compile(r"\b(?:who|whom|whose)\b|\b(?:what|which)\b.*\bname\b", re.IGNORECASE)
_SMALL = ("of", "the", "and", "de", "la", "von", "van", "a", "an", "in", "for", "&")


@dataclass(frozen=True)
class Span:
    """Characters of a context, the end not included."""

    start: int
    end: int


def kind(answer: Answer) -> Kind:
    """What kind of thing the first reference is, by its form and the question's words.

    A date before a number, both by their form; a place where the question asks where, or which city, country or the
    like; a name where it asks who or for a name, or where all words of the reference but small ones have a capital.
    """
    reference = answer.references[0].strip() if answer.references else ""
    if _DATE.search(reference):
        return "date"
    if _NUMBER.search(reference):
        return "number"
    if _PLACE.search(answer.question):
        return "place"
    words = [word for word in reference.split() if word.lower() not in _SMALL]
    if _PERSON.search(answer.question) or (words and all(word[0].isupper() for word in words)):
        return "name"
    return "other"


def span(context: str, references: Sequence[str]) -> Span | None:
    """Where an answer stands in its context, as whole words; None where it stands nowhere or in several places."""
    for reference in references:
        pattern = rf"(?<!\w){re.escape(reference.strip())}(?!\w)"
        places = [match.span() for match in re.finditer(pattern, context, re.IGNORECASE)] if reference.strip() else []
        if places:
            return Span(*places[0]) if len(places) == 1 else None
    return None
