"""One style for all figures: a colour a method that colour-blind readers can tell apart, sizes of a paper's column."""

import re
import zlib
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import LineStyleType

FULL, NONE, TUNED = "full context", "no context", "tuned context"
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
ENDS = dict.fromkeys((FULL, NONE, TUNED), (INK, "#e1e4e8"))
END_MARKS: dict[str, tuple[str, LineStyleType]] = {FULL: ("*", "--"), NONE: ("H", ":"), TUNED: ("s", "-.")}
SPARSE = (0.0, (1.0, 5.0))  # dash of an end under another supervision ("no context, tuned")
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
DASHES: tuple[LineStyleType, ...] = ("-", "--", ":", "-.")
THICK, PLAIN, THIN = 2.4, 1.3, 0.9  # points


@dataclass(frozen=True)
class Look:
    """How one label is drawn: no two differ in colour alone."""

    colour: str  # on white paper; `THEMES` has it for dark pages
    marker: str
    hatch: str  # of bars
    dash: LineStyleType  # of lines
    width: float  # of lines, points

    @property
    def line(self) -> dict[str, Any]:
        """A line's options of matplotlib's `plot`, without its dash."""
        return {"color": self.colour, "marker": self.marker, "linewidth": self.width}


def family(label: str) -> str:
    """The method that a label is of; of an unknown one, or a control with another's memory, the label less a rate."""
    known = [name for name in (*METHODS, *CONTROLS, *ENDS) if re.match(rf"{re.escape(name)}(?![\w-])", label)]
    if known and "(" not in label:
        return max(known, key=len)
    return re.sub(r" \d[\d.]*x\b", "", label)


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """A look for each label: a method's colour is its own, its rates differ in marker, dash and hatch."""
    names = {label: family(label) for label in labels}
    known = {name: pair[0] for name, pair in (METHODS | CONTROLS | ENDS).items()}
    colours = {name: known[name] for name in names.values() if name in known}
    # Unknown methods take the colours left over, by a hash of their name: nearly always the same in every figure.
    for name in sorted(set(names.values()) - set(colours)):
        free = [light for light, _ in (OTHER_CONTROLS if is_control(name) else OTHERS)]
        start = zlib.crc32(name.encode()) % len(free)
        order = free[start:] + free[:start]
        colours[name] = next((colour for colour in order if colour not in colours.values()), order[0])
    places = {light: place for place, light in enumerate(THEMES)}
    uses: Counter[str] = Counter()
    by_label = {}
    for label, name in names.items():
        if name in ENDS:
            marker, dash = END_MARKS[name]
            by_label[label] = Look(INK, marker, "", dash if label == name else SPARSE, THIN)
            continue
        colour = colours[name]
        place, used = places[colour], uses[colour]
        uses[colour] += 1
        marker, hatch = MARKERS[(place + used) % len(MARKERS)], HATCHES[(place + used) % len(HATCHES)]
        width = THIN if is_control(name) else THICK if name.startswith("PCC") else PLAIN
        by_label[label] = Look(colour, marker, hatch, DASHES[used % len(DASHES)], width)
    return by_label


def is_control(name: str) -> bool:
    """Is a method there to be held against, and no compressor: a ceiling, a floor, a piece of the context?"""
    return name in CONTROLS or name in ENDS or "(" in name


class Sheet(NamedTuple):
    width: float  # inches
    text: float  # size of the text, points
    panels: int  # small panels side by side


COLUMN = Sheet(3.3, 7, 2)  # of a two-column paper, and of a phone
PAGE = Sheet(10.0, 9.5, 4)  # of the report in a window

STYLE: dict[Any, Any] = {
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.axisbelow", "axes.grid", "figure.constrained_layout.use"), True),
    **dict.fromkeys(("axes.spines.right", "axes.spines.top", "legend.frameon"), False),
    **dict.fromkeys(("axes.titlesize", "figure.labelsize"), "medium"),  # as all text
    **dict.fromkeys(("figure.constrained_layout.h_pad", "figure.constrained_layout.w_pad"), 0.04),
    "axes.linewidth": 0.6,
    "errorbar.capsize": 0,
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "grid.color": GRID,
    "grid.linewidth": 0.4,
    "hatch.linewidth": 0.5,
    "legend.columnspacing": 1.2,
    "legend.handlelength": 1.7,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,  # text that can be searched, and that publishers accept
    "savefig.dpi": 300,
    "svg.fonttype": "path",
    "svg.hashsalt": "pcc_bench",
    "text.hinting": "none",  # a text is measured as wide as vector files draw it
    "text.parse_math": False,  # a name with dollars is a name
}


def drawn_for(sheet: Sheet) -> AbstractContextManager[None]:
    """Within it, figures are drawn in the style, as wide as the sheet and with its text."""
    return matplotlib.rc_context(STYLE | {"font.size": sheet.text})


def sheet() -> Sheet:
    return PAGE if matplotlib.rcParams["font.size"] == PAGE.text else COLUMN


def canvas(height: float, count: int = 1, across: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure as wide as the sheet, `height` inches on a column, and its panels by row; `options` of `subplots`."""
    figure = Figure(figsize=(sheet().width, height * (sheet().text / COLUMN.text)))
    panels = list(figure.subplots(-(-count // across), across, squeeze=False, **options).flat)
    for panel in panels[count:]:
        panel.remove()
    return figure, panels[:count]


def legend(figure: Figure) -> Figure:
    """The figure with one legend under it, where it covers nothing, in as many columns as its labels leave room for."""
    parts: dict[str, Artist] = {}
    for panel in figure.axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            parts.setdefault(label, handle)
    if parts:
        columns = max(1, int(72 * sheet().width / ((0.6 * max(map(len, parts)) + 4) * sheet().text)))
        figure.legend(parts.values(), parts.keys(), loc="outside lower center", ncols=min(columns, len(parts)))
    return figure
