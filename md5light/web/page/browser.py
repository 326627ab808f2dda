"""What a browser says of itself in the headers of a request, and what follows from it."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: what `Sec-Fetch-Site` says of a form on our own page, and of what a person started by hand
OWN_SITE = ("same-origin", "none")


def prefers_html(headers: Mapping[str, str]) -> bool:
    """Tell whether the client would rather have a page than JSON, as browsers would.

    Whoever takes both alike, such as curl with its `*/*`, is a script.
    """
    accepted = _weights(headers.get("Accept", ""))
    html, data = (_media_weight(accepted, kind) for kind in ("text/html", "application/json"))
    return html > data


def preferred_language(headers: Mapping[str, str]) -> str:
    """Choose one of our languages by `Accept-Language`; English where nothing speaks for Russian."""
    accepted = _weights(headers.get("Accept-Language", ""))
    english, russian = (
        max(
            (weight for tag, weight in accepted.items() if tag.partition("-")[0] == name),
            default=0.0,
        )
        for name in ("en", "ru")
    )
    return "ru" if russian > english else "en"


def is_from_another_site(headers: Mapping[str, str], public_url: str) -> bool:
    """Tell whether a page of another site made the browser send this request.

    Browsers say so in `Sec-Fetch-Site`, or, where the connection is not encrypted, by `Origin` only. A proxy may
    have changed `Host`, so the public address counts as ours as well. Who sends neither header is not a browser.
    """
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    if site:
        return site not in OWN_SITE
    return origin is not None and _host(origin) not in (headers.get("Host"), _host(public_url))


def _host(url: str) -> str:
    """Return host and port as they are written, also of what is no possible URL."""
    return url.partition("://")[2].partition("/")[0]


def _weights(header: str) -> dict[str, float]:
    """Read a list of choices with weights (RFC 9110, 12.4.2)."""
    weights = {}
    for choice in header.lower().split(","):
        name, *parameters = (part.strip() for part in choice.split(";"))
        given = [part[2:] for part in parameters if re.fullmatch(r"q=[01](\.[0-9]{0,3})?", part)]
        weights[name] = float(given[0]) if given else 1.0
    return weights


def _media_weight(accepted: dict[str, float], media_type: str) -> float:
    """Return the weight of the most specific choice that `media_type` falls under."""
    choices = (media_type, media_type.partition("/")[0] + "/*", "*/*")
    return next((accepted[choice] for choice in choices if choice in accepted), 0.0)
