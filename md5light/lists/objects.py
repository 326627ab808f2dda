"""JSON: one object per line (NDJSON), or an array of objects, which is read element by element."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator

from md5light.errors import Refused
from md5light.lists import records
from md5light.lists.lines import BadLine, Line, LineMaker, Source
from md5light.lists.text import MAX_LINE_BYTES

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def ndjson(maker: LineMaker, number: int, sent: str) -> Line:
    try:
        value = json.loads(sent)
    except (ValueError, RecursionError):
        raise Refused("invalid_json", "The line is not valid JSON.") from None
    return _make_line(maker, number, sent, value)


def array(source: Source) -> Iterator[Line | BadLine]:
    """Yield the elements; raises Refused("invalid_json") where the array is broken."""
    for number, sent, value in _Array(source):
        try:
            yield _make_line(source.maker, number, sent, value)
        except Refused as error:
            yield BadLine(number, sent, error.code, error.message)


def _make_line(maker: LineMaker, number: int, sent: str, value: object) -> Line:
    if isinstance(value, str):
        value = {"url": value}
    if not isinstance(value, dict):
        raise Refused("invalid_value", "The line must be a JSON object or a URL.")
    record = {records.known(field): value[field] for field in value}
    return records.make_line(maker, number, sent, record)


class _Array:
    """The elements of one JSON array: (line number, text without line ends, value)."""

    def __init__(self, source: Source) -> None:
        self._texts = codecs.iterdecode(source.pieces, "utf-8")
        self._number = source.number
        self._text = ""
        self._at = 0

    def __iter__(self) -> Iterator[tuple[int, str, object]]:
        self._take("[")
        if self._peek() != "]":
            yield self._element()
            while self._peek() == ",":
                self._take(",")
                yield self._element()
        self._take("]")
        if self._peek():
            raise self._broken()

    def _take(self, mark: str) -> None:
        if self._peek() != mark:
            raise self._broken()
        self._at += 1

    def _peek(self) -> str:
        """Return the next character that is not white space, or an empty string at the end."""
        while True:
            # It always matches.
            end = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            self._pass(end)
            if end < len(self._text):
                return self._text[end]
            if not self._read_more():
                return ""

    def _element(self) -> tuple[int, str, object]:
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except (ValueError, RecursionError):
                if len(self._text) - self._at > MAX_LINE_BYTES or not self._read_more():
                    raise self._broken() from None
            else:
                number, sent = self._number, self._text[self._at : end]
                self._pass(end)
                return number, re.sub(r"[\r\n]+", " ", sent), value

    def _pass(self, end: int) -> None:
        self._number += self._text.count("\n", self._at, end)
        self._at = end

    def _read_more(self) -> bool:
        """Discard the text before the position and read more; return whether there was more."""
        texts = [self._text[self._at :]]
        size = 0
        try:
            while size < MAX_LINE_BYTES and (text := next(self._texts, "")):
                texts.append(text)
                size += len(text)
        except UnicodeDecodeError:
            raise Refused("invalid_text", "The list is not UTF-8.") from None
        self._text = "".join(texts)
        self._at = 0
        return size > 0

    def _broken(self) -> Refused:
        return Refused("invalid_json", f"The list is not a JSON array: see line {self._number}.")
