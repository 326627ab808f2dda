"""The digests that a job computes, the values expected of its file, and their comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

#: digests by their names in hashlib, in the order of display, with the names for people
LABELS = {"md5": "MD5", "sha1": "SHA-1", "sha256": "SHA-256", "sha512": "SHA-512"}
ALGORITHMS = tuple(LABELS)

#: the properties of a file that a client may expect values for
EXPECTABLE = ("size", *ALGORITHMS)


class Wanted(NamedTuple):
    """The further digests and the expected values of a job, as its columns."""

    #: digests to compute in addition to MD5, separated by spaces, including the expected ones
    digests: str = ""
    expected_size: int | None = None
    #: in lower-case hexadecimal, as all digests
    expected_md5: str | None = None
    expected_sha1: str | None = None
    expected_sha256: str | None = None
    expected_sha512: str | None = None

    @classmethod
    def of(cls, digests: Iterable[str], expected: Mapping[str, int | str]) -> Wanted:
        """Return the columns for `digests` and for `expected` values, whose digests are added."""
        wanted = {*digests, *expected}
        further = " ".join(name for name in ALGORITHMS[1:] if name in wanted)
        values: dict[str, Any] = {f"expected_{name}": value for name, value in expected.items()}
        return cls(further)._replace(**values)


MD5_ALONE = Wanted()

#: sizes and digests by name; None where a value is not known
Values = Mapping[str, int | str | None]


def differing(expected: Values, found: Values) -> list[str]:
    """Return the names of the expected values that differ from those found."""
    return [name for name, value in expected.items() if value not in (None, found.get(name))]


def looks_like_page(content_type: str | None) -> bool:
    """Tell whether this type is of an HTML page, which is seldom the file that was meant."""
    return (content_type or "").lower().startswith(("text/html", "application/xhtml"))


def differences(expected: Values, found: Values, content_type: str | None) -> list[str]:
    """Describe each difference, and that the file looks like an HTML page if it does."""
    words = [
        f"{name} is {found.get(name)}, not {expected[name]}" for name in differing(expected, found)
    ]
    if words and looks_like_page(content_type):
        words.append(f"it looks like a page: its type is {content_type}")
    return words
