"""The preferences in a browser's request headers: page or JSON, and the language."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: characters of a header that are read: enough for browsers, and little work for attackers' headers
MAX_CHARACTERS = 1000


def prefers_html(headers: Mapping[str, str]) -> bool:
    """Tell whether the client prefers a page to JSON, as browsers do.

    A client without a preference, such as curl with its `*/*`, counts as a script.
    """
    accepted = _weights(headers.get("Accept", ""))
    html, data = (_media_weight(accepted, kind) for kind in ("text/html", "application/json"))
    return html > data


def preferred_language(headers: Mapping[str, str]) -> str:
    """Choose a language of the page by `Accept-Language`: English unless Russian is preferred."""
    accepted = _weights(headers.get("Accept-Language", ""))
    english, russian = (
        max(
            (weight for tag, weight in accepted.items() if tag.partition("-")[0] == name),
            default=0.0,
        )
        for name in ("en", "ru")
    )
    return "ru" if russian > english else "en"


def _weights(header: str) -> dict[str, float]:
    """Read a list of choices with weights (RFC 9110, 12.4.2)."""
    weights = {}
    for choice in header[:MAX_CHARACTERS].lower().split(","):
        name, *parameters = (part.strip() for part in choice.split(";"))
        given = [part[2:] for part in parameters if re.fullmatch(r"q=[01](\.[0-9]{0,3})?", part)]
        weights[name] = float(given[0]) if given else 1.0
    return weights


def _media_weight(accepted: dict[str, float], media_type: str) -> float:
    """Return the weight of the most specific choice that matches `media_type`."""
    choices = (media_type, media_type.partition("/")[0] + "/*", "*/*")
    return next((accepted[choice] for choice in choices if choice in accepted), 0.0)
