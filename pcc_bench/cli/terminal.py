"""What verbs print: tables that fit the terminal, Markdown where the output is none or is a file with markers."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from pcc_bench.core.documents import read_text, write_text
from pcc_bench.core.errors import UsageError
from pcc_bench.core.texttable import TextTable

NAME = 50  # letters of the longest text that is kept on one line


def show(table: TextTable) -> None:
    """Print a table, as wide as the terminal at most; as Markdown into a pipe or a file, which have no width."""
    if not table.rows:
        return
    if not sys.stdout.isatty():
        sys.stdout.write(table.markdown() + "\n")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    pretty = Table(box=box.SIMPLE_HEAD)
    for place, column in enumerate(table.columns):
        name = place == 0 and max(len(row[0]) for row in table.rows) <= NAME
        pretty.add_column(column, no_wrap=name, overflow="fold")  # names stay whole, nothing is left out
    for row in table.rows:
        pretty.add_row(*map(Text, row))
    console = Console()
    console.print(pretty)
    for note in table.sentences():
        console.print(Text(note))


def show_frame(frame: Any) -> None:
    """As `show`, a table of pandas."""
    rows = (tuple(map(str, row)) for row in frame.itertuples(index=False))
    show(TextTable(tuple(map(str, frame)), tuple(rows)))


def show_marks(lines: Sequence[tuple[str, str, str]]) -> None:
    """Print a check list: a mark, what was looked at, what was found; one line each, however long."""
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True)
    colours = {"OK": "green", "note": "yellow"}
    widths = [max(len(line[i]) for line in lines) for i in (0, 1)]
    for mark, what, says in lines:
        coloured = (mark.ljust(widths[0]), colours.get(mark, "red"))
        console.print(Text.assemble(coloured, f"  {what.ljust(widths[1])}  {says}"))


@contextmanager
def resumable(state: Callable[[], str]) -> Iterator[None]:
    """Let an interrupted verb say what is kept (`state`) and that the same command goes on; its status is 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"\nstopped: {state()}; the same command goes on", err=True)
        raise typer.Exit(130) from None


# ---------------------------------------------------------------- tables between markers in a Markdown file


def filled(text: str, kind: str, tables: Mapping[str, str], partly: bool = False, where: str = "") -> str:
    """A Markdown text with the tables between `<!-- KIND:KEY -->` and `<!-- /KIND -->` renewed.

    `tables`: key -> Markdown. `partly`: leave markers alone that ask for other tables, if there is one for these.
    """
    blocks = re.compile(rf"(<!-- {kind}:([\w.-]+) -->\n).*?(<!-- /{kind} -->)", re.DOTALL)
    keys = {block[2] for block in blocks.finditer(text)}
    if not keys or (partly and not keys & set(tables)):
        markers = f"'<!-- {kind}:{next(iter(tables), 'table2')} -->' ... '<!-- /{kind} -->'"
        raise UsageError(f"{where}there is no {markers} to fill: add the two lines where the table belongs")
    if unknown := [] if partly else sorted(keys - set(tables)):
        known = ", ".join(tables) or "none"
        raise UsageError(f"{where}a marker asks for the table '{unknown[0]}': there are {known}")

    def renew(block: re.Match[str]) -> str:
        body = tables.get(block[2])
        return block[0] if body is None else f"{block[1]}{body.rstrip()}\n{block[3]}"

    return blocks.sub(renew, text)


def fill(path: Path, kind: str, tables: Mapping[str, str], partly: bool = False) -> bool:
    """Renew the tables in a file, see `filled`; returns whether anything changed."""
    before = read_text(path)
    after = filled(before, kind, tables, partly, f"{path}: ")
    if after != before:
        write_text(path, after)
    return after != before
