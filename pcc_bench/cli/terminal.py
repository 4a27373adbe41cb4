"""What verbs print: tables that fit the terminal, and Markdown where the output is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from pandas import DataFrame

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


def show_frame(frame: DataFrame) -> None:
    """As `show`."""
    from pcc_bench.core.texttable import TextTable

    rows = (map(str, row) for row in frame.itertuples(index=False))
    show(TextTable(tuple(map(str, frame)), tuple(map(tuple, rows))))


def show_marks(lines: Sequence[tuple[str, str, str]]) -> None:
    """Print a check list: a mark, what was looked at, what was found; one line each, however long."""
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True)
    colours = {"OK": "green", "note": "yellow"}
    widths = [max(len(line[i]) for line in lines) for i in (0, 1)]
    for mark, what, says in lines:
        console.print(
            Text.assemble((mark.ljust(widths[0]), colours.get(mark, "red")), f"  {what.ljust(widths[1])}  {says}")
        )


@contextmanager
def resumable(state: Callable[[], str]) -> Iterator[None]:
    """Let an interrupted verb say what is kept (`state`) and that the same command goes on; its status is 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"\nstopped: {state()}; the same command goes on", err=True)
        raise typer.Exit(130) from None
