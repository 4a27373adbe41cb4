"""How each method looks in every figure: one colour of its own, controls in grey, PCC thickest."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

FULL, NONE = "full context", "no context"
INK, GRID, PAPER = "#262626", "#d4d4d4", "#ffffff"

# On white and on a dark page, text of these colours has WCAG's contrast of 4.5; any two differ by 0.09 or more in a
# cone's cube-rooted response for readers without red and without green cones too.
METHODS = {
    "PCC-Lite": ("#3054ab", "#45a1d9"),
    "PCC-Large": ("#823101", "#f9904d"),
    "ICAE": ("#922b61", "#fa8ab3"),
    "COCOM": ("#0b779d", "#0bcbdb"),
    "AutoCompressor": ("#975e02", "#dba929"),
    "LLMLingua-2": ("#0d7b3d", "#3bad6b"),
    "PCC": ("#6b368b", "#c69bfe"),
    "PISCO": ("#972d19", "#fc8496"),
    "BE token": ("#3e701f", "#95c765"),
}
CONTROLS = {
    "truncated context": ("#6f6f6f", "#a3a3a3"),
    "random context": ("#575757", "#bcbcbc"),
    "BM25 context": ("#404040", "#d2d2d2"),
}
ENDS = {FULL: (INK, "#e1e4e8"), NONE: (INK, "#e1e4e8")}
# Of methods that have no colour above: plug-ins, training runs, another's memory as a control.
OTHERS = (
    ("#4a4fd0", "#9aa2ff"),
    ("#00755f", "#35c9ac"),
    ("#a8326f", "#ff93c0"),
    ("#7a6600", "#cfbb3a"),
    ("#5a5f2a", "#b9c06d"),
    ("#8a3a86", "#e79ae3"),
    ("#2f6480", "#7fb9d6"),
    ("#7c4a4a", "#d9a3a3"),
)
OTHER_CONTROLS = (("#636363", "#b0b0b0"), ("#4b4b4b", "#c7c7c7"), ("#757575", "#9a9a9a"))
THEMES = dict([*METHODS.values(), *CONTROLS.values(), *OTHERS, *OTHER_CONTROLS])  # light -> dark
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d")
HATCHES = ("", "//", "..", "xx", "--", "\\\\", "++", "oo", "||", "**", "OO", "/-")
DASHES = ("-", "--", ":", "-.")
THICK, PLAIN, THIN = 2.4, 1.3, 0.9  # points


@dataclass(frozen=True)
class Look:
    """How one label is drawn: no two differ in colour alone.

    Attributes:
        colour: On white paper; `THEMES` has it for dark pages.
        marker: Matplotlib's.
        hatch: Of bars.
        dash: Of lines.
        width: Of lines, points.
    """

    colour: str
    marker: str
    hatch: str
    dash: str
    width: float


def family(label: str) -> str:
    """The method that a label is of: `PCC-Lite` of `PCC-Lite 4x, lab-llama`; of an unknown one the label less a rate.

    A control that gives a method another memory is named by its label, for it is no run of the method.
    """
    known = [name for name in (*METHODS, *CONTROLS, *ENDS) if re.match(rf"{re.escape(name)}(?![\w-])", label)]
    if known and "(" not in label:
        return max(known, key=len)
    return re.sub(r" \d[\d.]*x\b", "", label)


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """A look for each label: a method's colour is its own, its rates differ in marker, dash and hatch."""
    wanted = list(dict.fromkeys(labels))
    colours = _colours({family(label) for label in wanted})
    places = {light: place for place, light in enumerate(THEMES)}
    uses: Counter[str] = Counter()
    made = {}
    for label in wanted:
        name = family(label)
        if name in ENDS:
            made[label] = Look(INK, "*" if name == FULL else "H", "", "--" if name == FULL else ":", THIN)
            continue
        colour = colours[name]
        place, used = places[colour], uses[colour]
        uses[colour] += 1
        marker, hatch = MARKERS[(place + used) % len(MARKERS)], HATCHES[(place + used) % len(HATCHES)]
        made[label] = Look(colour, marker, hatch, DASHES[used % len(DASHES)], _width(name))
    return made


def _width(name: str) -> float:
    return THIN if is_control(name) else THICK if name.startswith("PCC") else PLAIN


def is_control(name: str) -> bool:
    """Is a method there to be held against, and no compressor: a ceiling, a floor, a piece of the context?"""
    return name in CONTROLS or name in ENDS or "(" in name


def _colours(names: set[str]) -> dict[str, str]:
    """Unknown methods take the colours left over, by a hash of their name: nearly always the same in every figure."""
    known = {name: pair[0] for name, pair in (METHODS | CONTROLS | ENDS).items()}
    colours = {name: known[name] for name in names if name in known}
    for name in sorted(names - set(colours)):
        free = [light for light, _ in (OTHER_CONTROLS if is_control(name) else OTHERS)]
        start = zlib.crc32(name.encode()) % len(free)
        order = free[start:] + free[:start]
        colours[name] = next((colour for colour in order if colour not in colours.values()), order[0])
    return colours
