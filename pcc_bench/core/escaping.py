"""Text that others wrote (names in result files, above all), made safe for the place where it is printed."""

from __future__ import annotations

import re

# What no document shows or XML can hold: control characters (line ends among them), lone surrogates, non-characters.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_COMMAND = re.compile(r"^(\s*)(::|##\[)")
_LATEX = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


def visible(text: str) -> str:
    """One line: line ends and tabs are blanks, what can't be shown is written as an escape of its code."""
    return _INVISIBLE.sub(_escape, text)


def markdown(text: str) -> str:
    """A line of Markdown: no HTML, no links; no workflow command where GitHub reads the log it is printed to."""
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", visible(text)).replace("](", "]\\(")
    return _COMMAND.sub(r"\1\\\2", text)


def markdown_cell(text: str) -> str:
    """A cell of a Markdown table: as `markdown`, and a pipe does not end it."""
    return re.sub(r"(\\*)\|", r"\1\1\\|", markdown(text))


def workflow_message(text: str) -> str:
    """The message of a GitHub workflow command."""
    return visible(text).replace("%", "%25")


def workflow_property(text: str) -> str:
    """A property (`title=`) of a GitHub workflow command."""
    return workflow_message(text).replace(":", "%3A").replace(",", "%2C")


def latex(text: str) -> str:
    """A line of LaTeX text."""
    return "".join(_LATEX.get(letter, letter) for letter in visible(text))


def csv_cell(text: str) -> str:
    """A text cell of a CSV file; what a spreadsheet would take for a formula begins with an apostrophe."""
    text = visible(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) and len(text) > 1 else text


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] in "\t\n\r\x0b\x0c\x85\u2028\u2029":
        return " "
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
