"""Tables inside a Markdown file: between `<!-- report:KEY -->` and `<!-- /report -->` stands what a report makes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pcc_bench.errors import UsageError
from pcc_bench.reports import render
from pcc_bench.reports.table import Table

BLOCK = re.compile(r"(<!-- report:(?P<key>[\w-]+) -->\n)(?P<body>.*?)(<!-- /report -->)", re.DOTALL)


def filled(text: str, tables: Sequence[Table]) -> str:
    """A text with its tables renewed.

    Raises:
        UsageError: It asks for a table that there is none of.
    """
    by_key = {table.key: table for table in tables}

    def renew(block: re.Match[str]) -> str:
        key = block["key"]
        if key not in by_key:
            raise UsageError(f"a marker asks for the table '{key}': there are {', '.join(by_key) or 'none'}")
        return f"{block[1]}{render.brief(by_key[key])}{block[4]}"

    return BLOCK.sub(renew, text)


def fill(path: Path, tables: Sequence[Table]) -> bool:
    """Renew the tables in a file.

    Returns:
        Whether anything changed.

    Raises:
        UsageError: The file can't be read or written, has no marker, or asks for a table that there is none of.
    """
    try:
        before = path.read_text(encoding="utf-8")
        if not BLOCK.search(before):
            raise UsageError(f"{path} has no '<!-- report:table2 -->' ... '<!-- /report -->' to fill: add the markers")
        after = filled(before, tables)
        if after != before:
            path.write_text(after, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"can't renew the tables in {path} ({error.strerror})") from None
    return after != before
