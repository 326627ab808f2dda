"""Digests in the spellings that lists use: hex, base64, `md5:HEX`, `sha256-BASE64` (W3C SRI)."""

from __future__ import annotations

import base64
import re

from md5light.errors import Refused
from md5light.finding import ALGORITHMS

#: hex digits of a digest by each algorithm
DIGITS = dict(zip(ALGORITHMS, (32, 40, 64, 128), strict=True))

#: these words, in upper or lower case, mean that no value is expected
NOTHING = frozenset(["", "-", "_", "null", "none"])

_BY_DIGITS = {digits: algorithm for algorithm, digits in DIGITS.items()}
_SPELLINGS = {spelling: spelling for spelling in ALGORITHMS} | {
    "sha-1": "sha1",
    "sha-256": "sha256",
    "sha-512": "sha512",
    # OpenSSL 3
    "sha2-256": "sha256",
    "sha2-512": "sha512",
}
_STANDARD_ALPHABET = str.maketrans("-_", "+/")
_HEX = re.compile(r"[0-9A-Fa-f]+")
_PREFIXED = re.compile(rf"({'|'.join(_SPELLINGS)})[:-](.+)", re.IGNORECASE | re.ASCII)


def algorithm_of(spelling: str) -> str | None:
    """Return the algorithm (`SHA-256` is `sha256`), or None if it is not supported."""
    return _SPELLINGS.get(spelling.strip().lower())


def parse(text: str, algorithm: str | None = None) -> tuple[str, str] | None:
    """Return the algorithm and the digest in lower-case hex, or None if no digest is expected.

    `algorithm` is the column's; None: any. Raises Refused("invalid_digest") if the text is not a
    digest of that algorithm.
    """
    text = text.strip()
    if text.lower() in NOTHING:
        return None
    prefixed = _PREFIXED.fullmatch(text)
    digest = _decode(prefixed[2] if prefixed else text)
    found = _BY_DIGITS.get(len(digest))
    wanted = {algorithm or found, _SPELLINGS[prefixed[1].lower()] if prefixed else found}
    if found is None or wanted != {found}:
        kind = algorithm or "MD5, SHA-1, SHA-256 or SHA-512"
        raise Refused("invalid_digest", f"“{text[:140]}” is not a digest ({kind}).")
    return found, digest


def is_digest(text: str) -> bool:
    """Tell whether `text` is a digest that names its algorithm by prefix or length."""
    try:
        return parse(text) is not None
    except Refused:
        return False


def _decode(text: str) -> str:
    """Return the digest in lower-case hex, or an empty string."""
    if len(text) in _BY_DIGITS and _HEX.fullmatch(text):
        return text.lower()
    try:
        # rclone writes the URL-safe alphabet (RFC 4648, 5)
        return base64.b64decode(text.translate(_STANDARD_ALPHABET), validate=True).hex()
    except ValueError:
        return ""
