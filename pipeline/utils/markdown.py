"""Foreign text in Markdown: names and titles of others, as plain text that is neither markup nor HTML."""

import re

_SPECIAL = re.compile(r"[\\`*\[\]|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""Characters that begin markup; an underscore within a word does not."""
_LINE_START = re.compile(r"^(#{1,6}(?=\s|$)|[+-](?=\s|$)|[-=]+$|\d{1,9}(?=[.)](\s|$)))")
"""What makes a heading, list or rule of a line that begins with it."""


def escape_markdown(text: object) -> str:
    """Return a value as one line of plain text in Markdown, in a paragraph or a cell of a table."""
    plain = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = _SPECIAL.sub(lambda match: f"\\{match[0]}", plain)
    return _LINE_START.sub(_escape_start, plain)


def format_code(text: object) -> str:
    """Return a value as code on one line, in a paragraph or a cell of a table."""
    plain = " ".join(str(text).split()).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    space = " " if "`" in plain else ""
    return f"{fence}{space}{plain}{space}{fence}"


def _escape_start(match: re.Match[str]) -> str:
    return f"{match[0]}\\" if match[0].isdigit() else f"\\{match[0]}"
