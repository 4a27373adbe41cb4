"""A suite's table inside a Markdown file, between `<!-- run:SUITE -->` and `<!-- /run -->`."""

from __future__ import annotations

import re
from pathlib import Path

from pcc_bench.errors import UsageError


def filled(text: str, suite: str, table: str) -> str:
    """A text with the table of a suite renewed.

    Raises:
        UsageError: It has no such place.
    """
    start, end = f"<!-- run:{suite} -->\n", "<!-- /run -->"
    place = re.compile(f"({re.escape(start)}).*?({re.escape(end)})", re.DOTALL)
    if not place.search(text):
        raise UsageError(f"nothing to fill for the suite {suite}: add the lines '{start.strip()}' and '{end}'")
    return place.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text)


def fill(path: Path, suite: str, table: str) -> None:
    """Renew the table of a suite in a file.

    Raises:
        UsageError: The file can't be read or written, or has no place for it.
    """
    try:
        path.write_text(filled(path.read_text(encoding="utf-8"), suite, table), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"can't renew the table in {path} ({error.strerror})") from None
