"""Text of others, shown to people."""

from __future__ import annotations


def visible(text: str) -> str:
    """Write what a terminal might obey, or not show, as escapes; the result is one line."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
