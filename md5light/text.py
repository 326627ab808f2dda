"""Text from outside that is shown to people."""

from __future__ import annotations


def visible(text: str) -> str:
    """Escape characters that a terminal obeys or does not show; the result is one line."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
