"""Tables inside a Markdown file: what stands between `<!-- KIND:KEY -->` and `<!-- /KIND -->` is renewed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pcc_bench.core.documents import read_text, write_text
from pcc_bench.core.errors import UsageError


def filled(text: str, kind: str, tables: Mapping[str, str], partly: bool = False) -> str:
    """A text with its tables renewed.

    Args:
        text: The Markdown.
        kind: Of the markers, e.g. `report`.
        tables: Key -> Markdown of its table.
        partly: Leave markers alone that ask for other tables, if there is one for these.

    Raises:
        UsageError: It has no marker, or asks for a table that there is none of.
    """
    blocks = re.compile(rf"(<!-- {kind}:([\w.-]+) -->\n).*?(<!-- /{kind} -->)", re.DOTALL)
    keys = {block[2] for block in blocks.finditer(text)}
    if not keys or (partly and not keys & set(tables)):
        key = next(iter(tables), "table2")
        raise UsageError(
            f"there is no '<!-- {kind}:{key} -->' ... '<!-- /{kind} -->' to fill: add the two lines where the table "
            "belongs"
        )
    if not partly and keys - set(tables):
        unknown = min(keys - set(tables))
        raise UsageError(f"a marker asks for the table '{unknown}': there are {', '.join(tables) or 'none'}")

    def renew(block: re.Match[str]) -> str:
        body = tables.get(block[2])
        return block[0] if body is None else f"{block[1]}{body.rstrip()}\n{block[3]}"

    return blocks.sub(renew, text)


def fill(path: Path, kind: str, tables: Mapping[str, str], partly: bool = False) -> bool:
    """Renew the tables in a file; see `filled`.

    Returns:
        Whether anything changed.

    Raises:
        UsageError: As in `filled`, or the file can't be read or written.
    """
    before = read_text(path)
    try:
        after = filled(before, kind, tables, partly)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    if after != before:
        write_text(path, after)
    return after != before
