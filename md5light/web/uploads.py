"""The body of POST /batches: the list, in one of several forms, and its options.

The list is not kept in memory. The server stores a large body in an unnamed file, from which the
list is read in pieces.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import re
from collections.abc import Iterator, Mapping
from email.parser import BytesHeaderParser
from email.utils import collapse_rfc2231_value
from typing import Any, BinaryIO, NamedTuple

from md5light.errors import Refused
from md5light.finding import ALGORITHMS
from md5light.web import forms
from md5light.web.answers import Problem, list_too_large, standard_problem

#: the options of a batch
OPTIONS = ("format", "base", "digests", "name", "email", "skip_invalid")

#: characters of a label
MAX_NAME_CHARACTERS = 200

#: bytes that are read or searched at once
CHUNK_BYTES = 64 * 1024

#: bytes of JSON that are searched at once: more than the longest line
STEP_BYTES = 256 * 1024

#: the most bytes of a part's headers, and of an option's value
MAX_FIELD_BYTES = 16 * 1024

#: the beginning of a JSON object; some programs put a byte order mark before it
_OBJECT = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*\{")
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_KEY = re.compile(rb"[ \t\r\n]*(" + _STRING + rb")[ \t\r\n]*:[ \t\r\n]*", re.DOTALL)
_SCALAR = re.compile(_STRING + rb"|[-+.\w]+", re.DOTALL)
#: text before the next bracket
_FLAT = re.compile(rb'(?:[^"\[\]{}]+|' + _STRING + rb"){0,1000}", re.DOTALL)
_COMMA = re.compile(rb"[ \t\r\n]*,")
_END = re.compile(rb"[ \t\r\n]*\}[ \t\r\n]*\Z")

Text = Any  # bytes or mmap.mmap: both have find and slices, and patterns can search them


class Excerpt(NamedTuple):
    """A part of the body."""

    body: BinaryIO
    start: int
    end: int

    def chunks(self) -> Iterator[bytes]:
        self.body.seek(self.start)
        left = self.end - self.start
        while left and (chunk := self.body.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk


class Upload(NamedTuple):
    """A list with its options."""

    list: Excerpt
    format: str = "auto"
    base: str | None = None
    #: algorithms in addition to MD5
    digests: tuple[str, ...] = ()
    #: a label
    name: str | None = None
    #: as it was sent, not checked yet
    email: str | None = None
    skip_invalid: bool = False

    def fingerprint(self) -> str:
        """Return a text that is the same only for the same list with the same options."""
        options = json.dumps(self[1:]).encode()
        digest = hashlib.sha256(hashlib.sha256(options).digest())
        for chunk in self.list.chunks():
            digest.update(chunk)
        return digest.hexdigest()


def receive(environ: Mapping[str, Any], max_bytes: int) -> Upload:
    """Return the list and the options of a request. Raises Refused or Problem."""
    if environ.get("HTTP_CONTENT_ENCODING", "").strip().lower() not in ("", "identity"):
        raise Problem(415, standard_problem(415).code, "The body must not be compressed.")
    fields = _query(environ)
    media_type = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    body: BinaryIO = environ["wsgi.input"]
    with _mapped(body) as text:
        if media_type == "multipart/form-data":
            start, end, more = _multipart(text, environ["CONTENT_TYPE"])
        elif media_type == "application/json" and _OBJECT.match(text):
            start, end, more = _envelope(text)
        else:
            start, end, more = 0, len(text), []
    if end - start > max_bytes:
        raise list_too_large(max_bytes)
    return _upload(Excerpt(body, start, end), fields + more)


def _query(environ: Mapping[str, Any]) -> list[tuple[str, str]]:
    fields = forms.decoded(environ.get("QUERY_STRING", "").encode("latin-1"))
    if any(name == "email" for name, _ in fields):
        message = (
            "`email` is not taken from the query, since proxies log it: send multipart/form-data "
            'with the list as `list`, or JSON: {"email":…,"lines":[…]}.'
        )
        raise Refused("unknown_parameter", message)
    return fields


def _upload(excerpt: Excerpt, fields: list[tuple[str, str]]) -> Upload:
    for name, _ in fields:
        if name not in OPTIONS:
            raise forms.unknown(name)
    given = {name: value for name, value in forms.each_once(fields).items() if value}
    algorithms = forms.algorithms(given.get("digests", ""))
    return Upload(
        excerpt,
        format=given.get("format", "auto"),
        base=given.get("base"),
        digests=tuple(name for name in ALGORITHMS[1:] if name in algorithms),
        name=_label(given.get("name")),
        email=given.get("email"),
        skip_invalid=forms.yes_or_no(given, "skip_invalid"),
    )


def _label(name: str | None) -> str | None:
    if name and not (len(name) <= MAX_NAME_CHARACTERS and name.isprintable()):
        message = f"`name` is one line of at most {MAX_NAME_CHARACTERS} characters."
        raise Refused("invalid_name", message)
    return name


@contextlib.contextmanager
def _mapped(body: BinaryIO) -> Iterator[Text]:
    """Yield the body as searchable text; a file is mapped, not read into memory."""
    try:
        number = body.fileno()
    except OSError:  # a small body is in memory
        body.seek(0)
        yield body.read()
        return
    body.flush()
    with mmap.mmap(number, 0, access=mmap.ACCESS_READ) as text:
        yield text


# --- multipart/form-data (RFC 7578) ---------------------------------------------------------------


def _multipart(text: Text, content_type: str) -> tuple[int, int, list[tuple[str, str]]]:
    """Return the start and the end of the part `list`, and the other parts as fields."""
    header = BytesHeaderParser().parsebytes(b"Content-Type: " + content_type.encode("latin-1"))
    boundary = header.get_boundary()
    if not boundary:
        raise _malformed("The body has no boundary between its parts.")
    lists, fields = [], []
    for name, start, end in _parts(text, b"--" + boundary.encode("latin-1")):
        if name == "list":
            lists.append((start, end))
        else:
            fields.append((name, _option(name, text[start : min(end, start + MAX_FIELD_BYTES)])))
    if len(lists) > 1:  # the page's form sends two fields: one for lines and one for a file
        lists = [(start, end) for start, end in lists if end > start] or lists[:1]
    if not lists:
        raise Refused("missing_parameter", "`list` is missing: curl -F list=@FILE sends it.")
    if len(lists) > 1:
        raise Refused("repeated_parameter", "`list` is given more than once.")
    return (*lists[0], fields)


def _parts(text: Text, mark: bytes) -> Iterator[tuple[str, int, int]]:
    """Yield the name of each part, and the start and the end of its body."""
    at = text.find(mark, 0, MAX_FIELD_BYTES)
    while at >= 0:
        at += len(mark)
        if text[at : at + 2] == b"--":
            return
        start = text.find(b"\r\n\r\n", at, at + MAX_FIELD_BYTES) + 4
        if start < 4:
            break
        # In an empty part the line end before the mark is also the end of its headers.
        end = _find(text, b"\r\n" + mark, start - 2)
        if end < 0:
            break
        yield _part_name(text[at + 2 : start]), start, max(start, end)
        at = end + 2
    raise _malformed("The body is not complete: a part has no end.")


def _part_name(headers: bytes) -> str:
    parsed = BytesHeaderParser().parsebytes(headers)
    name = parsed.get_param("name", "", header="content-disposition")
    return collapse_rfc2231_value(name)


def _find(text: Text, mark: bytes, start: int) -> int:
    """Do as `find`, but in steps: during a single search no other thread could run."""
    for begin in range(start, len(text), CHUNK_BYTES):
        found: int = text.find(mark, begin, begin + CHUNK_BYTES + len(mark))
        if found >= 0:
            return found
    return -1


def _option(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Refused(f"invalid_{name}", f"`{name}` is not UTF-8 text.") from None


# --- {"email":…,"lines":[…]} ----------------------------------------------------------------------


def _envelope(text: Text) -> tuple[int, int, list[tuple[str, str]]]:
    """Return the start and the end of the array `lines`, and the other members as fields."""
    members = list(_members(text))
    lists = [(start, end) for name, start, end in members if name == "lines"]
    if len(lists) != 1 or text[lists[0][0] : lists[0][0] + 1] != b"[":
        message = (
            "The object has no array `lines`; a list of JSON objects, one a line, is sent as "
            "application/x-ndjson."
        )
        raise Refused("missing_parameter", message)
    fields = [
        (name, _json_option(name, text[start : min(end, start + MAX_FIELD_BYTES)]))
        for name, start, end in members
        if name != "lines"
    ]
    return (*lists[0], fields)


def _members(text: Text) -> Iterator[tuple[str, int, int]]:
    """Yield the name of each member, and the start and the end of its value, still unparsed."""
    at = _OBJECT.match(text).end()  # type: ignore[union-attr]  # the caller has checked
    while not _END.match(text, at):
        key = _KEY.match(text, at, at + MAX_FIELD_BYTES)
        if not key:
            raise _broken()
        end = _value_end(text, key.end())
        yield str(_loads(key[1])), key.end(), end
        comma = _COMMA.match(text, end)
        if not comma and not _END.match(text, end):
            raise _broken()
        at = comma.end() if comma else end


def _value_end(text: Text, start: int) -> int:
    if text[start : start + 1] not in (b"[", b"{"):
        scalar = _SCALAR.match(text, start, start + MAX_FIELD_BYTES)
        if not scalar:
            raise _broken()
        return scalar.end()
    at, depth = start, 0
    while depth or at == start:
        # In steps: during a match no other thread can run.
        flat = _FLAT.match(text, at, at + STEP_BYTES)
        end: int = flat.end()  # type: ignore[union-attr]  # it always matches
        mark = text[end : end + 1]
        if mark in (b"[", b"{", b"]", b"}"):
            depth += 1 if mark in (b"[", b"{") else -1
            end += 1
        elif end == at:  # nothing is left, or a string has no end
            raise _broken()
        at = end
    return at


def _json_option(name: str, value: bytes) -> str:
    """Return the value of an option as it would be in a form."""
    loaded = _loads(value)
    if name == "digests" and isinstance(loaded, list):
        loaded = " ".join(map(str, loaded))
    if name == "skip_invalid" and isinstance(loaded, bool):
        loaded = "yes" if loaded else "no"
    if loaded is not None and not isinstance(loaded, str):
        raise Refused(f"invalid_{name}", f"`{name}` must be a string.")
    return loaded or ""


def _loads(text: bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _broken() from None


def _broken() -> Refused:
    return _malformed("The body is not a JSON object.")


def _malformed(message: str) -> Refused:
    return Refused("bad_request", message)
