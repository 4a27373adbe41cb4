"""What the site changes in the pages: links that leave docs/ lead to the repository's files by name."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)\s]+\)")


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """A page without links to files that are no part of the site; their names stay."""
    return _OUTSIDE.sub(r"\1", markdown)
