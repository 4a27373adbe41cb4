"""Figures inside the page: one drawing for a window, one for a phone, in the page's colours."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from markupsafe import Markup

from pcc_bench.core import escaping
from pcc_bench.reports.figures import Figure, palette

# The page's colours change with the reader's: a figure's ink, grid, paper and lines go with them.
_SERIES = {light: f"var(--series-{light.removeprefix('#')})" for light in palette.THEMES}
THEMED = {palette.INK: "var(--figure-ink)", palette.GRID: "var(--figure-grid)", palette.PAPER: "var(--card)", **_SERIES}


@dataclass(frozen=True)
class FigureView:
    """A figure with its vectors and data inside.

    Attributes:
        key: Of its files.
        title: One line.
        alt: What it shows, in words.
        page: For a window.
        column: For a phone.
        csv: Its data, as an address.
    """

    key: str
    title: str
    alt: str
    page: Markup
    column: Markup
    csv: str


def figure_view(figure: Figure) -> FigureView:
    """A figure with its files inside."""
    data = base64.b64encode(figure.csv.read_bytes()).decode()
    page, column = (
        _named(inline_svg(path.read_text(encoding="utf-8"), f"{figure.key}-{kind}"), figure)
        for kind, path in (("page", figure.page), ("column", figure.svg))
    )
    return FigureView(figure.key, figure.title, figure.alt, page, column, f"data:text/csv;base64,{data}")


def _named(svg: str, figure: Figure) -> Markup:
    image = Markup('<svg role="img" aria-label="{}"').format(escaping.visible(f"{figure.title}. {figure.alt}"))
    return Markup(svg.replace("<svg", image, 1))


def inline_svg(text: str, key: str) -> str:
    """A vector file as an element of the page: ids of its own, the page's colours, no size of its own."""
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{key}-", text)
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
    for colour, variable in THEMED.items():
        text = text.replace(colour, variable)
    return text


def themes() -> Markup:
    """The style sheet's variables of methods' colours, for light and for dark pages."""
    light, dark = (
        " ".join(f"--series-{key.removeprefix('#')}: {pair[place]};" for key, pair in _pairs()) for place in (0, 1)
    )
    return Markup(f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n")


def _pairs() -> list[tuple[str, tuple[str, str]]]:
    return [(light, (light, dark)) for light, dark in palette.THEMES.items()]
