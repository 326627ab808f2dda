"""Redirects: which answers are redirects, and their targets."""

from __future__ import annotations

from md5light.download import urls
from md5light.download.response import Response
from md5light.errors import PermanentFailure, Refused

#: statuses that are always a redirect; other 3xx are followed if they have a Location, as in curl
REDIRECTS = {301, 302, 303, 307, 308}


def is_redirect(response: Response) -> bool:
    status = response.status
    return status in REDIRECTS or (300 <= status < 400 and "location" in response.headers)


def target(url: urls.URL, response: Response) -> urls.URL:
    """Return where the answer of `url` redirects to, or raise PermanentFailure with the reason."""
    locations = set(response.headers.get("location", [])) - {""}
    if not locations:
        raise _bad_redirect("it has no Location.")
    if len(locations) > 1:
        raise _bad_redirect("it has several different Locations.")
    try:
        return urls.join(url, locations.pop().encode("latin-1"))
    except Refused as refused:
        raise _bad_redirect(refused.message[0].lower() + refused.message[1:]) from None


def _bad_redirect(reason: str) -> PermanentFailure:
    return PermanentFailure("bad_redirect", f"The server's redirect can't be followed: {reason}")
