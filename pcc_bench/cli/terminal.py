"""What verbs print: tables that fit the terminal, and Markdown where the output is no terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pcc_bench.core.texttable import TextTable


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
        pretty.add_column(column, no_wrap=place == 0, overflow="fold")  # names stay whole, nothing is left out
    for row in table.rows:
        pretty.add_row(*map(Text, row))
    console = Console()
    console.print(pretty)
    for note in table.sentences():
        console.print(Text(note))
