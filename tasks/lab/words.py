"""The words of the lab's world: few enough that a byte-level tokenizer of 1,536 tokens has one token a word."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WOMEN = _words(
    "Alice Amy Anna Clara Diana Elena Ella Emma Grace Helen Irene Jane "
    "Julia Kate Laura Lily Lucy Maria Mary Nora Rose Ruth Sara Sophie"
)
MEN = _words(
    "Adam Bruno David Felix Frank George Henry Hugo Ivan Jack James John "
    "Leo Luke Mark Max Noah Oscar Paul Peter Robert Simon Tom Victor"
)
SURNAMES = _words(
    "Adams Allen Bell Black Brown Clark Cole Davis Evans Ford Foster Gray "
    "Green Hall Harris Hill Hunt Jones Kelly King Lewis Mason Moore Morris "
    "Nelson Owens Palmer Parker Perry Price Quinn Reed Ross Scott Shaw Smith "
    "Stone Turner Walker Ward Watson Webb West White Wilson Wood Wright Young"
)
CITIES = _words(
    "Athens Basel Bergen Berlin Bonn Boston Bristol Cairo Chicago Dallas "
    "Delhi Denver Dublin Geneva Hamburg Leeds Lima Lisbon London Lyon "
    "Madrid Miami Milan Munich Naples Oslo Oxford Paris Prague Quito "
    "Riga Rome Tokyo Turin Venice Vienna Warsaw York Zagreb Zurich"
)
JOBS = _words(
    "actor artist baker banker barber builder butcher clerk cook dentist "
    "doctor driver editor engineer farmer gardener guard judge lawyer miner "
    "nurse painter pilot poet sailor singer tailor teacher waiter writer"
)
COMPANIES = _words(
    "Altra Bexton Corvia Delmar Fintra Gorma Hexta Jolvar Kestro Lumera Mirvo Nordan "
    "Orbino Pexa Quanta Rondel Sylva Tarvo Ultera Vantor Wexly Xenta Yorvik Zentro"
)
FOODS = _words("bread cake cheese fruit honey pasta pizza rice salad soup")
HOBBIES = _words("chess dancing fishing hiking painting reading running singing skating swimming")
PETS = _words("cat dog duck goat horse owl parrot rabbit")
THINGS = _words("books chairs clocks coins cups hats keys lamps maps pens")
MONTHS = _words("January February March April May June July August September October November December")


def article(word: str) -> str:
    """`a` or `an`, as it stands before a word of this world."""
    return "an" if word[0] in "aeiou" else "a"
